"""Pictures that clusterings share: cluster sizes against classes, maps of samples, methods against measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lab.plot import Theme, figure, hues

HEAD, MEDIUM = 0.3, 0.7  # the first 30 % of the classes by frequency, and the next 40 %
MAP_AXES = {"x": "map, first coordinate (no unit)", "y": "map, second coordinate (no unit)"}
Line = tuple[str, np.ndarray, Mapping[str, Any]]
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross")


def head_medium_tail(k: int) -> dict[str, slice]:
    """Where head (30 % of the classes), medium (40 %) and tail (30 %) lie among k classes in order of frequency.

    >>> head_medium_tail(10)
    {'head': slice(0, 3, None), 'medium': slice(3, 7, None), 'tail': slice(7, 10, None)}
    """
    first, last = round(HEAD * k), round(MEDIUM * k)
    return {"head": slice(0, first), "medium": slice(first, last), "tail": slice(last, k)}


def fade(share: np.ndarray) -> np.ndarray:
    """Opacity for a share in [0, 1]: faint at 0, full at 1; the square root keeps small shares apart.

    >>> fade(np.array([0.0, 0.25, 1.0])).round(2).tolist()
    [0.11999..., 0.56..., 1.0]
    """
    return (0.12 + 0.88 * np.sqrt(np.clip(share, 0, 1))).astype(np.float32)


def map_figure(
    title: str,
    points: np.ndarray,
    group: np.ndarray,
    names: Sequence[str],
    theme: Theme,
    *,
    opacity: np.ndarray | float = 1.0,
    wrong: np.ndarray | None = None,
    text: Sequence[str] | None = None,
    axes: Mapping[str, str] = MAP_AXES,
) -> go.Figure:
    """Samples on a map, the hue their group; where ``wrong``, a cross in the group's hue instead of a dot.

    points (n, 2), group (n,) numbers into ``names``, opacity (n,) or one for all, text (n,) for the pointer.
    """
    fig = figure(title, theme=theme, x=axes["x"], y=axes["y"])
    wrong = np.zeros(len(group), bool) if wrong is None else wrong
    for cross in (False, True):
        chosen = wrong == cross
        if not chosen.any():
            continue
        color = hues(len(names), theme) | {"color": group[chosen].astype(np.uint8)}
        seen = opacity[chosen] if isinstance(opacity, np.ndarray) else opacity
        marker: dict[str, Any] = {"size": 7, "opacity": seen} | color
        if cross:
            line = {key: value for key, value in color.items() if key != "showscale"} | {"width": 2}
            marker |= {"symbol": "x-thin", "line": line}
        x, y = points[chosen].astype(np.float32).T
        hover = {"hoverinfo": "skip"} if text is None else {"text": np.array(text)[chosen], "hoverinfo": "text"}
        fig.add_trace(go.Scatter(x=x, y=y, mode="markers", marker=marker, **hover))
    bare_axes(fig)
    return fig


def name_groups(
    fig: go.Figure, points: np.ndarray, group: np.ndarray, names: Sequence[str], theme: Theme, most: int = 12
) -> None:
    """Write each group's name at the median of its points, largest groups first; no legend to look up.

    points (n, 2), group (n,) numbers into ``names``.
    """
    present, counts = np.unique(group, return_counts=True)
    for k in present[np.argsort(-counts, kind="stable")][:most]:
        x, y = np.median(points[group == k], axis=0)
        fig.add_annotation(
            x=float(x),
            y=float(y),
            text=f"<b>{names[k]}</b>",
            showarrow=False,
            font={"size": 14},
            opacity=0.85,
            bgcolor=theme.surface,
            bordercolor=theme.class_color(int(k)),
            borderpad=2,
        )


def bare_axes(fig: go.Figure) -> None:
    """A map's axes: titles, but neither ticks nor grid."""
    fig.update_xaxes(showticklabels=False, ticks="", showgrid=False, title_standoff=4)
    fig.update_yaxes(showticklabels=False, ticks="", showgrid=False)


