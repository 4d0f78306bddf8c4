"""The gallery: 24 papers by theme, each with its picture; planned ones greyed; a search over names, authors and ideas."""

from __future__ import annotations

import contents
import streamlit as st
import ui
from ui.address import bound

from lab import catalog
from lab.catalog import Card

_CSS = """<style>
.st-key-gallery {display: grid !important; gap: 1.1rem !important;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 225px), 1fr));}
.st-key-gallery > div {width: auto !important; min-width: 0; height: 100%;}
[class*="st-key-card-"] {position: relative; height: 100%; gap: .45rem !important; justify-content: flex-start;}
[class*="st-key-card-"]:hover, [class*="st-key-card-"]:has(a:focus-visible) {border-color: ACCENT !important;}
[class*="st-key-card-"] [data-testid="stMarkdownContainer"], [class*="st-key-card-"] [data-testid="stCaptionContainer"]
  {margin-bottom: 0 !important;}
[class*="st-key-card-"] p {line-height: 1.35; margin-bottom: 0;}
[class*="st-key-card-"] svg {width: 100%; height: auto; max-height: 140px; display: block;}
[class*="st-key-card-"] [data-testid="stPageLink"] a {padding: 0; position: static; background: none;}
[class*="st-key-card-"] [data-testid="stPageLink"] p {font-size: 1.15rem; font-weight: 600;}
[class*="st-key-card-"] [data-testid="stPageLink"] a::after {content: ""; position: absolute; inset: 0;}
[class*="st-key-card-"] [data-testid="stPageLink"] a > span:has([data-testid="stIconMaterial"]) {display: none;}
[class*="st-key-card-planned-"] svg {filter: grayscale(1); opacity: .5;}
</style>"""


def matches(card: Card, words: str) -> bool:
    """True when every word of the search stands in the card's names, title, authors or idea."""
    text = " ".join((card.slug, card.short, card.title, card.idea, *card.authors)).lower()
    return all(word in text for word in words.lower().split())


def tile(card: Card) -> None:
    """One paper: picture, name, title, the idea's first sentence, and its verdicts or that it is planned."""
    live = contents.opens(card)
    with st.container(border=True, key=f"card-{'live' if live else 'planned'}-{card.slug}"):
        st.markdown(ui.thumbnail(card), unsafe_allow_html=True)
        st.caption(catalog.THEMES[card.theme] + (f" · {card.year}" if live else f" · {card.year} · planned"))
        st.page_link(contents.of(card), label=card.short)
        st.caption(f"*{ui.escaped(card.title)}*")
        st.markdown(f":small[{ui.escaped(card.idea.split('. ')[0].rstrip('.'))}.]")
        if live:
            st.markdown(f":small[{ui.counts(card) or ':green-badge[live page]'}]")


def search() -> str:
    """What the reader searches for; it stands in the address."""
    words = bound(
        "q",
        lambda: st.text_input(
            "Search",
            key="q",
            bind="query-params",
            placeholder="Search by name, title, author or idea",
            max_chars=80,
            icon=":material/search:",
            label_visibility="collapsed",
        ),
        understand=lambda text: text,
        allowed="at most 80 characters",
        default="",
    )
    return words or ""


def page() -> None:
    """Draw the gallery."""
    st.title("A lab of 24 research papers", anchor=False)
    st.container(width=760).markdown(
        "For each paper: a method you can import, a notebook that derives it, a live page, and the paper's claims beside "
        "what we measured. The grey ones are planned."
    )
    words = search()
    theme = ui.choose("Theme", {"all": "All themes"} | catalog.THEMES, key="theme", kind=st.pills)
    ui.complaints()
    st.html(_CSS.replace("ACCENT", ui.theme().accent))
    shown = [card for card in catalog.cards() if matches(card, words) and theme in ("all", card.theme)]
    if not shown:
        st.info(f"No paper matches {ui.escaped(words)}. Try a shorter word, or all themes.")
    with st.container(key="gallery"):
        for card in shown:
            tile(card)


page()
