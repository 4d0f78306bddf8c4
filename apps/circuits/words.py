"""What stands under "How it works" on the Transcoders page: the equations, and where paper and code differ."""

from __future__ import annotations

import streamlit as st

EQUATIONS = r"""
An MLP reads $x\in\mathbb{R}^D$, the residual stream behind a LayerNorm, and writes $y\in\mathbb{R}^D$ back to the stream.
A transcoder has $F\gg D$ features: feature $i$ reads the direction $f_i$, column $i$ of $W_{enc}$, and writes $d_i$, row $i$
of $W_{dec}$.

**The stand-in.** It learns the MLP's output from the MLP's *input*:

$$
z(x)=\mathrm{ReLU}\big(xW_{enc}+b_{enc}\big),\qquad \hat y(x)=z(x)\,W_{dec}+b_{dec}
$$

A sparse autoencoder has the same form but copies the output from itself; between the stream and its features lie all neurons.
During training there is an input bias, $x-b_{in}$ in place of $x$; afterwards it is folded into $b_{enc}$, exactly.

**The loss.** Close to the output, and mostly silent:

$$
\mathcal L=\frac{1}{BD}\sum_{b,k}\frac{(\hat y_{bk}-y_{bk})^2}{\lVert y_b\rVert_2}+\lambda\,\frac1B\sum_b\sum_i z_{bi}
$$

Both terms grow in step when $y$ does, so $\lambda$ does not depend on the scale of $y$; and because the first is a mean over
the width, what carries over to a model of another width is $\lambda D$. Rows of $W_{dec}$ keep norm one, or features could
shrink the penalty by writing larger. Features that never fire are coaxed back by a further term.

**Faithful?** $L_0$ is the mean number of features that fire on a token. The other half is the next-token loss with the
transcoder in the MLP's place, measured between two ends:

$$
\text{recovered}=\frac{CE_{zero}-CE_{coder}}{CE_{zero}-CE_{own}}
$$

**One link.** Freeze the attention patterns and the scales of all LayerNorms at their values on the prompt. The residual
stream is then a sum of what was written to it, and what an earlier feature $i$ adds to the pre-activation of a later feature
$j$ at the same token is

$$
c_{i\to j}=\underbrace{z_i}_{\text{fires: this prompt}}\cdot\underbrace{\langle d_i,v_j\rangle}_{\text{wired: fixed}},
\qquad v_j=\frac{f_j-\overline{f_j}}{\sigma}
$$

"Fixed" but for one number: the LayerNorm's scale $\sigma$ on this prompt. Hover over an edge to see the two factors. The wiring
alone ranks what *could* drive $j$; only with $z_i$ does one know what *does*. In the official walkthrough the two rankings
have 14 to 60 % of their strongest features in common.

**Across tokens.** A head with pattern $A$ brings to token $t$ what it finds at token $s$, linearly, so a reading direction is
carried back through it:

$$
v'=\frac{A_{ts}}{\sigma_s}\,\big(W_VW_O\,v-\overline{W_VW_O\,v}\big)
$$

**The books close.** For every feature $j$, with all heads, sources and layers below it,

$$
\mathrm{pre}_j=\sum_{\text{heads},\,s}A_{ts}\langle \mathrm{LN}(x_s)W_VW_O,v\rangle
+\sum_{l}\Big[\sum_i c_{i\to j}+\langle \mathrm{error}^{(l)},v\rangle\Big]+\langle\mathrm{embedding},v\rangle+\mathrm{biases}
$$

to rounding. What a transcoder misses is an *error node*, grey like all that no feature stands for. *Waterfall* walks from zero
to the answer and leaves nothing out.

**The circuit.** *Paths*: from the answer backwards, all paths are made one node longer, by features, by pairs of head and
source, or by the embedding, and the best few stay. Values remain in units of the answer. *Influence* (Ameisen et al., 2025):
every edge between features, attention folded in; with $|{\rm weights}|$ of each target's inputs scaled to sum to one as $A$, the
influence is $p\,(A+A^2+\dots)$, a sum that ends since edges only go up. Nodes and edges with the least of it go.

**The cut.** A cut feature is subtracted from what its MLP truly wrote, and the model runs on: *live*, attention and LayerNorm
answering too, or *frozen*, as the circuit assumes. Where the two agree, the circuit told the truth about the model; where they
part, something it holds fixed has moved.
"""
DIFFERENCES = """
- **What was read.** Of the paper's text only the abstract and the introduction; all details here are the official code's, and
  what the paper's appendix says of them is not verified.
- **The squared error** is divided by the norm of the target in the code, not in the paper's prose. Here: as in the code; the
  plain mean is an option of the library.
- **Decoder rows** have unit norm *before* each step only, so saved weights are slightly off. Here: once more at the end, the
  norm folded into the encoder, which changes nothing that comes out.
- **Silent features.** For them the code follows the residual of the *input*, which for a transcoder is our reading of a slip:
  the residual of the output is meant. Here: that of the output, or an auxiliary loss as in other trainers, which is none of
  this paper's.
- **Ghost gradients** look switched off by default in the code, and are on: a stray comma makes the default a tuple. Here: off.
- **Loss with the coder in place.** The trainer's own evaluation puts the transcoder's output where its *input* belongs, and
  one routine never puts the MLP back. Here: neither; afterwards the model is the same to the bit.
- **LayerNorm.** The code takes the ratio of what is read behind and before it, which explodes where the latter nears zero unless
  the stream is centred. Here: the mean is taken off the reading direction, then divided by the scale: exact, always finite.
- **The final LayerNorm** does not divide contributions to the logits in the code. Here it does, so the answer's numbers are
  logits.
- **Biases and errors.** The code leaves out the output biases of transcoders and of attention, and the first token on request.
  Here everything stands in the books.
- **How many** pairs of head and source a step looks at is limited by the number of heads in the code. Here: by the branches.
- **Capped contributions.** An option of the code bounds them by an activation on the path: the *last* one's, by a slip of
  precedence. Our reading is that the smallest is meant; the lab does not cap.
- **Pruning** in the paper keeps the best paths and nothing else; pruning by influence comes from later work.
- **Code and weights.** The official code has no licence file, so none of it is here: the lab's is written from the equations.
  The page shows the lab's own small models; on released weights it is untested.
"""


def how() -> None:
    """Write both."""
    st.markdown(EQUATIONS)
    st.markdown("**Where paper and code differ**")
    st.markdown(DIFFERENCES)
