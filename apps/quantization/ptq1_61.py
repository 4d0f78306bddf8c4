"""PTQ1.61, live: whole channels kept precise, the honest bill, a whole model, search, preprocessing, your matrix."""

from __future__ import annotations

import ui
from quantization import bench

VIEWS = {
    "layer": "Layer",
    "bill": "Bill",
    "model": "Model",
    "search": "Search",
    "preprocess": "Preprocessing",
    "matrix": "Matrix",
}
EQUATIONS = r"""
A layer has the weight $W\in\mathbb{R}^{n\times m}$, $n$ outputs by $m$ inputs, and gets the inputs $x\in\mathbb{R}^m$.

**A bound.** What quantization does to the outputs is at most what it does to each input channel, times that channel's input:

$$
\sum_{j=1}^{n}\Big|\sum_{i=1}^{m}x_i\,(\hat W_{ji}-W_{ji})\Big|\ \le\ \sum_{i=1}^{m}|x_i|\,\sum_{j=1}^{n}|\hat W_{ji}-W_{ji}|
$$

So the channels with the largest inputs stay precise, whole: the mask $m_s$ then costs one bit a channel, $1/n$ of a bit a
weight. A channel's score is the largest $|x_i|$ that calibration brings it.

**The weight.** Salient channels keep 4 bits, on one grid a row over the whole row. All others become signs around the row's
mean, with three vectors of scales:

$$
\hat W=Q_4(W)\circ m_s+(r_1r_2)\circ\big(\alpha\circ\mathrm{sign}(W-\mu)+\mu\big)\circ(1-m_s)
$$

$\mu\in\mathbb{R}^{n\times1}$ and at first $\alpha\in\mathbb{R}^{n\times1}$ are the means of $w$ and of $|w|$ over a row's
other weights; $r_1\in\mathbb{R}^{n\times1}$ and $r_2\in\mathbb{R}^{1\times m}$ begin as ones. Only $\alpha$, $r_1$ and $r_2$
are learned: no sign ever changes, so the loss is smooth in all that moves.

**What is fitted.** Block by block, on three streams: full precision $Y_f$, the quantized block on what the blocks before it
left $Y_q$, and the full-precision block on the same input $Y_{fq}$:

$$
L=\sum_{Y\in\{Y_f,\,Y_{fq}\}}\mathrm{MSE}(Y_q,Y)+\mathrm{NLC}(Y_q,Y),\qquad
\mathrm{NLC}(a,b)=-\log\big|\overline{\cos}(a,b)\big|
$$

The cosine is taken for each token and averaged before the logarithm.

**The bill.** With the share $\rho$ of the channels at 4 bits the paper counts $(1-\rho)+4\rho$ bits for the weights, 1.6 at a
fifth, and hardly anything else, for layers of width 4,096. What has to be stored is

$$
\underbrace{(1-\rho)+4\rho}_{\text{weights}}+\underbrace{\tfrac1n}_{\text{mask}}
+\underbrace{\tfrac{16+16+16+4}{m}+\tfrac{16}{n}}_{r_1\alpha,\ r_1\mu,\ s,\ z;\ r_2}
$$

bits a weight. The last part falls as one over the width: *Bill* lets you turn it.

**Preprocessing.** LoRA is trained on the model once it is quantized, merged into those weights, and the result is quantized
again. What is quantized the second time is nearly binary already. That its largest weights stand in whole channels (*Largest
weights*) is so in part before LoRA begins: binary weights of a row are all of one size, and only precise channels stand out.
"""
DIFFERENCES = """
- **The row's mean $\\mu$.** The paper's equation has none; the code does, and does not learn it. Here: the code's; a knob of
  *Layer* leaves it out.
- **The start of $\\alpha$.** The least-squares scale around $\\mu$ would be the mean of $|w-\\mu|$. The code takes the mean of
  $|w|$, zeros left out. Here: the code's.
- **A channel's score.** Paper: its magnitude. Official pseudocode: a mean over tokens. Code: the maximum, in the
  full-precision model. Here: the code's; the knob *score* has the others.
- **How many channels.** Code: one more than the share, and what ties with it (77 of 384). Here: the same.
- **The loss.** Paper: a 2-norm. Code: a mean square. Here: the code's. Cosines below 1e-4 count as 1e-4, or a collapsed block
  would cost infinity: that guard is the lab's.
- **The count.** The paper's appendix divides the small parts by bits instead of weights; both round to 1.61. The lab counts
  per weight, and counts the grids of the salient channels as well.
- **After preprocessing** the channels' scores have to be taken again from the merged model; the official instructions do not
  say so. Here they are.
- **Steps and rates.** Paper: 2,560 steps a block, rates 5e-4 and 1e-3. Here: far fewer, with rates from a search on other
  text.
"""


def bill() -> bench.Pictures:
    """What there is to see of the count."""
    return {"Part by part": room.figures.bill_parts, "Width": room.figures.bill_widths}


def preprocess() -> bench.Pictures:
    """What there is to see of preprocessing."""
    return {"Perplexity": room.figures.preprocess_rows, "Largest weights": room.figures.preprocess_salience}


room = ui.open_paper("ptq1-61", VIEWS)
bench.stage(room, {"bill": bill, "preprocess": preprocess})
ui.close_paper(room, bench.how(EQUATIONS, DIFFERENCES))
