"""What the views of features share: figures that can be clicked, several on a page, and tokens in context."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st
from ui.look import presenting
from ui.picture import picture
from ui.stage import last_result

from lab.experiment import Experiment

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from streamlit.delta_generator import DeltaGenerator

    from lab.circuits.transcoders.units.dashboard import Dashboard
    from lab.circuits.transcoders.views.rating.session import RatingCard

PRESENT_ROWS = 17  # examples that fit on a projector beside title and choices
BOUNDARIES = ("<|endoftext|>", "<bos>")
_CSS = """<style>
.kwic {font-size: .9rem;}
.kwic-band {display: grid; grid-template-columns: 7.6rem minmax(0, 1fr); gap: 0 1rem; padding: .32rem 0;
  border-top: 1px solid rgba(128, 128, 128, .28);}
.kwic-head {font-size: .84rem; line-height: 1.35; font-variant-numeric: tabular-nums;}
.kwic-head span {display: block; opacity: .72;}
.kwic-row {display: grid; grid-template-columns: 40% minmax(0, 1fr); white-space: nowrap;}
.kwic-row > div {display: flex; overflow: hidden;}
.kwic-row > :first-child {justify-content: flex-end;}
.kwic .lab-tokens {white-space: pre !important; line-height: 1.62 !important;}
.kwic .lab-tokens span {border-radius: 3px; padding: .12em 0;}
.kwic-none {opacity: .6;}
@media (max-width: 640px) {
  .kwic {font-size: .76rem;}
  .kwic-band {grid-template-columns: minmax(0, 1fr);}
  .kwic-head {display: flex; gap: .8rem; padding-bottom: .1rem;}
}
</style>"""
_PRESENT_CSS = """<style>
.kwic {font-size: .98rem;}
.kwic-head {font-size: .95rem;}
.kwic-band {grid-template-columns: 9.6rem minmax(0, 1fr);}
</style>"""


def chart(
    fig: Figure, key: str, *, chosen: Callable[[Any], None] | None = None, finding: bool = False, height: int = 0
) -> None:
    """Draw one of several figures, larger in its letters while presenting.

    chosen   called with the customdata of a clicked point, before the page runs again
    finding  the title is what the page is about; there is one such figure on it
    height   while presenting, in pixels
    """
    if presenting():
        fig.update_traces(textfont_size=15, selector={"type": "bar"})
        fig.update_yaxes(tickfont_size=16)
    margin = 36 if fig.layout.showlegend else 28 if fig.layout.annotations or chosen else 12

    def on_point(data: Any) -> None:
        if data is not None and chosen is not None:
            chosen(data)

    picture(fig, key=key, on_select=on_point if chosen else None, finding=finding, height=height, margin_top=margin)


def examples(board: Dashboard) -> None:
    """A unit's examples in their bands, the tokens on which it fires below one another; each token's value on hovering."""
    frame, bands = board.examples, len(board.shares)
    digits = max(0, 1 - math.floor(math.log10(board.maximum))) if board.live else 0
    rows = max(1, PRESENT_ROWS // bands) if presenting() else len(frame)
    parts = []
    for band in range(bands):
        of = frame[frame["band"] == band]
        lines = [
            _line(list(some["piece"]), list(some["value"]), int(some["centre"].to_numpy().argmax()), board.maximum)
            for _, some in list(of.groupby("example"))[:rows]
        ]
        high, low = board.edges[band], board.edges[band + 1]
        parts.append(
            _band(f"{high:.{digits}f} – {low:.{digits}f}", f"{_percent(float(board.shares[band]))} of tokens", lines)
        )
    _write(parts)


def card(rated: RatingCard) -> None:
    """What a rater sees of a unit, as `examples` shows it; only the token on which it fires is coloured."""
    bands = sorted({band for band, *_ in rated.examples})
    names = {band: f"band {band + 1}" for band in bands} | {0: "strongest", 4: "weakest"}
    parts = []
    for band in bands:
        lines = []
        for of, pieces, place, strength in rated.examples:
            if of == band:
                values = [strength if number == place else 0.0 for number in range(len(pieces))]
                lines.append(_line(pieces, values, place, 1.0))
        parts.append(_band(names[band], "", lines))
    _write(parts)


def nothing_yet(place: DeltaGenerator, experiment: Experiment) -> None:
    """Where the very first knobs ask for what is not there, say in the picture's place where to look."""
    if last_result(experiment) is None:
        place.info(
            "There is no picture for these knobs; beside them stands what would be right.", icon=":material/tune:"
        )


def tokens(pieces: Sequence[str], values: Sequence[float], mark: int | None, maximum: float) -> None:
    """A text as coloured tokens, over several lines if need be."""
    from lab.circuits.transcoders.units.dashboard import coloured_tokens_html

    st.html(coloured_tokens_html([compact(piece) for piece in pieces], values, maximum=maximum, mark=mark))


def compact(piece: str) -> str:
    """A token in little room: many blanks counted, the boundary that begins each text as one sign.

    >>> compact("            x"), compact("<|endoftext|>")
    ('␣×12x', '⊢')
    """
    if piece in BOUNDARIES:
        return "⊢"
    return re.sub(" {4,}", lambda blanks: f"␣×{len(blanks[0])}", piece)


def _line(pieces: Iterable[str], values: Sequence[float], at: int, maximum: float) -> str:
    from lab.circuits.transcoders.units.dashboard import coloured_tokens_html

    shown = [compact(piece) for piece in pieces]
    left = coloured_tokens_html(shown[:at], values[:at], maximum=maximum)
    right = coloured_tokens_html(shown[at:], values[at:], maximum=maximum, mark=0)
    return f'<div class="kwic-row"><div>{left}</div><div>{right}</div></div>'


def _band(name: str, note: str, lines: Sequence[str]) -> str:
    inside = "".join(lines) or '<div class="kwic-none">no token</div>'
    below = f"<span>{html.escape(note)}</span>" if note else ""
    return f'<div class="kwic-band"><div class="kwic-head"><b>{html.escape(name)}</b>{below}</div><div>{inside}</div></div>'


def _write(parts: Sequence[str]) -> None:
    st.html(_CSS + (_PRESENT_CSS if presenting() else ""))
    st.html(f'<div class="kwic">{"".join(parts)}</div>')


def _percent(value: float) -> str:
    from lab.circuits.transcoders.views.features.figures import share

    return share(value)
