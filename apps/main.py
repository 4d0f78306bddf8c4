"""All pages in one navigation: the gallery, the ledger, and a page a paper. A room is imported only by its own page."""

from __future__ import annotations

import functools
from pathlib import Path

import planned
import streamlit as st
import ui

from lab import catalog
from lab.catalog import Card

_HERE = Path(__file__).parent


def _page(card: Card) -> st.Page:
    path = _HERE / card.page
    if card.has_room and path.exists():
        return st.Page(path, title=card.short, url_path=card.slug)
    show = functools.partial(planned.show, card)
    functools.update_wrapper(show, planned.show)
    return st.Page(show, title=f"{card.short} (planned)", url_path=card.slug)


def _navigation() -> dict[str, list[st.Page]]:
    pages = {
        "": [
            st.Page(_HERE / "home.py", title="The lab", default=True),
            st.Page(_HERE / "claims.py", title="Ledger", url_path="ledger"),
        ]
    }
    for theme, name in catalog.THEMES.items():
        pages[name] = [_page(card) for card in catalog.cards() if card.theme == theme]
    return pages


st.set_page_config(layout="wide", page_icon="🔬")
navigation = st.navigation(_navigation(), position="hidden" if ui.presenting() else "sidebar")
ui.style()
navigation.run()
