"""A page's tour: a sentence and a set of knobs a step, moved by hand or hands-free. The address carries `?step=`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import streamlit as st

from lab.catalog import Card
from lab.experiment import Experiment
from ui import knobs
from ui.address import complain
from ui.knobs import prefix
from ui.look import escaped

READING_SECONDS = 8
BUTTON_WIDTH = 40  # pixels; a thumb hits it


def find(card: Card) -> None:
    """Find out where the tour stands: called first, so that its door can be drawn."""
    state = st.session_state
    if card.tour and _key(card) not in state:
        state[_key(card)] = -1
        step = _from_address(card)
        if step is not None:
            state["_goto"] = step
    if (step := state.get("_goto")) is not None:
        state[_key(card)] = step


def apply(card: Card, experiments: Mapping[str, Experiment]) -> None:
    """Bring view and knobs to the step that was asked for; called before any of them is drawn."""
    asked = st.session_state.pop("_goto", None)
    if asked is None:
        return
    step = card.tour[asked]
    config = experiments[step.experiment].config
    knobs.show_view(step.experiment)
    knobs.put(config, prefix(step.experiment), config.parse(step.config))


def begin_button(card: Card) -> None:
    """The button that begins the tour."""
    if card.tour and st.session_state[_key(card)] < 0:
        st.button(
            f"Tour, {len(card.tour)} steps",
            key="_begin",
            type="tertiary",
            icon=":material/tour:",
            on_click=_go,
            args=(0,),
            help="A few pictures with their knobs set, and a sentence for each.",
        )


def bar(card: Card) -> None:
    """The step's sentence with back, next, play and close; nothing while the tour has not begun."""
    if not card.tour:
        return
    step = st.session_state[_key(card)]
    if step < 0:
        st.query_params.pop("step", None)
        return
    if st.query_params.get("step") != str(step + 1):
        st.query_params["step"] = str(step + 1)
    last = len(card.tour) - 1
    playing = st.session_state[_playing(card)] = step < last and bool(st.session_state.get(_playing(card)))
    if playing:
        st.fragment(_clock, run_every=1.0)(card, itertools.count())
    toggle = "Pause" if playing else "Play hands-free"
    with st.container(key="tour", horizontal=True, vertical_alignment="center", gap="xxsmall"):
        _button("_back", "arrow_back", "The step before", step == 0, _go, step - 1)
        _button("_next", "arrow_forward", "The next step", step == last, _go, step + 1)
        _button("_play", "pause" if playing else "play_arrow", toggle, False, _play, card, not playing)
        _button("_end", "close", "End the tour", False, _end, card)
        st.markdown(f"**{step + 1}/{last + 1}** {escaped(card.tour[step].text)}", width="stretch")


def _button(key: str, icon: str, description: str, disabled: bool, act: Callable[..., None], *args: Any) -> None:
    st.button(
        "",
        key=key,
        icon=f":material/{icon}:",
        help=description,
        disabled=disabled,
        on_click=act,
        args=args,
        type="tertiary",
        width=BUTTON_WIDTH,
    )


def _key(card: Card) -> str:
    return f"_step.{card.slug}"


def _playing(card: Card) -> str:
    return f"_playing.{card.slug}"


def _from_address(card: Card) -> int | None:
    """The step a link asks for; its knobs count only where the link names none of its own."""
    asked = st.query_params.get("step", "")
    if not asked:
        return None
    if not (asked.isascii() and asked.isdigit() and len(asked) < 4 and 1 <= int(asked) <= len(card.tour)):
        complain("step", asked, f"1 to {len(card.tour)}")
        return None
    step = int(asked) - 1
    if any("." in name for name in st.query_params):
        st.session_state[_key(card)] = step
        return None
    return step


def _go(step: int) -> None:
    st.session_state["_goto"] = step


def _end(card: Card) -> None:
    st.session_state[_key(card)] = -1
    st.session_state[_playing(card)] = False


def _play(card: Card, on: bool) -> None:
    """Play or pause; from the last step, play begins again."""
    st.session_state[_playing(card)] = on
    if on and st.session_state[_key(card)] == len(card.tour) - 1:
        _go(0)


def _clock(card: Card, ticks: Iterator[int]) -> None:
    """Turn to the next step when this one could be read for its time.

    It ticks while the page is drawn, number 0, and then every second while it stands, so that only the seconds count in
    which there is something to read. Each run of the page brings new ticks: a knob moved by hand gets its time as well.
    """
    if next(ticks) >= READING_SECONDS:
        _go(st.session_state[_key(card)] + 1)
        st.rerun()