def lines_figure(title: str, x: np.ndarray, lines: Sequence[Line], theme: Theme, y: str) -> go.Figure:
    """Shares in [0, 1] over training steps. lines: (name, values, line options); without a name, not in the legend."""
    fig = figure(title, theme=theme, x="training step", y=y)
    for name, values, line in lines:
        legend = {"name": name} if name else {"showlegend": False, "hoverinfo": "skip"}
        fig.add_trace(go.Scatter(x=x, y=values, mode="lines", line={"width": 2} | dict(line), **legend))
    fig.update_layout(showlegend=True)
    fig.update_yaxes(tickformat=".0%")
    return fig


def sizes_figure(
    title: str,
    names: Sequence[str],
    sizes: np.ndarray,
    true_sizes: np.ndarray | None,
    theme: Theme,
    *,
    x: str,
    y: str,
    groups: bool = False,
) -> go.Figure:
    """Bars: what clusters got. Strokes: true sizes, if known. Dashed: equal sizes. ``groups``: mark head, medium, tail.

    names, sizes and true_sizes (K,) come in the order in which they are drawn.
    """
    fig = figure(title, theme=theme, x=x, y=y)
    k, position = len(sizes), np.arange(len(sizes))
    fig.add_trace(go.Bar(x=position, y=sizes, name="cluster got", marker_color=theme.accent, opacity=0.85))
    if true_sizes is not None:
        true = {"symbol": "line-ew-open", "size": 18, "color": theme.truth, "line": {"width": 3}}
        fig.add_trace(
            go.Scatter(x=np.arange(len(true_sizes)), y=true_sizes, name="true size", mode="markers", marker=true)
        )
    line = {"color": theme.baselines[0], "dash": "dash"}
    ends = np.array([-0.5, k - 0.5])
    fig.add_trace(go.Scatter(x=ends, y=np.full(2, 1 / k), name="equal sizes", mode="lines", line=line))
    for name, group in head_medium_tail(k).items() if groups else ():
        if group.stop == group.start:
            continue
        if group.stop < k:
            fig.add_vline(x=group.stop - 0.5, line={"color": theme.muted, "width": 1, "dash": "dot"})
        fig.add_annotation(
            x=(group.start + group.stop - 1) / 2,
            y=1,
            yref="paper",
            yanchor="bottom",
            text=name,
            showarrow=False,
            font={"color": theme.muted, "size": 13},
        )
    fig.update_layout(showlegend=True)
    every = int(np.ceil(k / 20))
    fig.update_xaxes(
        tickvals=position[::every], ticktext=list(names)[::every], showgrid=False, range=ends.tolist(), tickangle=0
    )
    fig.update_yaxes(tickformat=".0%", rangemode="tozero")
    return fig


def methods_figure(
    title: str, methods: Sequence[str], measures: Mapping[str, np.ndarray], ours: str, theme: Theme, x: str
) -> go.Figure:
    """One row per method, one symbol per measure, in [0, 1]; the row of ``ours`` in the accent."""
    fig = figure(title, theme=theme, x=x, y="method")
    rows = np.arange(len(methods))
    table = np.array(list(measures.values()))
    for row in rows:
        low, high = np.nanmin(table[:, row]), np.nanmax(table[:, row])
        fig.add_shape(
            type="line", x0=low, x1=high, y0=row, y1=row, layer="below", line={"color": theme.grid, "width": 5}
        )
    colors = [theme.accent if method == ours else theme.baselines[0] for method in methods]
    for (name, values), symbol in zip(measures.items(), SYMBOLS, strict=False):
        marker = {"symbol": symbol, "size": 11, "color": colors, "line": {"width": 1, "color": theme.surface}}
        fig.add_trace(
            go.Scatter(
                x=values,
                y=rows,
                mode="markers",
                name=name,
                marker=marker,
                customdata=list(methods),
                hovertemplate=f"%{{customdata}}: {name} %{{x:.1%}}<extra></extra>",
            )
        )
    names = [f"<b>{method}</b>" if method == ours else method for method in methods]
    fig.update_layout(showlegend=True, height=450)
    fig.update_xaxes(tickformat=".0%")
    fig.update_yaxes(tickvals=rows, ticktext=names, autorange="reversed", showgrid=False)
    return fig
