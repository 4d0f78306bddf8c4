"""The view of a circuit: a prompt as chips, the graph behind one prediction, and what the model answers to a cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st
from circuits import selection
from circuits.answer import answer
from circuits.chips import chips
from circuits.prompt import draw_knobs
from ui.address import choose
from ui.jobs import sentence
from ui.knobs import set_knobs
from ui.look import escaped, presenting, theme
from ui.picture import picture
from ui.room import Room, own_view

from lab.circuits.transcoders.models.languages import quoted
from lab.circuits.transcoders.views.circuit import figures
from lab.circuits.transcoders.views.circuit.cut_experiment import CutResult
from lab.circuits.transcoders.views.circuit.experiment import CircuitConfig, CircuitResult

PICTURES = {
    "circuit": "Circuit",
    "waterfall": "Waterfall",
    "next-token": "Next token",
    "live-and-frozen": "Live and frozen",
}
LETTERS, PRESENT_LETTERS = 13, 15
PRESENT_HEIGHT, TOURED = 440, 370  # pixels; less where a tour's step stands above
_CSS = """<style>
@media (max-width: 640px) {
  .st-key-knobs > :has(.st-key-knob-prompt), .st-key-tokens > :has(.st-key-tokens-row) {min-width: 100%;}
}
@media (min-width: 641px) {
  .st-key-cuts button {min-height: 1.6rem; padding-top: 0; padding-bottom: 0; text-align: left;}
}
</style>"""


@own_view("circuit", choices=("picture",))
def draw(room: Room) -> None:
    """Draw the view."""
    st.html(_CSS)
    above = st.container()
    with st.container(horizontal=True, gap="small", key="tokens"):
        tokens, to_try = st.container(key="tokens-row"), st.container(width=92)
    left, right = st.columns([2.4, 1], gap="medium" if presenting() else "large")
    said, more = right.container(), right.container()
    config = draw_knobs(above, more, to_try)
    shown = _computed(room, config, said)
    if shown is None:
        return
    config, result = shown
    state = selection.begin(config, result)
    with tokens:
        _chips(result)
    for warning in result.warnings:
        (said if presenting() else tokens).warning(escaped(warning), icon=":material/info:")
    cut = _cut(room, config, state, said)
    with left:
        _pictures(result, cut, state)
    with said:
        answer(cut)
        selection.panel(room, result, state)
        selection.ways_back(result, state)


def _computed(room: Room, config: CircuitConfig, said: Any) -> tuple[CircuitConfig, CircuitResult] | None:
    """The circuit; where that fails, why, and the last one that there was, or the one of the default knobs."""
    known = "_circuit.last" in st.session_state
    for tried in [config] if known else [config, CircuitConfig()]:
        try:
            with said, st.spinner("Following the circuit ...", show_time=True):
                st.session_state["_circuit.last"] = tried, room.experiments["circuit"](tried)
            break
        except Exception as error:  # whatever a method raises, the reader gets one sentence and keeps the page
            said.error(escaped(sentence(error)))
    return st.session_state.get("_circuit.last")


def _cut(room: Room, config: CircuitConfig, state: selection.State, said: Any) -> CutResult:
    """What the model answers without the cut parts; a part that cannot be cut is said, and all are put back."""
    try:
        return state.remembered(lambda cuts: room.experiments["cut"](config, cuts))
    except ValueError as error:
        said.error(escaped(sentence(error)))
        state.restore()
        return state.remembered(lambda cuts: room.experiments["cut"](config, cuts))


def _chips(result: CircuitResult) -> None:
    """The prompt; a click on a token reads up to it."""

    def read_to(place: int) -> None:
        set_knobs("circuit", position=place if place < len(result.tokens) - 1 else -1)

    used = set() if result.merged else set(result.nodes["token"][result.nodes["kind"] != "rest"])
    pieces = [quoted(piece)[1:-1] for piece in result.tokens]
    chips(pieces, result.position, key="_circuit.chips", used=used, one_line=presenting(), chosen=read_to)


def _pictures(result: CircuitResult, cut: CutResult, state: selection.State) -> None:
    """One picture at a time; after a cut, what it did stands above the graph."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        name = choose("Picture", PICTURES, key="circuit.picture", kind=st.pills)
        if name == "circuit":
            selection.mode()
    if name == "circuit":
        letters = PRESENT_LETTERS if presenting() else LETTERS
        fig = figures.circuit_graph(
            result, theme(), cuts=state.cuts, selected=state.selected, letters=letters, names=_names(state)
        )
        if cut.cuts:
            fig.update_layout(title_text=figures.cut_title(cut))
    elif name == "waterfall":
        fig = figures.waterfall(result, theme())
    elif name == "next-token":
        fig = figures.next_tokens(cut if cut.cuts else result, theme())
    else:
        fig = figures.live_and_frozen(cut, theme())
    _figure(fig, f"transcoders-circuit-{name}", clicked=name == "circuit")


def _names(state: selection.State) -> Mapping[tuple[int, int], str]:
    """The reader's own names of features, where they have a folder that can be read."""
    try:
        return state.names
    except OSError:
        return {}
    except ValueError as error:  # a damaged file; the view of features says what to do
        st.warning(escaped(sentence(error)))
        return {}


def _figure(fig: Any, key: str, *, clicked: bool) -> None:
    """A figure as `ui.picture` draws one, but lower while presenting, and lower still below a step of the tour."""
    picture(
        fig,
        key=key,
        on_select=selection.clicked if clicked else None,
        height=TOURED if "step" in st.query_params else PRESENT_HEIGHT,
        margin_top=44 if clicked else 20,
    )
