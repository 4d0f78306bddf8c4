"""Quality against bits, one mark per method: who is beaten by nobody, and labels that keep apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from lab.plot import Theme
from lab.quantization.axis_figures import NARROW, log_ticks, padded

Box = tuple[float, float, float, float]  # left, low, right, high
LETTER, LINE = 7.2, 15.0  # pixels of a label
BESIDE = (
    ("left", "middle", 9, 0),
    ("right", "middle", -9, 0),
    ("center", "bottom", 0, 8),
    ("center", "top", 0, -8),
    ("left", "bottom", 4, 6),
    ("left", "top", 4, -6),
    ("right", "bottom", -4, 6),
    ("right", "top", -4, -6),
)


@dataclass(frozen=True)
class Mark:
    """A method in a picture of quality against bits; ``low`` and ``high``: an interval of its quality, if there is one."""

    name: str
    family: str
    bits: float
    value: float
    bound: float = math.nan
    ours: bool = False
    note: str = ""
    low: float = math.nan
    high: float = math.nan


def family(label: str) -> str:
    """The method that a setting belongs to.

    >>> family("PB-LLM without compensation, 10 %"), family("GPTQ, 3 bit")
    ('PB-LLM', 'GPTQ')
    """
    return label.split(",")[0].split(" without ")[0]


def pareto(marks: Iterable[Mark], higher: bool) -> list[Mark]:
    """The methods that no other one beats with as few bits, cheapest first."""
    front: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.bits, -mark.value if higher else mark.value)):
        if not front or (mark.value > front[-1].value if higher else mark.value < front[-1].value):
            front.append(mark)
    return front


def quality_and_bits(
    fig: go.Figure, marks: Sequence[Mark], full: float, higher: bool, ours: set[str], theme: Theme, *, joined: bool
) -> go.Figure:
    """Fill in quality against bits: whiskers to the masks' bounds, labels that keep apart, a method's settings ``joined``."""
    if not marks:
        return fig
    front = pareto(marks, higher)
    for name in dict.fromkeys(mark.family for mark in marks):
        part = sorted((mark for mark in marks if mark.family == name), key=lambda mark: mark.bits)
        color = theme.accent if name in ours else theme.baselines[1]
        _whiskers(fig, part, color)
        if joined and len(part) > 1:
            line = {"color": color, "width": 1.2, "dash": "solid" if name in ours else "dot"}
            fig.add_trace(
                go.Scatter(
                    x=[mark.bits for mark in part],
                    y=[mark.value for mark in part],
                    mode="lines",
                    line=line,
                    hoverinfo="skip",
                    name=f"{name}, joined",
                )
            )
        _points(fig, name, part, front, name in ours, theme)
    values = [mark.value for mark in marks] + ([full] if math.isfinite(full) else [])
    scale = (lambda value: value) if higher else math.log10
    span = padded([scale(value) for value in values], 0.1, 0.06)
    bits = padded([edge for mark in marks for edge in (mark.bits, mark.bound) if math.isfinite(edge)], 0.05, 0.05)
    fig.update_xaxes(range=list(bits))
    fig.update_yaxes(range=list(span), **({} if higher else {"type": "log"} | log_ticks(values, most=6)))
    taken: list[Box] = []
    if math.isfinite(full):
        fig.add_hline(y=full, line={"color": theme.truth, "width": 1.5, "dash": "dash"})
        place = NARROW[1] * (scale(full) - span[0]) / (span[1] - span[0])
        taken += [(0.0, place - 18, 95.0, place), (0.0, place - 2, NARROW[0], place + 2)]  # its name, and the line
        fig.add_annotation(
            x=0,
            xref="x domain",
            y=scale(full),
            text="full precision",
            showarrow=False,
            xanchor="left",
            yanchor="top",
            font={"color": theme.truth, "size": 13},
        )
    first = [mark for mark in marks if mark.ours]
    rest = sorted(marks, key=lambda mark: -mark.value if higher else mark.value)
    wanted = list(dict.fromkeys([*first, *front, *(mark for mark in marks if mark.family in ours), *rest]))
    _labels(fig, wanted, scale, bits, span, taken, ours, front, theme)
    return fig


def _whiskers(fig: go.Figure, part: Sequence[Mark], color: str) -> None:
    shorter = [mark for mark in part if mark.bound < mark.bits - 0.005]
    if not shorter:
        return
    xs = [edge for mark in shorter for edge in (mark.bound, mark.bits, None)]
    ys = [edge for mark in shorter for edge in (mark.value, mark.value, None)]
    ends = {"symbol": "line-ns-open", "size": 9, "color": color}
    fig.add_trace(
        go.Scatter(
            x=xs,
            y=ys,
            mode="lines+markers",
            line={"color": color, "width": 1.2},
            marker=ends,
            hoverinfo="skip",
            opacity=0.75,
            name=f"{part[0].family}, mask at its bound",
        )
    )


def _points(fig: go.Figure, name: str, part: Sequence[Mark], front: Sequence[Mark], mine: bool, theme: Theme) -> None:
    color = [theme.accent if mine else theme.baselines[0 if mark in front else 1] for mark in part]
    size = [14 if mark.ours else 10 for mark in part]
    bars = None
    if any(math.isfinite(mark.high) for mark in part):
        up, down = (
            [abs(edge - mark.value) if math.isfinite(edge) else 0 for edge, mark in ends]
            for ends in ([(mark.high, mark) for mark in part], [(mark.low, mark) for mark in part])
        )
        bars = {"type": "data", "array": up, "arrayminus": down, "thickness": 1.2, "width": 4, "color": color[0]}
    notes = [
        (f"; with the mask at its bound {mark.bound:.2f}" if mark.bound < mark.bits - 0.005 else "")
        + (f"<br>{mark.note}" if mark.note else "")
        for mark in part
    ]
    fig.add_trace(
        go.Scatter(
            x=[mark.bits for mark in part],
            y=[mark.value for mark in part],
            mode="markers",
            name=name,
            error_y=bars,
            text=[mark.name for mark in part],
            customdata=notes,
            marker={"color": color, "size": size, "opacity": 1},
            hovertemplate="%{text}: %{y:.3g} at %{x:.2f} bits%{customdata}<extra></extra>",
        )
    )


def _labels(
    fig: go.Figure,
    wanted: Sequence[Mark],
    scale: Any,
    xs: tuple[float, float],
    ys: tuple[float, float],
    taken: list[Box],
    ours: set[str],
    front: Sequence[Mark],
    theme: Theme,
) -> None:
    """Write names beside points, the first of ``wanted`` first, wherever one lies on nothing else on a phone's screen."""
    width, height = NARROW
    at = {
        mark: (width * (mark.bits - xs[0]) / (xs[1] - xs[0]), height * (scale(mark.value) - ys[0]) / (ys[1] - ys[0]))
        for mark in wanted
    }
    boxes = taken + [(x - 4, y - 4, x + 4, y + 4) for x, y in at.values()]
    boxes += [
        (width * (mark.bound - xs[0]) / (xs[1] - xs[0]), y - 2, x, y + 2)
        for mark, (x, y) in at.items()
        if mark.bound < mark.bits - 0.005
    ]
    for mark in wanted:
        x, y = at[mark]
        length = LETTER * len(mark.name)
        for anchor, stand, right, up in BESIDE:
            left = x + right - {"left": 0.0, "center": length / 2, "right": length}[anchor]
            low = y + up - {"bottom": 0.0, "middle": LINE / 2, "top": LINE}[stand]
            box = (left, low, left + length, low + LINE)
            inside = left >= 0 and box[2] <= width + 20 and low >= 0 and box[3] <= height
            if inside and not any(_meet(box, other) for other in boxes):
                boxes.append(box)
                color = theme.accent if mark.family in ours else theme.baselines[0] if mark in front else theme.muted
                fig.add_annotation(
                    x=mark.bits,
                    y=scale(mark.value),
                    text=f"<b>{mark.name}</b>" if mark.ours else mark.name,
                    showarrow=False,
                    xanchor=anchor,
                    yanchor=stand,
                    xshift=right,
                    yshift=up,
                    font={"color": color, "size": 13},
                )
                break


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
