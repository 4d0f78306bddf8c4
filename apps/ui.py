"""What pages share: header, theme, figure with its title and downloads, claims strip, tour, present mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from lab import ledger, paths, plot
from lab.catalog import THEMES, Card
from lab.ledger import Standing

CHIPS = {
    "shown": ":green-badge[:material/check: shown]",
    "direction only": ":blue-badge[:material/trending_up: direction]",
    "not shown": ":gray-badge[:material/remove: not shown]",
    "opposite": ":red-badge[:material/close: opposite]",
    "out of reach": ":violet-badge[:material/block: out of reach]",
    "not measured": ":gray-badge[:material/hourglass_empty: not measured]",
}
_CSS = """<style>
.stMainBlockContainer {max-width: 1180px; padding-top: 2.6rem;}
.katex-display {overflow-x: auto; overflow-y: hidden;}
.st-key-caps p {font-variant: small-caps; letter-spacing: .06em; opacity: .8; margin-bottom: 0;}
.stMarkdownBadge {white-space: normal;}
@media (max-width: 640px) {.stMainBlockContainer {padding-top: 4rem;} .stTable table {font-size: .8rem;}
.stTable td, .stTable th {padding: .35rem .3rem !important;}}
</style>"""
_PRESENT_CSS = """<style>
.stMainBlockContainer {max-width: 1260px; padding: .6rem 1rem 0 1rem;}
[data-testid="stHeader"] {display: none;}
h1 {font-size: 1.6rem !important; padding: 0 !important;}
.stMainBlockContainer [data-testid="stVerticalBlock"] {gap: .35rem;}
</style>"""


def presenting() -> bool:
    """True where the address says ?present=1."""
    return st.query_params.get("present") == "1"


def style() -> None:
    """The page's CSS; in present mode larger and without chrome."""
    st.html(_CSS)
    if presenting():
        st.html(_PRESENT_CSS)


def theme() -> plot.Theme:
    """The reader's light or dark theme, for figures."""
    return plot.DARK if st.context.theme.type == "dark" else plot.LIGHT


def thumbnail(card: Card) -> str:
    """A paper's illustration as inline SVG in the text's colour; empty where there is none."""
    path = paths.shared("apps") / "thumbnails" / f"{card.slug}.svg"
    return path.read_text(encoding="utf-8").replace("\n", " ") if path.exists() else ""


def header(card: Card) -> None:
    """Theme, year and link; the finding (or the name) as title; the idea in two sentences."""
    if presenting():
        st.title(card.headline or card.short)
        return
    link = f" · [arXiv {card.arxiv}]({card.link})" if card.link else ""
    with st.container(key="caps"):
        st.markdown(f"{THEMES[card.theme]} · {card.year}{link}")
    st.title(card.headline or card.short)
    st.container(width=760).markdown(card.idea)
    if card.has_room and card.status == "planned":
        st.info(
            "This room is being built: what you see works, but its notebook or its measured claims are still missing."
        )


def notes(card: Card) -> None:
    """Who wrote it, where its code is, and what is not verified here."""
    st.markdown(f"**{card.title}.** {', '.join(card.authors)}. {card.venue or card.year}.")
    if card.code:
        licence = f" ({card.code_licence})" if card.code_licence else ""
        st.markdown(f"Official code: <{card.code}>{licence}. The lab's code is its own.")
    for note in card.notes:
        st.markdown(f"- {note}")


def figure(fig: Any, *, key: str, data: Callable[[], str] | None = None) -> None:
    """A figure under its title (which states the finding), with HTML and CSV downloads; PNG is in the chart's toolbar."""
    title = fig.layout.title.text or ""
    fig.update_layout(title_text="", margin_t=24)
    st.markdown(f"**{title}**")
    options = {
        "displaylogo": False,
        "toImageButtonOptions": {"format": "png", "filename": key, "scale": 2},
        "modeBarButtonsToRemove": ["lasso2d", "select2d"],
    }
    height = fig.layout.height
    if presenting():
        fig.update_layout(height=min(height or 430, 430), font_size=17)
    st.plotly_chart(fig, key=f"fig_{key}", theme=None, config=options)
    if presenting():
        return
    with st.container(horizontal=True):
        st.download_button(
            "HTML", lambda: fig.to_html(include_plotlyjs=True), file_name=f"{key}.html", mime="text/html",
            on_click="ignore", type="tertiary", key=f"html_{key}", help="The live figure as one file; works offline.",
        )  # fmt: skip
        if data is not None:
            st.download_button(
                "CSV", data, file_name=f"{key}.csv", mime="text/csv", on_click="ignore", type="tertiary",
                key=f"csv_{key}", help="The numbers behind the figure.",
            )  # fmt: skip
        st.caption("PNG: the camera in the chart's corner.")


def estimate(line: Standing) -> str:
    """A standing's estimate with interval and unit."""
    from lab.cli import estimate_text

    return estimate_text(line)


def claims_strip(lines: Sequence[Standing]) -> None:
    """Verdict first, then what the paper says and what the lab measured."""
    st.subheader("What the paper claims, what the lab measures")
    rows = [
        {
            "verdict": CHIPS[line.ours.verdict],
            "paper": f"{line.claim.paper} *({line.claim.figure}; {line.claim.where})*",
            "lab, 95 %": estimate(line) + (" :orange-badge[older code]" if line.stale else ""),
            "n": str(line.ours.n),
        }
        for line in lines
    ]
    st.table(rows, border="horizontal", hide_index=True)
    reasons = [f"{line.claim.key}: {line.ours.reason}" for line in lines if line.ours.reason]
    if reasons:
        with st.expander("Why not shown? Our best guess, not a measurement"):
            for reason in reasons:
                st.markdown(f"- {reason}")


def standings(card: Card) -> list[Standing]:
    """The card's ledger lines."""
    return ledger.standings(card)


def present_toggle() -> None:
    """A link into or out of present mode."""
    if presenting():
        if st.button("Leave present mode", type="tertiary"):
            st.query_params.pop("present", None)
            st.rerun()
    elif st.button(
        "Present", type="tertiary", icon=":material/slideshow:", help="Hide everything but figure and knobs."
    ):
        st.query_params["present"] = "1"
        st.rerun()


def notebook_hint(card: Card) -> None:
    """How to open the walkthrough."""
    if (paths.shared("notebooks") / card.notebook).exists():
        st.markdown(f"The walkthrough derives all of this step by step: `lab notebook {card.slug}`.")


def page_file(card: Card) -> Path:
    """Where a card's page lies."""
    return Path(__file__).parent / card.page
