"""The answer beside the graph: the root before and after a cut, and the likeliest tokens as small bars."""

from __future__ import annotations

import html

import streamlit as st
from ui.look import escaped, theme

from lab.circuits.transcoders.models.languages import quoted
from lab.circuits.transcoders.views.circuit.cut_experiment import CutResult
from lab.plot import Theme

BARS = 5
_ROW = "display:grid;grid-template-columns:3.9rem 1fr 4.9rem;gap:.4rem;align-items:center;font-size:.85rem"
_NAME = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap"


def answer(cut: CutResult) -> None:
    """Draw it; no chart of plotly's, so that it stands at once."""
    look = theme()
    number = f"<b>{cut.before:+.2f}</b>"
    below = ""
    if cut.cuts:
        number += f" → <b style='color:{look.accent}'>{cut.live:+.2f}</b>"
        below = f"<div style='font-size:.85rem;color:{look.muted}'>{cut.frozen:+.2f} is what the circuit said</div>"
    rows = "".join(
        _row(row.piece, row.before, row.after if cut.cuts else None, look) for row in cut.logits.head(BARS).itertuples()
    )
    st.html(
        f"<div style='line-height:1.35'><div style='font-size:.85rem;color:{look.muted}'>{html.escape(cut.measure)}</div>"
        f"<div style='font-size:1.25rem'>{number}</div>{below}<div style='margin-top:.4rem'>{rows}</div></div>"
    )
    if cut.note:
        st.caption(escaped(cut.note))


def _row(piece: str, before: float, after: float | None, look: Theme) -> str:
    """One token: its probability, and below it what is left of it."""
    bars = _bar(before, look.accent if after is None else look.baselines[1])
    number = _percent(before)
    if after is not None:
        bars += _bar(after, look.accent)
        number += f" → {_percent(after)}"
    name = html.escape(quoted(piece))
    return (
        f"<div style='{_ROW}'><span style='{_NAME}'>{name}</span><div>{bars}</div>"
        f"<span style='text-align:right;white-space:nowrap'>{number}</span></div>"
    )


def _bar(share: float, color: str) -> str:
    return f"<div style='height:6px;margin:1px 0;border-radius:2px;width:{100 * share:.1f}%;background:{color}'></div>"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"
