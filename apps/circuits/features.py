"""The view of one unit: where it fires, band by band, what it does to the logits, and how it compares with its layer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st
from circuits import drawing, naming
from ui import knobs
from ui.address import choose
from ui.jobs import sentence
from ui.look import escaped, presenting, theme
from ui.room import Room, own_view
from ui.stage import live

if TYPE_CHECKING:
    from lab.circuits.transcoders.views.features.experiment import FeatureResult

PICTURES = {"examples": "Examples", "logits": "Logits", "strength": "How strongly", "layer": "All of its layer"}
HEIGHT = 480  # pixels of a figure while presenting


@own_view("features", choices=("picture",))
def draw(room: Room) -> None:
    """Draw the view."""
    fit("features")
    left, right = st.columns([2.4, 1], gap="medium" if presenting() else "large")
    with right:
        ways = st.container(horizontal=True, gap="small")
        config = knobs.draw(room.experiment.config, knobs.prefix("features"))
        browse(ways, "features", config)
        note, below = st.container(), st.container()
    live(room.experiment, config, None, note, lambda board: _page(left, below, room, board))
    drawing.nothing_yet(left, room.experiment)


def open_unit(view: str, kind: str, layer: int, unit: int, model: str = "stdlib-gpt") -> None:
    """Go to the view "features" or "wiring" with a unit; to be called when a button is pressed, before the page is drawn."""
    knobs.show_view(view, kind=kind, layer=layer, unit=unit, model=model)


def fit(view: str) -> None:
    """Where the reader took another model or kind, keep layer and number within what it has; before the knobs are drawn."""
    now = knobs.knob_value(view, "model", "stdlib-gpt"), knobs.knob_value(view, "kind", "transcoder")
    before = st.session_state.get(f"_fit.{view}", now)
    st.session_state[f"_fit.{view}"] = now
    unit = knobs.knob_value(view, "unit")
    if now == before or unit is None:
        return
    from lab.circuits.transcoders.views import browse as shelf

    try:
        model, kind = now
        layer = min(knobs.knob_value(view, "layer"), shelf.language(model).model.cfg.n_layers - 1)
        count = shelf.units_of(model, kind, layer).W_enc.shape[1]
        knobs.set_knobs(view, layer=layer, unit=min(unit, count - 1))
    except ValueError:  # the view says what is missing when it computes
        return


def browse(ways: Any, view: str, config: Any) -> None:
    """Buttons to the live unit before, a random one, and the next."""
    with ways:
        for step, icon, says in (
            (-1, "chevron_left", "The live one before"),
            (0, "shuffle", "Any live one"),
            (1, "chevron_right", "The next live one"),
        ):
            st.button(
                "Random" if step == 0 else "",
                key=f"_browse.{view}.{step}",
                icon=f":material/{icon}:",
                help=says,
                on_click=_go,
                args=(view, config, step),
            )


def _go(view: str, config: Any, step: int) -> None:
    from lab.circuits.transcoders.views.browse import survey

    try:
        found = survey(config.model, config.kind, config.layer)
    except ValueError:  # the view says what is missing when it computes
        return
    unit = found.next_live(config.unit, step) if step else found.any_live(np.random.default_rng())
    knobs.set_knobs(view, unit=unit)


def _page(left: Any, below: Any, room: Room, board: FeatureResult) -> None:
    from lab.circuits.transcoders.views.features import figures

    with below:
        labels = naming.labels(board.model, board.kind)
        if not presenting():
            naming.edit(labels, board)
            _ways_on(room, board)
    label = labels.get((board.layer, board.unit), "")
    key = f"{board.model}-{board.kind}-{board.layer}-{board.unit}"
    with left:
        name = choose("Picture", PICTURES, key="features.picture", kind=st.pills) if presenting() else "examples"
        if name == "examples":
            st.container(key="finding").markdown(escaped(figures.headline(board, label)))
            drawing.examples(board)
            _captions(board, key)
        if presenting():
            drawn = {"logits": figures.logits, "strength": figures.histogram}
            if name in drawn:
                drawing.chart(drawn[name](board, theme()), f"{key}-{name}", finding=True, height=HEIGHT)
        else:
            one, other = st.columns(2, gap="medium")
            with one:
                drawing.chart(figures.logits(board, theme()), f"{key}-logits")
            with other:
                drawing.chart(figures.histogram(board, theme()), f"{key}-strength")
        if name == "layer" or not presenting():
            _layer(board, labels)


def _captions(board: FeatureResult, key: str) -> None:
    if board.note:
        st.caption(escaped(board.note))
    at_bos = "" if np.isnan(board.at_bos) else f" · {board.at_bos:.2g} at ⊢, which begins each text"
    said = f"{board.tokens:,} tokens of texts held out from training{at_bos}"
    if presenting():
        st.caption(said)
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "CSV",
            lambda: board.examples.to_csv(index=False),
            file_name=f"{key}-examples.csv",
            mime="text/csv",
            on_click="ignore",
            type="tertiary",
            key="_csv.examples",
            icon=":material/download:",
            help="The examples.",
        )
        st.caption(f"{said} · hover a token for its value", width="content")


def _layer(board: FeatureResult, labels: Any) -> None:
    """All units of the layer; a click opens one."""
    from lab.circuits.transcoders.views.browse import survey
    from lab.circuits.transcoders.views.features import figures

    def chosen(unit: Any) -> None:
        knobs.set_knobs("features", unit=int(unit))

    try:
        with st.spinner("Counting how often every unit of the layer fires ..."):
            found = survey(board.model, board.kind, board.layer)
    except ValueError as error:
        st.caption(escaped(sentence(error)))
        return
    key = f"{board.model}-{board.kind}-layer-{board.layer}"
    fig = figures.all_units(found, board, theme(), labels=labels)
    drawing.chart(fig, key, chosen=chosen, finding=presenting(), height=HEIGHT)
    if not presenting():
        st.caption("Click a point to open it.")


def _ways_on(room: Room, board: FeatureResult) -> None:
    if "wiring" in room.experiments and board.kind != "sae":
        st.button(
            "How it is wired",
            key="_features.wiring",
            icon=":material/account_tree:",
            on_click=open_unit,
            args=("wiring", board.kind, board.layer, board.unit, board.model),
            type="tertiary",
        )
