"""A page's tour: a sentence and a set of knobs a step, moved by hand or hands-free. The address carries `?step=`."""

from __future__ import annotations

import time
from collections.abc import Mapping

import streamlit as st

from lab.catalog import Card
from lab.experiment import Experiment
from ui import knobs
from ui.look import plain, presenting

READING_SECONDS = 8.0


def apply(card: Card, experiments: Mapping[str, Experiment]) -> None:
    """Bring view and knobs to the step that was asked for; called before any of them is drawn."""
    if not card.tour:
        return
    state = st.session_state
    asked = state.pop("_goto", None)
    if asked is None and _key(card) not in state:
        asked = _from_address(card)
    state.setdefault(_key(card), -1)
    if asked is None:
        return
    state[_key(card)] = asked
    step = card.tour[asked]
    experiment = experiments[step.experiment]
    state["view"] = step.experiment
    knobs.put(experiment.config, prefix(step.experiment), experiment.config.parse(step.config))


def prefix(experiment: str) -> str:
    """What the knobs of an experiment are called in the address: `plan.rho`."""
    return f"{experiment}."


def bar(card: Card) -> None:
    """The step's sentence with back, next and play; a single button while the tour has not begun."""
    if not card.tour:
        return
    step = st.session_state[_key(card)]
    if step >= 0 and st.query_params.get("step") != str(step + 1):
        st.query_params["step"] = str(step + 1)
    if st.session_state.get("_playing"):
        st.fragment(_clock, run_every=1.0)(card)
    with st.container(key="tour", horizontal=True, vertical_alignment="center", gap="small"):
        if step < 0:
            st.button(
                f"Take the tour ({len(card.tour)} steps)", key="_begin", on_click=_go, args=(card, 0),
                icon=":material/tour:", type="secondary" if not presenting() else "tertiary",
            )  # fmt: skip
            return
        last = len(card.tour) - 1
        st.button("", key="_back", icon=":material/arrow_back:", help="The step before", disabled=step == 0,
                  on_click=_go, args=(card, step - 1))  # fmt: skip
        st.button("", key="_next", icon=":material/arrow_forward:", help="The next step", disabled=step == last,
                  on_click=_go, args=(card, step + 1))  # fmt: skip
        playing = bool(st.session_state.get("_playing"))
        says = "Pause" if playing else "Play hands-free, round and round"
        st.button("", key="_play", icon=":material/pause:" if playing else ":material/play_arrow:",
                  help=says, on_click=_play, args=(not playing,))  # fmt: skip
        st.markdown(f"**{step + 1}/{last + 1}** {plain(card.tour[step].text)}", width="stretch")


def _key(card: Card) -> str:
    return f"_step.{card.slug}"


def _from_address(card: Card) -> int | None:
    """The step a link asks for; its knobs count only where the link names none of its own."""
    asked = st.query_params.get("step", "")
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked) <= len(card.tour)):
        st.query_params.pop("step", None)
        return None
    step = int(asked) - 1
    if any("." in name for name in st.query_params):
        st.session_state[_key(card)] = step
        return None
    return step


def _go(card: Card, step: int) -> None:
    st.session_state["_goto"] = step
    _wind()


def _play(on: bool) -> None:
    st.session_state["_playing"] = on
    _wind()


def _wind() -> None:
    st.session_state["_turn_at"] = time.monotonic() + READING_SECONDS


def _clock(card: Card) -> None:
    """Ticks once a second while the tour plays; turns to the next step when its reading time is over."""
    if time.monotonic() < st.session_state.get("_turn_at", 0.0):
        return
    step = (st.session_state.get(_key(card), -1) + 1) % len(card.tour)
    _go(card, step)
    st.rerun()
