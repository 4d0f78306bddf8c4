"""What was clicked in a circuit: which node or edge is looked at, which are cut, and the ways back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import streamlit as st
from ui.look import escaped
from ui.room import Room

from lab.circuits.transcoders.views.circuit import words
from lab.circuits.transcoders.views.circuit.cut_experiment import CutResult, Cuts
from lab.circuits.transcoders.views.circuit.experiment import CircuitConfig, CircuitResult
from lab.circuits.transcoders.views.own_labels import own_labels

PLACE, MODE = "_circuit.state", "_circuit.clicks_cut"
FEEDING = 3  # edges into a node that are listed
Kind = Literal["node", "edge"]


@dataclass
class State:
    """Selection and cuts of one circuit, by rows of its result."""

    config: CircuitConfig
    result: CircuitResult
    selected: tuple[Kind, int] | None = None
    cuts: Cuts = field(default_factory=Cuts)
    known: tuple[Cuts, CutResult] | None = None

    def row(self, kind: Kind, place: int) -> Any:
        """The node or edge as its frame has it."""
        return (self.result.nodes if kind == "node" else self.result.edges).loc[place]

    def toggle(self, kind: Kind, place: int) -> None:
        """Cut it, or put it back."""
        nodes, edges = (
            one ^ {place} if mine else one
            for one, mine in ((set(self.cuts.nodes), kind == "node"), (set(self.cuts.edges), kind == "edge"))
        )
        self.cuts = Cuts(tuple(sorted(nodes)), tuple(sorted(edges)))

    def restore(self) -> None:
        """Put everything back."""
        self.cuts = Cuts()

    def is_cut(self, kind: Kind, place: int) -> bool:
        """Whether it is cut itself."""
        return place in (self.cuts.nodes if kind == "node" else self.cuts.edges)

    @property
    def names(self) -> Mapping[tuple[int, int], str]:
        """The reader's own names of this model's features."""
        return {} if self.config.source else own_labels(self.config.model)

    def has_dashboard(self, views: Collection[str], row: Any) -> bool:
        """There is a view of this node: a feature of one of the lab's own models."""
        return "features" in views and row["kind"] == "feature" and not self.config.source

    def remembered(self, run: Callable[[Cuts], CutResult]) -> CutResult:
        """What `run` makes of the cuts, run once for the same ones."""
        if self.known is None or self.known[0] != self.cuts:
            self.known = self.cuts, run(self.cuts)
        return self.known[1]


def begin(config: CircuitConfig, result: CircuitResult) -> State:
    """This circuit's state; another circuit begins with nothing selected and nothing cut."""
    state = st.session_state.get(PLACE)
    if state is None or state.config != config:
        state = st.session_state[PLACE] = State(config, result)
    return state


def mode() -> None:
    """Draw the switch between looking and cutting."""
    st.toggle("Clicks cut", key=MODE, help="One click cuts a node or an edge and selects it; the next restores it.")


def clicked(place: Any) -> None:
    """A click in the graph, on a kind and a row or beside everything: select, and cut or restore where clicks cut."""
    state: State = st.session_state[PLACE]
    if not place:
        state.selected = None
        return
    kind: Kind = "node" if place[0] == "node" else "edge"
    state.selected = kind, int(place[1])
    if st.session_state.get(MODE) and state.row(*state.selected)["cuttable"]:
        state.toggle(*state.selected)


def panel(room: Room, result: CircuitResult, state: State) -> None:
    """What was clicked, what feeds it, and what can be done with it."""
    if state.selected is None:
        st.caption("Click a node or an edge: what it is, and what the model does without it.")
        return
    kind, place = state.selected
    row = state.row(kind, place)
    with st.container(border=True, key="selected", gap="xsmall"):
        st.markdown(f"**{escaped(words.named(result, kind, place))}**")
        st.markdown("  \n".join(map(escaped, words.says(result, kind, place))))
        if kind == "node" and (feeds := words.fed_by(result, place, FEEDING)):
            st.caption("Fed most by  \n" + "  \n".join(f"{weight:+.2f} {escaped(name)}" for name, weight in feeds))
        with st.container(horizontal=True, gap="small"):
            if row["cuttable"]:
                gone = state.is_cut(kind, place)
                st.button(
                    "Restore" if gone else "Cut",
                    key="_circuit.cut",
                    type="secondary" if gone else "primary",
                    icon=":material/undo:" if gone else ":material/content_cut:",
                    on_click=state.toggle,
                    args=(kind, place),
                )
            if kind == "node" and state.has_dashboard(room.experiments, row):
                st.button(
                    "Its dashboard",
                    key="_circuit.dashboard",
                    icon=":material/insights:",
                    on_click=open_dashboard,
                    args=(int(row["layer"]), int(row["index"])),
                )


def ways_back(result: CircuitResult, state: State) -> None:
    """What is cut, each with a way back."""
    gone: list[tuple[Kind, int]] = [("node", place) for place in state.cuts.nodes]
    gone += [("edge", place) for place in state.cuts.edges]
    if not gone:
        return
    with st.container(gap="xxsmall", key="cuts"):
        for kind, place in gone:
            st.button(
                escaped(words.named(result, kind, place)),
                key=f"_circuit.undo.{kind}.{place}",
                icon=":material/undo:",
                type="tertiary",
                on_click=state.toggle,
                args=(kind, place),
                help="Restore it",
            )
        if len(gone) > 1:
            st.button("Restore all", key="_circuit.restore", icon=":material/restart_alt:", on_click=state.restore)


def open_dashboard(layer: int, feature: int) -> None:
    """Go to the view of one unit, with a feature of the model that is shown; before the page is drawn."""
    from circuits.features import open_unit

    state: State = st.session_state[PLACE]
    open_unit("features", "transcoder", layer, feature, state.config.model)
