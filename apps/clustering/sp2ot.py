"""SP²OT, live: one labelling problem under the microscope, and a training whose labelled mass grows."""

from __future__ import annotations

from typing import Any

import controls
import streamlit as st
import ui

from lab import catalog, rooms
from lab.experiment import Config

VIEWS = {"plan": "One plan", "growth": "Mass grows"}
PICTURES = {
    "plan": {
        "plan": ("plan_image", "The plan"),
        "map": ("cluster_map", "On the map"),
        "sizes": ("cluster_sizes", "Cluster sizes"),
        "descent": ("objective_descent", "Descent"),
        "solvers": ("solver_race", "Solvers"),
    },
    "growth": {
        "map": ("growth_map", "On the map"),
        "precision": ("growth_precision", "Precision"),
        "sizes": ("growth_sizes", "Cluster sizes"),
    },
}
EQUATIONS = r"""
Of $N$ samples with predictions $P$, cost $C=-\log P$, find the plan $Q\ge 0$ that hands out the mass $\rho$:

$$\min_Q\ \langle Q,C\rangle-\lambda\langle S,QQ^\top\rangle+\gamma\,\mathrm{KL}(Q^\top 1\,\|\,\rho\tfrac1K)
\quad\text{s.t.}\quad Q1\le\tfrac1N,\ 1^\top Q1=\rho .$$

- A **virtual cluster** of cost 0 takes what is left of each sample; its column must hold exactly $1-\rho$.
- $\gamma$ pulls cluster sizes to equal: 0 leaves them free, $\infty$ forces them, as earlier methods do.
- The **semantic term** rewards neighbours for sharing a label. It is replaced by its tangent at the present plan
  (majorize-minimize). The tangent is a bound only where $S$ is positive semidefinite; a nearest-neighbour graph with
  an empty diagonal is not, so the objective may rise, and the page shows where.
- While training goes on, $\rho$ grows from $\rho_0$ to 1: sure samples first.
"""


@st.cache_data(max_entries=64, show_spinner=False)
def computed(key: str, config: Config) -> Any:
    return rooms.experiments(catalog.get("sp2ot"))[key](config)


card = catalog.get("sp2ot")
figures = rooms.figures(card)
ui.header(card)
bar = st.container(horizontal=True)
with bar:
    view = st.segmented_control(
        "View", list(VIEWS), format_func=VIEWS.get, required=True, default="plan", key="view", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    ui.present_toggle()
left, right = st.columns([2.4, 1], gap="large")
config = controls.config(rooms.experiments(card)[view].config, beside=right, below=right)
with left:
    pictures = PICTURES[view]
    picture = st.pills(
        "Picture", list(pictures), format_func=lambda name: pictures[name][1], required=True, default=next(iter(pictures)),
        key=f"picture_{view}", label_visibility="collapsed",
    )  # fmt: skip
    fig = getattr(figures, pictures[picture][0])(computed(view, config), ui.theme())
    ui.figure(fig, key=f"{view}_{picture}")
if not ui.presenting():
    lines = ui.standings(card)
    if lines:
        ui.claims_strip(lines)
    with st.expander("How it works"):
        st.markdown(EQUATIONS)
        ui.notes(card)
        ui.notebook_hint(card)
