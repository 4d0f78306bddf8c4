"""How the dashboard looks: the style sheet, the reader's light or dark theme, present mode, text made harmless."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import streamlit as st

from lab import plot
from lab.catalog import Card

_CSS = """<style>
.stMainBlockContainer {max-width: 1180px; padding: 2.2rem 3.2rem 3rem 3.2rem;}
.katex-display {overflow-x: auto; overflow-y: hidden;}
.stMarkdownBadge {white-space: normal;}
.st-key-caps .stMarkdown p {font-variant: small-caps; letter-spacing: .06em; opacity: .85;}
.stMainBlockContainer h1 {padding-top: 0; text-wrap: balance;}
.st-key-finding p {font-size: 1.12rem; font-weight: 600; line-height: 1.3; text-wrap: pretty;}
.stMainBlockContainer .stTable td {vertical-align: top;}
[data-testid="stSidebarNavLink"] {min-height: 1.7rem; padding-top: .15rem; padding-bottom: .15rem;}
[data-testid="stSidebarNavLink"] [data-testid="stIconMaterial"] {font-size: 1rem; opacity: .75;}
[class*="st-key-_taps"] {display: none;}
.st-key-tour {flex-wrap: nowrap;}
.st-key-planned svg {max-width: 420px; width: 100%; height: auto;}
@media (max-width: 640px) {
  .stMainBlockContainer {padding: 3.9rem 1rem 2rem 1rem;}
  h1 {font-size: 1.6rem !important;}
  .st-key-_enter {display: none;}
  .st-key-tour {flex-wrap: wrap;}
  [data-testid="stHorizontalBlock"] {gap: 1rem;}
  .stTable table {font-size: .8rem;}
  .stTable td, .stTable th {padding: .35rem .3rem !important;}
}
</style>"""
_DARK_CSS = """<style>
[data-testid="stBaseButton-primary"], [data-testid="stBaseButton-primary"] p {color: #14161A;}
</style>"""
_PRESENT_CSS = """<style>
[data-testid="stHeader"], [data-testid="stSidebar"], [data-testid="stToolbar"] {display: none !important;}
.stMainBlockContainer {max-width: 1280px; padding: .7rem 1.4rem 0 1.4rem;}
.stMainBlockContainer [data-testid="stVerticalBlock"] {gap: .5rem;}
.stMainBlockContainer h1 {font-size: 1.7rem !important; padding: 0; line-height: 1.15;}
.st-key-finding p {font-size: 1.25rem;}
.st-key-tour p {font-size: 1.12rem; line-height: 1.3;}
</style>"""


def presenting() -> bool:
    """True where the address says ?present=1."""
    return st.query_params.get("present") == "1"


def style() -> None:
    """The page's style sheet; in present mode larger and without chrome."""
    dark = _DARK_CSS if theme() is plot.DARK else ""
    st.html(_CSS + dark + (_PRESENT_CSS if presenting() else ""))


def theme() -> plot.Theme:
    """The reader's light or dark theme, for figures."""
    return plot.DARK if st.context.theme.type == "dark" else plot.LIGHT


def thumbnail(card: Card) -> str:
    """A paper's illustration as inline SVG in the text's colour; empty where there is none."""
    return _svg(card.thumbnail)


@functools.cache
def _svg(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8", errors="replace").split()) if path.is_file() else ""


def escaped(text: str) -> str:
    r"""Text as markdown that shows it letter by letter: no link, picture or formula comes out of a reader's own words.

    >>> escaped("[a](b) $x$")
    '\\[a\\]\\(b\\) \\$x\\$'
    """
    text = re.sub(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", "\u200b", text)  # bare addresses become links by themselves
    return re.sub(r"([\\`*_{}\[\]()<>#+!|$~:^&])", r"\\\1", text)
