"""SP²OT, live: one labelling problem, a training whose labelled mass grows, seven clusterings of digits, your own table."""

from __future__ import annotations

from typing import Any

import streamlit as st
import ui

from lab import ledger

VIEWS = {"plan": "One plan", "growth": "Mass grows", "digits": "Digits race", "features": "Your data"}
EQUATIONS = r"""
There are $N$ samples with predictions $P$ over $K$ clusters, and the cost of a label is $C=-\log P$. A plan $Q\ge 0$ hands
out the mass $\rho$:

$$
\min_Q\ \langle Q,C\rangle-\lambda_1\langle S,QQ^\top\rangle
+\gamma\,\mathrm{KL}\!\left(Q^\top 1\,\middle\|\,\tfrac{\rho}{K}1\right)
\quad\text{with}\quad Q1\le\tfrac1N 1,\qquad 1^\top Q1=\rho
$$

**How much.** A *virtual cluster* of cost 0 takes what is left of each sample; its column must hold exactly $1-\rho$. So
each sample gives what it is sure of, and one threshold for all is set by the mass. While training goes on, $\rho$ grows:

$$
\rho(t)=\rho_0+(1-\rho_0)\,e^{-5(1-t/T)^2}
$$

**How large.** $\gamma$ pulls cluster sizes to equal: at 0 they are free, at $\infty$ they are forced, as earlier methods
do.

**Who with whom.** The semantic term rewards neighbours in $S$ for sharing a label. It is quadratic, so each step replaces
it by its tangent at the present plan, which only changes the cost:

$$
C^{t}=C-\lambda_1(S+S^\top)Q^t
$$

The tangent is a bound only where $S$ is positive semidefinite. A graph of nearest neighbours with an empty diagonal is
not, so the objective may rise; *Descent* shows where, and the knob *psd shift* adds the diagonal that is missing.

**The solver.** With entropy $\varepsilon$ the plan is a scaled kernel, and two vectors are scaled in turn:

$$
a\leftarrow\alpha\oslash(Mb),\qquad b\leftarrow\left(\tilde\beta\oslash(M^\top a)\right)^{f},\qquad
f_j=\tfrac{\gamma}{\gamma+\varepsilon},\quad f_{K+1}=1
$$

Only $K+1$ numbers are the state, so an accelerated iteration (Anderson's) needs tens of steps where the plain one needs
hundreds; *Solvers* shows it on your problem.
"""


def plan() -> dict[str, Any]:
    """What there is to see of one plan."""
    return {
        "On the map": figures.cluster_map,
        "The plan": figures.plan_image,
        "Sizes": figures.cluster_sizes,
        "Descent": figures.objective_descent,
        "Solvers": figures.solver_race,
    }


def growth() -> dict[str, Any]:
    """What there is to see while the mass grows."""
    return {"On the map": figures.growth_map, "Precision": figures.growth_precision, "Sizes": figures.growth_sizes}


def digits() -> dict[str, Any]:
    """What there is to see of the race: one run, in part a method at a time, and the ledger's seeds, as no knob moves them."""

    def of_one(draw: Any) -> Any:
        def drawn(result: Any, theme: Any) -> Any:
            methods = {name.lower(): name for name in reversed(result.confusion)}  # the paper's own first
            chosen = methods[ui.choose("Method", methods, key="digits.method", kind=ui.select)]
            return draw(result, chosen, theme=theme)

        return drawn

    def over_seeds(result: Any, theme: Any) -> Any:
        return figures.over_seeds([row["values"] for row in measured.rows], theme=theme)

    measured = ledger.shipped("sp2ot").get("digits")
    return {
        "Scores": figures.scores,
        "Head to tail": figures.head_medium_tail,
        "Confusion": of_one(figures.confusion),
        "Precision": figures.selected_precision,
        "On the map": of_one(figures.digits_map),
    } | ({"Over seeds": over_seeds} if measured else {})


def features() -> Any:
    """What there is to see of the reader's own table: more where it brought labels."""

    def pictures(result: Any) -> dict[str, Any]:
        always = {"On the map": figures.features_map, "Sizes": figures.features_sizes}
        return always | ({"Against labels": figures.features_confusion} if len(result.confusion) else {})

    return pictures


def sample() -> bytes:
    """Long-tailed digits, a row an image: 64 pixels and the label."""
    import pandas as pd

    from lab.datasets.digits import digits as images
    from lab.datasets.digits import long_tailed_indices

    chosen = long_tailed_indices(10.0, 0)
    pixels, labels = images()
    table = pd.DataFrame(pixels[chosen].reshape(len(chosen), -1)).add_prefix("pixel_")
    return table.assign(label=labels[chosen]).to_csv(index=False, float_format="%g").encode()


room = ui.open_paper("sp2ot", VIEWS)
figures = room.figures
ui.stage(
    room.experiment,
    {"plan": plan, "growth": growth, "digits": digits, "features": features}[room.experiment.key](),
    sample=ui.Sample("digits.csv", sample, "707 handwritten digits with a long tail, 64 pixels each, and their labels"),
)
ui.close_paper(room, lambda: st.markdown(EQUATIONS))
