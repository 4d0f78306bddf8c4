"""FlexRound, live: one layer, its rounding under the lens, a whole model, a network for digits, search, your matrix."""

from __future__ import annotations

from typing import Any

import ui
from quantization import bench

from lab import ledger

VIEWS = {
    "layer": "Layer",
    "rounding": "Rounding",
    "model": "Model",
    "digits": "Digits",
    "search": "Search",
    "matrix": "Matrix",
}
EQUATIONS = r"""
A grid of $b$ bits has a step $s_1$ and a zero point $z$; rounding to nearest puts a weight $W$ on the point
$\lfloor W/s_1\rceil$. What serves the layer's output best is often another point.

**Division.** Each weight is divided by a positive factor of its own before it is rounded:

$$
\hat W=s_1\,\mathrm{clip}\!\left(\left\lfloor\frac{W}{S}\right\rceil,\,-z,\,2^b-1-z\right),\qquad
S=s_1\odot S_2\odot s_3
$$

$S_2$ has the weight's shape, $s_3$ one factor for each output; a convolution has $s_4$ as well, one for each input channel.
These begin at 1, and $s_1$ at the grid's first step, so step 0 is rounding to nearest. When fitting is over only the integers,
$s_1$ and $z$ are stored: the factors cost nothing.

**Positive by logarithms.** $s_1=e^{d_1}$, $S_2=e^{d_2}$, $s_3=e^{d_3}$; the $d$'s are what is learned.

**Its gradient.** With $S'=S/s_1$, $G=\partial L/\partial\hat W$, $R=1$ where nothing was clipped and 0 elsewhere, and the
gradient straight through the rounding, $q=\hat W/s_1$:

$$
\frac{\partial L}{\partial S'}=-\frac{W}{S'^2}\odot G\odot R,\qquad
\frac{\partial L}{\partial d_2}=-\frac{W}{S'}\odot G\odot R,\qquad
\frac{\partial L}{\partial d_1}=\sum G\odot\Big(s_1q-R\odot\frac{W}{S'}\Big)
$$

That is the *reciprocal rule*: a large weight gets a large gradient, a weight of 0 never moves, and no weight changes its sign.
Adam divides each gradient by its own size, so of this only equal steps in logarithms remain: they move $W/S$ in proportion to
$W$ itself. A large weight can go several points, while AdaRound's goes at most one:

$$
\begin{aligned}
\text{AdaRound:}\quad &q=\lfloor W/s_1\rfloor+h,\quad h\in[0,1]\\
\text{AdaQuant:}\quad &q=\lfloor (W+V)/s\rceil\\
\text{SignRound:}\quad &q=\lfloor W/s_1+v\rceil,\quad |v|\le\tfrac12
\end{aligned}
$$

**What is fitted.** Block by block, a quantized block on what the blocks before it left is to give what the model in full
precision gives:

$$
\min_{d_1,d_2,d_3}\ \big\|\,b_{\hat W}(X_q)-b_W(X)\,\big\|^2
$$
"""
DIFFERENCES = """
- **The paper's own text was not available here.** Formula and gradients come from the official code and independent ports.
- **One scale a layer.** The paper's tables for it cannot be repeated with the public code, which has one scale a row and
  language models alone. Here: both, and $s_4$ for convolutions.
- **The first grid.** Code: a search for the least error, or the whole range, depending on a switch. Here: the search over
  ranges, or with *first grid* in *Rounding* the whole range. The code's search for symmetric grids has a slip and is
  not used.
- **The loss.** Code: a sum over one axis and a mean over the others, and which axis that is differs between images and text.
  Here: a mean over all.
- **A guard.** $d_2$ stays between -3 and 3, a factor of 20 either way. The code has none.
- **Steps.** Code: 5,000 a block. Here: far fewer.
"""


def rounding() -> bench.Pictures:
    """What there is to see of rounding while it is learned."""
    figures = room.figures
    return {
        "One weight": figures.rounding_lens,
        "All weights": figures.rounding_flow,
        "Who moves": figures.rounding_scatter,
        "By size": figures.rounding_deciles,
        "Points": figures.rounding_codes,
        "Race": figures.rounding_race,
    }


def digits() -> bench.Pictures:
    """What there is to see of the network for digits: one run, and the ledger's seeds, as no knob moves them."""
    measured = ledger.shipped("flexround").get("digits")

    def over_seeds(result: Any, theme: Any) -> Any:
        return room.figures.digits_seeds([row["values"] for row in measured.rows], theme=theme)

    figures = room.figures
    return {
        "Accuracy": figures.digits_accuracy,
        "Error": figures.digits_error,
        "Channel factors": figures.digits_s4,
    } | ({"Over seeds": over_seeds} if measured else {})


room = ui.open_paper("flexround", VIEWS)
bench.stage(room, {"rounding": rounding, "digits": digits})
ui.close_paper(room, bench.how(EQUATIONS, DIFFERENCES))
