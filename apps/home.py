"""The gallery: 24 papers by theme, each with its picture; planned ones greyed; a search over names, authors and ideas."""

from __future__ import annotations

import html

import streamlit as st
import ui

from lab import catalog, ledger
from lab.catalog import Card

_CSS = """<style>
.gallery {display: grid; grid-template-columns: repeat(auto-fill, minmax(225px, 1fr)); gap: 1rem; margin: .2rem 0 1.6rem;}
.gallery a {display: block; border: 1px solid var(--st-border-color, #8884); border-radius: .5rem; padding: .8rem .9rem;
  text-decoration: none !important; color: inherit !important; height: 100%;}
.gallery a:hover {border-color: #E0591A;}
.gallery .planned {opacity: .55;}
.gallery .planned svg {filter: grayscale(1);}
.gallery svg {width: 100%; height: auto; display: block; margin-bottom: .4rem;}
.gallery .theme {font-variant: small-caps; letter-spacing: .06em; margin: 0;}
.gallery b {font-size: 1.05rem;}
.gallery small {display: block; line-height: 1.35; margin-top: .2rem; opacity: .85;}
</style>"""


def matches(card: Card, words: str) -> bool:
    """True when every word of the search stands in the card's names, title, authors or idea."""
    text = " ".join((card.slug, card.short, card.title, card.idea, *card.authors)).lower()
    return all(word in text for word in words.lower().split())


def verdicts(card: Card) -> str:
    """A ready paper's verdicts in a few words."""
    counts: dict[str, int] = {}
    for line in ledger.standings(card):
        counts[line.ours.verdict] = counts.get(line.ours.verdict, 0) + 1
    return " · ".join(f"{count} {verdict}" for verdict, count in counts.items())


def tile(card: Card) -> str:
    """One paper as HTML; all text is escaped."""
    first = card.idea.split(". ")[0].rstrip(".") + "."
    ready = card.status == "ready"
    state = verdicts(card) if ready else "planned"
    return (
        f"<a class='{card.status}' href='/{card.slug}' target='_self'><small class='theme'>{catalog.THEMES[card.theme]}</small>"
        f"{ui.thumbnail(card)}<b>{html.escape(card.short)}</b> · {card.year}<small>{html.escape(first)}</small>"
        f"<small><i>{html.escape(state)}</i></small></a>"
    )


st.title("A lab of 24 research papers")
st.container(width=760).markdown(
    "For each paper a method to import, a notebook that derives it, a live page, and its claims beside what we measured. "
    "Open one; the greyed ones are planned."
)
left, right = st.columns([2, 1])
words = left.text_input("Search", key="q", bind="query-params", placeholder="name, author or idea", max_chars=80)
theme = right.selectbox(
    "Theme",
    ["all", *catalog.THEMES],
    key="theme",
    bind="query-params",
    format_func=lambda name: catalog.THEMES.get(name, "All themes"),
)
found = [card for card in catalog.cards() if matches(card, words or "") and theme in ("all", card.theme)]
st.html(_CSS)
if not found:
    st.info(f"No paper matches {words!r}. Try a shorter word.")
st.markdown(f"<div class='gallery'>{''.join(tile(card) for card in found)}</div>", unsafe_allow_html=True)
