"""Axes and labels of the quantization papers' pictures: metrics and bits in words, ticks, names at the ends of lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from lab.plot import Theme, end_label

if TYPE_CHECKING:
    import pandas as pd

NARROW = (262.0, 330.0)  # pixels of a plot on a phone: labels that fit there fit on anything wider
LOST = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
METRICS = {
    "cosine": "cosine to full precision",
    "spearman": "rank correlation",
    "recall_1": "found first",
    "recall_5": "found in five",
    "perplexity": "perplexity",
}
TRUE_BITS = "true bits a weight"
TRUE_BITS_BOUND = TRUE_BITS + "<br><sup>whisker: the mask at its entropy bound</sup>"


def metric_axis(metric: str) -> str:
    return METRICS.get(metric, metric) + (" (logarithmic)" if metric == "perplexity" else "")


def log_ticks(values: Iterable[float], most: int = 4) -> dict[str, Any]:
    """Ticks of a logarithmic axis: 1, 2 and 5 in each decade, fewer where there would be more than ``most``."""
    found = [value for value in values if math.isfinite(value) and value > 0]
    if not found:
        return {}
    decades = range(math.floor(math.log10(min(found))), math.ceil(math.log10(max(found))) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**decade for decade in decades for digit in steps]
        if sum(min(found) <= tick <= max(found) for tick in ticks) <= most:
            break
    return {"tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks], "tickangle": 0}


def percents(values: Iterable[float]) -> list[str]:
    return [f"{100 * value:g}%" for value in values]


def padded(values: Sequence[float], before: float, after: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    span = high - low or max(abs(high), 1.0)
    return low - before * span, high + after * span


def short(value: float) -> str:
    """Three digits, and no powers of ten.

    >>> short(0.12345), short(14664.2)
    ('0.123', '14,664')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.3g}"


def finite_rows(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows whose number is one; a collapsed model's may be NaN or inf."""
    return table[np.isfinite(table[column].to_numpy(dtype=float))] if len(table) else table


def end_labels(
    fig: go.Figure, ends: Mapping[str, tuple[float, float, str]], span: tuple[float, float], gap: float = 17.0
) -> None:
    """Fix the y axis to ``span`` and name lines at their right ends, (x, y, colour), pushed apart where they would meet."""
    fig.update_yaxes(range=list(span))
    step = gap * (span[1] - span[0]) / NARROW[1]
    place = -math.inf
    for name, (x, y, color) in sorted(ends.items(), key=lambda item: item[1][1]):
        place = max(y, place + step)
        end_label(fig, x, place, name, color)
    fig.update_annotations(font_size=13)


def named_rows(fig: go.Figure, rows: Sequence[str], ours: Sequence[bool], bits: Sequence[float], theme: Theme) -> None:
    """Names to the left, ours in bold, and true bits to the right: a picture that reads as a table."""
    ticks = [f"<b>{row}</b>" if each else row for row, each in zip(rows, ours, strict=True)]
    fig.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=list(rows),
        autorange="reversed",
        tickvals=list(rows),
        ticktext=ticks,
        tickfont={"size": 12},
    )
    for row, each, cost in zip(rows, ours, bits, strict=True):
        fig.add_annotation(
            x=1,
            xref="paper",
            y=row,
            text=f"{cost:.2f}",
            showarrow=False,
            xanchor="left",
            xshift=8,
            font={"size": 12, "color": theme.accent if each else theme.muted},
        )
    fig.add_annotation(
        x=1,
        xref="paper",
        y=1,
        yref="paper",
        text="true bits",
        showarrow=False,
        xanchor="right",
        xshift=46,
        yanchor="bottom",
        font={"size": 12, "color": theme.muted},
    )
    fig.update_layout(margin={"r": 48, "t": 64})
