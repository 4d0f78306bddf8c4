"""PB-LLM, live: one layer with a few precise weights, a whole model at its true cost, search, training on, your matrix."""

from __future__ import annotations

import ui
from quantization import bench

VIEWS = {
    "layer": "Layer",
    "model": "Model",
    "search": "Search",
    "training": "Training",
    "matrix": "Matrix",
}
EQUATIONS = r"""
A layer has the weight $W\in\mathbb{R}^{o\times i}$, a row an output. Calibration brings inputs $X\in\mathbb{R}^{T\times i}$
from $n$ samples, and with them the Hessian that all rows share, $H=\tfrac2n X^\top X$.

**One bit.** A row $w$ of $c$ weights becomes its signs around its mean, times one scale, which least squares gives:

$$
\mu=\tfrac1c\sum_k w_k,\quad b=\mathrm{sign}(w-\mu),\qquad
\min_\alpha\ \|(w-\mu)-\alpha\,b\|^2\quad\Rightarrow\quad\alpha=\tfrac1c\sum_k|w_k-\mu|
$$

**Who stays precise.** Each weight of the layer gets a score; the share $r$ with the lowest scores is binarized ($M=1$), the
others keep $b=8$ bits ($M=0$):

$$
v_{jk}=|W_{jk}|\qquad\text{or}\qquad v_{jk}=\frac{W_{jk}^2}{U_{kk}^2},\qquad H^{-1}=U^\top U
$$

$U$ is upper triangular, and $U_{kk}^2$ is what is left of the inverse's diagonal when column $k$'s turn comes. So the second
score is what rounding that one weight costs after all later ones have made up for it.

**The precise ones.** They share one grid a row, from the row's smallest to its largest weight, 0 included:

$$
s_j=\frac{w_j^{\max}-w_j^{\min}}{2^b-1},\quad z_j=\left\lfloor -\frac{w_j^{\min}}{s_j}\right\rceil,\quad
\hat w_{jk}=s_j\Big(\mathrm{clip}\big(\lfloor w_{jk}/s_j\rceil+z_j,\ 0,\ 2^b-1\big)-z_j\Big)
$$

**Compensation.** Columns are rounded one after the other, and each one's error goes to those still to come:

$$
e=\frac{W_{:,k}-\hat W_{:,k}}{U_{kk}},\qquad W_{:,l}\leftarrow W_{:,l}-e\,U_{kl}\quad(l>k)
$$

Mask, $\mu$, $\alpha$ and grid are taken once, from the weight as it was.

**Training on.** The forward pass sees $\hat W=M\circ\alpha\,\mathrm{sign}(W)+(1-M)\circ Q_8(W)$. The gradient goes straight
through the sign, and the precise weights are frozen:

$$
\frac{\partial L}{\partial W}=M\circ\alpha\,\frac{\partial L}{\partial\hat W}
$$

**The bill.** The paper's count is $r+(1-r)\,b+1$ bits a weight: signs, codes, and one bit that says which is which. With a
tenth at 8 bits that is 2.7. Stored as well are two numbers of 16 bits a row for the signs, one for the grid, and its zero
point. A code that takes the mask's entries as independent needs at least their entropy $H_2(r)$, 0.47 bits at a tenth: the
whiskers in *Quality and bits*.
"""
DIFFERENCES = """
- **Over what $\\mu$ and $\\alpha$ are averaged.** Paper: over the binarized weights. Code: over the whole row, with zeros in
  place of the precise ones, which shrinks $\\alpha$. Here: the paper's; the knob *statistics* has both.
- **The Hessian score.** Paper: $W_{jk}^2$ over the square of $[H^{-1}]_{kk}$. Code: over $U_{kk}^2$, as above. Here: the code's;
  the knob *metric* has both, as `hessian_exact` and `hessian`.
- **The sign of the compensation.** The paper's equation prints a plus. The code subtracts, and so does the lab.
- **The scale in training.** Paper: one a row. Code: one for a whole layer. Here: one a row.
- **Which weights are precise in training.** Paper: the largest in size. Code: those beyond two quantiles, signs counted, which
  differs where weights are skewed. Here: the largest in size; the method takes either.
- **The 8 bits in training.** Code: the zero point is the rounded minimum, and values overflow a byte. Here: the grid above,
  in both cases.
- **The rate in training.** Paper: 2e-5 for 10,000 steps. Code: 1e-4. Here: a knob, for far fewer steps.
- **A sign of 0.** torch.sign gives 0, which no bit can store. Here it counts as +1.
"""


def training() -> bench.Pictures:
    """What there is to see of training on."""
    return {"Loss": room.figures.training_curves, "Perplexity": room.figures.training_ends}


room = ui.open_paper("pb-llm", VIEWS)
bench.stage(room, {"training": training})
ui.close_paper(room, bench.how(EQUATIONS, DIFFERENCES))
