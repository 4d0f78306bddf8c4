"""The view of one unit's wiring: heads and the tokens behind them, earlier features, and weights against an input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import streamlit as st
from circuits import drawing, naming
from circuits.features import browse, fit, open_unit
from ui import knobs
from ui.address import choose
from ui.look import escaped, presenting, theme
from ui.room import Room, own_view
from ui.stage import live

from lab.experiment import Config

if TYPE_CHECKING:
    from lab.circuits.transcoders.views.wiring.experiment import WiringResult

PICTURES = {"heads": "Heads and tokens", "features": "Earlier features", "input": "Weights and input"}
HEIGHT = 430  # pixels of a figure while presenting
AT = knobs.prefix("wiring")
EXTRA = {"example": "example", "own text": "text"}  # a choice of this input -> the knob that says which
C = TypeVar("C", bound=Config)


@own_view("wiring", choices=("picture", "method", "way"))
def draw(room: Room) -> None:
    """Draw the view."""
    fit("wiring")
    left, right = st.columns([2.4, 1], gap="medium" if presenting() else "large")
    with right:
        ways = st.container(horizontal=True, gap="small")
        config = _knobs(room.experiment.config)
        browse(ways, "wiring", config)
        note, below = st.container(), st.container()

    def page(result: WiringResult) -> None:
        with below:
            st.button(
                "Its dashboard",
                key="_wiring.dashboard",
                icon=":material/insights:",
                type="tertiary",
                on_click=open_unit,
                args=("features", result.kind, result.layer, result.unit, result.model),
            )
        labels = naming.labels(result.model, "transcoder")
        with left:
            name = choose("Picture", PICTURES, key="wiring.picture", kind=st.pills)
            {"heads": _heads, "features": _features, "input": _input}[name](result, labels)
            if result.note:
                st.caption(escaped(result.note))

    live(room.experiment, config, None, note, page)
    drawing.nothing_yet(left, room.experiment)


def _knobs(kind: type[C]) -> C:
    """As `ui.knobs.draw` draws them; an example's number or the reader's own text stand out where they are what counts."""
    drawn = {control.name: control for control in knobs.visible(kind)}
    first = [name for name, control in drawn.items() if control.primary]
    values = {name: knobs.widget(drawn[name], AT) for name in first}
    if (extra := EXTRA.get(values["over"])) is not None:
        values[extra] = knobs.widget(drawn[extra], AT)
    with st.expander("More knobs"):
        values |= {name: knobs.widget(control, AT) for name, control in drawn.items() if name not in values}
    knobs.reset(kind, AT, values)
    return knobs.together(kind, AT, values, st.container())


def _head_key(result: WiringResult) -> str:
    """Where the chosen head of a unit is kept: another unit begins with its own best head."""
    return f"_wiring.head.{result.model}.{result.kind}.{result.layer}.{result.unit}"


def _head(result: WiringResult, heads: list[str]) -> str:
    """The chosen head, by name: what a click in the map sets too."""
    key = _head_key(result)
    if st.session_state.get(key) not in heads:
        st.session_state[key] = result.best_head if result.best_head in heads else heads[0]
    return st.selectbox(
        "Head", heads, key=key, format_func=lambda name: f"head {name}", label_visibility="collapsed", width=150
    )


def _key(result: WiringResult, name: str) -> str:
    return f"{result.model}-wiring-{result.kind}-{result.layer}-{result.unit}-{name}"


def _heads(result: WiringResult, labels: Any) -> None:
    from lab.circuits.transcoders.views.wiring import figures

    heads = [f"{layer}.{head}" for layer in range(len(result.heads)) for head in range(result.heads.shape[1])]
    ways = ({"extended": "Behind layer 0"} if result.layer else {}) | {
        "direct": "Embedding",
        "head": "Through the head",
    }

    def chosen(name: Any) -> None:
        st.session_state[_head_key(result)] = str(name)
        knobs.set_knobs("wiring", method="head")

    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("Tokens:", width="content")
        way = choose("Tokens", ways, key="wiring.method", kind=st.segmented_control)
        head = _head(result, heads)
    one, other = st.columns([1.15, 1], gap="medium")
    with one:
        fig = figures.ov_map(result, theme(), head=head if way == "head" else "")
        drawing.chart(fig, _key(result, "heads"), chosen=chosen, height=HEIGHT - 60)
        if not presenting():
            st.caption(
                "Click a head to read the tokens through it. How large a norm is says what could come, not what does."
            )
    with other:
        fig = figures.tokens_read(result, theme(), way=f"head {head}" if way == "head" else way)
        drawing.chart(fig, _key(result, f"tokens-{way}"), height=HEIGHT - 60)


def _features(result: WiringResult, labels: Any) -> None:
    from lab.circuits.transcoders.views.wiring import figures

    heads = sorted(set(result.through["head"])) if len(result.through) else []
    through = ""
    if heads:
        with st.container(horizontal=True, vertical_alignment="center"):
            way = choose(
                "Way", {"same": "At the same token", "through": "Through a head"}, key="wiring.way", kind=st.pills
            )
            if way == "through":
                through = _head(result, heads)
    fig = figures.earlier_features(result, theme(), head=through, labels=labels)
    drawing.chart(fig, _key(result, "features"), chosen=_opens(result.model), finding=True, height=HEIGHT)
    if len(result.earlier) and not presenting():
        st.caption("In each bar stand the tokens that the feature makes likelier. Click a bar to go on from there.")


def _input(result: WiringResult, labels: Any) -> None:
    from lab.circuits.transcoders.views.wiring import figures

    fig = figures.weights_and_input(result, theme(), labels=labels)
    drawing.chart(fig, _key(result, "input"), chosen=_opens(result.model), finding=True, height=HEIGHT)
    if len(result.context):
        table = result.context
        mark = int(table["mark"].to_numpy().argmax()) if table["mark"].any() else None
        drawing.tokens(list(table["piece"]), list(table["value"]), mark, max(float(table["value"].max()), 1e-9))


def _opens(model: str) -> Any:
    """What a click on an earlier feature does: the same view, of that feature."""

    def chosen(data: Any) -> None:
        open_unit("wiring", "transcoder", int(data[0]), int(data[1]), model)

    return chosen
