"""How the methods look in the room's pictures, and shares of the output on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from lab.plot import Theme

LOOKS: dict[str, tuple[int, str, str]] = {  # which grey, dash and symbol
    "rtn": (0, "dot", "x"),
    "adaround": (0, "solid", "circle"),
    "adaquant": (1, "dash", "square"),
    "signround": (1, "dashdot", "triangle-up"),
}
SHARES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)


def method_color(method: str, theme: Theme) -> str:
    """The accent for FlexRound, a grey for the others."""
    return theme.accent if method.startswith("flexround") else theme.baselines[LOOKS[method][0]]


def method_line(method: str, theme: Theme) -> dict[str, Any]:
    if method.startswith("flexround"):
        return {"color": theme.accent, "width": 3, "dash": "solid" if method == "flexround" else "dash"}
    return {"color": method_color(method, theme), "width": 2, "dash": LOOKS[method][1]}


def percent(value: float) -> str:
    """
    >>> percent(0.0051), percent(0.123), percent(0.94)
    ('0.51 %', '12.3 %', '94 %')
    """
    return f"{100 * value:.3g} %"


def log_shares(fig: go.Figure, values: Sequence[float]) -> None:
    """Shares on a logarithmic axis, with 1, 2 and 5 of each decade where it is short."""
    kept = [value for value in values if value > 0]
    low, high = (min(kept), max(kept)) if kept else (0.01, 1.0)
    digits = range(1, 10) if high < 8 * low else (1, 2, 5) if high < 200 * low else (1,)
    ticks = [digit * decade for decade in SHARES for digit in digits]
    fig.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{100 * tick:.4g}%" for tick in ticks])
