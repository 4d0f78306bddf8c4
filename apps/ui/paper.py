"""The frame of a paper's page: header, tour and present mode above; claims, equations and references below."""

from __future__ import annotations

import re
from collections.abc import Callable

import streamlit as st

from lab import catalog, rooms
from lab.catalog import THEMES, Card
from ui import tour
from ui.address import choose, complaints, drawn_names
from ui.knobs import VIEW
from ui.look import escaped, presenting
from ui.room import OwnView, Room
from ui.stage import show_experiment
from ui.upload import Sample
from ui.verdicts import claims_strip


def identity(card: Card, buttons: Callable[[], None] | None = None) -> None:
    """Theme, year and link, with `buttons` beside them; the finding or the name; the idea in two sentences."""
    link = f" · [arXiv {card.arxiv}]({card.link})" if card.link else ""
    with st.container(horizontal=True, vertical_alignment="center", key="caps"):
        st.markdown(f"{THEMES[card.theme]} · {card.short} · {card.year}{link}", width="stretch")
        if buttons is not None:
            buttons()
    st.title(card.headline or card.short, anchor=False)
    st.container(width=800).markdown(escaped(card.idea))


def open_paper(slug: str, *own: OwnView) -> Room:
    """Draw a page's upper part, import the paper's room, apply the tour's step, and let the reader choose a view.

    own  the views that draw themselves; all others are drawn from the table VIEWS in the room's `figures.py`
    """
    card = catalog.get(slug)
    tour.find(card)
    if presenting():
        title, chosen, ways = st.columns([1.8, 4, 2], vertical_alignment="center")
        title.title(card.short, anchor=False)
        with ways.container(horizontal=True, horizontal_alignment="right"):
            tour.begin_button(card)
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
        identity(card, lambda: _buttons(card))
        chosen = None
    messages = st.container()
    with st.spinner("Loading the method; the first time takes a few seconds ..."):
        experiments = rooms.experiments(card)
        views = rooms.views(card)
    tour.apply(card, experiments)
    tour.bar(card)
    with chosen or st.container():
        view = views[choose("View", {key: view.tab for key, view in views.items()}, key=VIEW)]
    return Room(card, experiments, views, view, {view.experiment: view for view in own}, messages)


def stage(room: Room, *, sample: Sample | None = None) -> None:
    """Draw the view on stage; `sample` is a file to try, where its experiment takes files."""
    if own := room.own.get(room.view.experiment):
        own.draw(room)
    else:
        show_experiment(room.experiment, room.view, sample=sample)


def close_paper(room: Room) -> None:
    """Draw a page's lower part: claims, how it works, what is not verified, references.

    How it works stands in a markdown file beside the page, of the same name.
    """
    undeclared = [name for name in drawn_names() if name != VIEW and not room.knows(name)]
    if undeclared:  # a link that carries it would be complained about while another view is on stage
        raise ValueError(f"{', '.join(undeclared)}: a view draws this choice and does not declare it")
    with room.messages:
        complaints(room.knows)
    if presenting():
        return
    claims_strip(room.card)
    words = room.card.page.with_suffix(".md")
    if words.exists():
        with st.expander("How it works", icon=":material/functions:"):
            how_it_works(words.read_text(encoding="utf-8"))
    with st.expander("References, and what is not verified", icon=":material/menu_book:"):
        references(room.card)


def how_it_works(text: str) -> None:
    """Draw the equations, and where paper and code differ: a markdown text with a title, whose sections begin with `## `."""
    _, _, body = text.partition("\n")
    first, *sections = re.split(r"^## ", body, flags=re.MULTILINE)
    st.markdown(first)
    for section in sections:
        title, _, body = section.partition("\n")
        st.markdown(f"**{title}**")
        st.markdown(body)


def references(card: Card) -> None:
    """Who wrote it, where it stands, where its code is; our notes."""
    venue = card.venue or str(card.year)
    link = f" [arXiv {card.arxiv}]({card.link})." if card.link else ""
    st.markdown(f"{escaped(', '.join(card.authors))}. *{escaped(card.title)}.* {escaped(venue)}.{link}")
    if card.code:
        licence = f" ({card.code_licence})" if card.code_licence else ""
        st.markdown(f"Official code: <{card.code}>{licence}. The lab's code is its own, written from the equations.")
    if card.notes:
        st.markdown("**What is not verified, and what we read into it**")
        st.markdown("\n".join(f"- {escaped(note)}" for note in card.notes))


def _buttons(card: Card) -> None:
    """The ways on from here: the tour, the walkthrough, present mode."""
    tour.begin_button(card)
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
