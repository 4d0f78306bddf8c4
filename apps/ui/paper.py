"""The frame of a paper's page: header, tour and present mode above; claims, equations and references below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import streamlit as st

from lab import catalog, rooms
from lab.catalog import THEMES, Card
from lab.experiment import Experiment
from ui import tour
from ui.address import choose, complaints
from ui.knobs import VIEW
from ui.look import escaped, presenting
from ui.verdicts import claims_strip

CHOICES = frozenset({"picture", "method"})  # what a page may let its reader choose beside the knobs


@dataclass(frozen=True)
class Room:
    """A paper's page while it is drawn: card, the experiment on stage, all experiments, figures, where messages go."""

    card: Card
    experiment: Experiment
    experiments: Mapping[str, Experiment]
    figures: ModuleType
    messages: Any


def identity(card: Card, doors: Callable[[], None] | None = None) -> None:
    """Theme, year and link, with `doors` (the ways on) beside them; the finding or the name; the idea in two sentences."""
    link = f" · [arXiv {card.arxiv}]({card.link})" if card.link else ""
    with st.container(horizontal=True, vertical_alignment="center", key="caps"):
        st.markdown(f"{THEMES[card.theme]} · {card.short} · {card.year}{link}", width="stretch")
        if doors is not None:
            doors()
    st.title(card.headline or card.short, anchor=False)
    st.container(width=800).markdown(escaped(card.idea))


def open_paper(slug: str, views: Mapping[str, str]) -> Room:
    """Draw a page's upper part, import the paper's room, apply the tour's step, and let the reader choose an experiment.

    views  the room's experiments by key, and what the reader sees: "One plan"
    """
    card = catalog.get(slug)
    tour.find(card)
    if presenting():
        title, chosen, ways = st.columns([1.8, 4, 2], vertical_alignment="center")
        title.title(card.short, anchor=False)
        with ways.container(horizontal=True, horizontal_alignment="right"):
            tour.door(card)
            st.button(
                "Leave",
                key="_leave",
                type="tertiary",
                icon=":material/close_fullscreen:",
                on_click=_present,
                args=(False,),
                help="Back to the whole page.",
            )
    else:
        identity(card, lambda: _doors(card))
        chosen = None
    messages = st.container()
    with st.spinner("Loading the method; the first time takes a few seconds ..."):
        experiments, figures = rooms.experiments(card), rooms.figures(card)
    tour.apply(card, experiments)
    tour.bar(card)
    with chosen or st.container():
        experiment = experiments[choose("View", views, key=VIEW)]
    return Room(card, experiment, experiments, figures, messages)


def close_paper(room: Room, how: Callable[[], None]) -> None:
    """Draw a page's lower part: claims, how it works (`how` writes the equations), what is not verified, references."""
    with room.messages:
        complaints(lambda name: _belongs(room, name))
    if presenting():
        return
    claims_strip(room.card)
    with st.expander("How it works", icon=":material/functions:"):
        how()
    with st.expander("References, and what is not verified", icon=":material/menu_book:"):
        references(room.card)


def _belongs(room: Room, name: str) -> bool:
    """The address's name is a knob or a choice of one of the room's experiments, drawn just now or not."""
    key, _, knob = name.partition(".")
    return key in room.experiments and (knob in CHOICES or knob in room.experiments[key].config.model_fields)


def references(card: Card) -> None:
    """Who wrote it, where it stands, where its code is; our notes."""
    place = card.venue or str(card.year)
    link = f" [arXiv {card.arxiv}]({card.link})." if card.link else ""
    st.markdown(f"{escaped(', '.join(card.authors))}. *{escaped(card.title)}.* {escaped(place)}.{link}")
    if card.code:
        licence = f" ({card.code_licence})" if card.code_licence else ""
        st.markdown(f"Official code: <{card.code}>{licence}. The lab's code is its own, written from the equations.")
    if card.notes:
        st.markdown("**What is not verified, and what we read into it**")
        st.markdown("\n".join(f"- {escaped(note)}" for note in card.notes))


def _doors(card: Card) -> None:
    """The ways on from here: the tour, the walkthrough, present mode."""
    tour.door(card)
    if card.notebook.exists():
        with st.popover("Notebook", type="tertiary", icon=":material/school:"):
            st.markdown("The walkthrough derives all of this by hand, step by step. Open it in JupyterLab with")
            st.code(f"lab notebook {card.slug}", language=None)
    st.button(
        "Present",
        key="_enter",
        type="tertiary",
        icon=":material/slideshow:",
        on_click=_present,
        args=(True,),
        help="Hides everything but title, figure and knobs, in larger type.",
    )


def _present(on: bool) -> None:
    if on:
        st.query_params["present"] = "1"
    else:
        st.query_params.pop("present", None)
