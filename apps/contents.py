"""The pages of the navigation: the gallery, the ledger, one a paper. A planned paper has a page that says so."""

from __future__ import annotations

import functools
from pathlib import Path

import planned
import streamlit as st

from lab import catalog
from lab.catalog import Card

_APPS = Path(__file__).resolve().parent


def opens(card: Card) -> bool:
    """The paper has a live page."""
    return card.has_room and card.page.exists()


def of(card: Card) -> st.Page:
    """A paper's page."""
    if opens(card):
        return st.Page(card.page, title=card.short, url_path=card.slug, icon=":material/science:")
    show = functools.update_wrapper(functools.partial(planned.show, card), planned.show)
    return st.Page(show, title=card.short, url_path=card.slug, icon=":material/hourglass_empty:", help="planned")


def navigation() -> dict[str, list[st.Page]]:
    """All pages: gallery and ledger, then the themes in the catalog's order."""
    first = [
        st.Page(_APPS / "home.py", title="The lab", icon=":material/apps:", default=True),
        st.Page(_APPS / "claims.py", title="Ledger", icon=":material/fact_check:", url_path="ledger"),
    ]
    themes = {
        name: [of(card) for card in catalog.cards() if card.theme == theme] for theme, name in catalog.THEMES.items()
    }
    return {"": first, **themes}
