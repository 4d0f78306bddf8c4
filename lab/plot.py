"""The look of every figure: two themes, one colour a role, and the figure builders that several papers share.

Figure functions of the rooms are pure: `f(result, theme=LIGHT) -> go.Figure`. The figure's title states the finding;
pages take it off the chart and print it above, so that it never clips on a phone.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

# Okabe-Ito's colour-blind safe hues, ordered so that neighbours differ in lightness too; ten for ten classes.
_CLASSES_LIGHT = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#7A5C00",
    "#6A3D9A",
    "#8C8C8C",
    "#00695C",
    "#B15928",
)
_CLASSES_DARK = (
    "#4DA3DB",
    "#F2B84B",
    "#3CC79A",
    "#E29BC4",
    "#8FD0F5",
    "#C9A94F",
    "#A98BD6",
    "#B5B5B5",
    "#4FB3A5",
    "#D98E5F",
)


@dataclass(frozen=True)
class Theme:
    """The colours of one mode. accent: the paper's method; truth: what is known; baselines: cool greys, strongest first."""

    name: Literal["light", "dark"]
    ink: str
    muted: str
    grid: str
    surface: str
    accent: str
    truth: str
    baselines: tuple[str, ...]
    classes: tuple[str, ...]
    scale: tuple[str, ...]

    def class_color(self, index: int) -> str:
        """The hue of class or cluster `index` (they repeat after ten)."""
        return self.classes[index % len(self.classes)]

    def colorscale(self) -> list[list[Any]]:
        """A sequential scale from the page's surface to the accent, for masses and probabilities."""
        return [[place / (len(self.scale) - 1), color] for place, color in enumerate(self.scale)]


LIGHT = Theme(
    name="light",
    ink="#1C1917",
    muted="#6B655F",
    grid="#E7E1D8",
    surface="#FFFDF9",
    accent="#C2410C",
    truth="#1C1917",
    baselines=("#475569", "#7C8BA1", "#A3B1C4", "#C6D0DD"),
    classes=_CLASSES_LIGHT,
    scale=("#FFFDF9", "#FDE3CF", "#F7B58A", "#E77B3F", "#C2410C", "#7A2506"),
)
DARK = Theme(
    name="dark",
    ink="#ECE7DE",
    muted="#A39C92",
    grid="#2C3036",
    surface="#14161A",
    accent="#FB923C",
    truth="#F5F2EC",
    baselines=("#B6C2D2", "#8A99AE", "#66748A", "#4A566A"),
    classes=_CLASSES_DARK,
    scale=("#14161A", "#3B2313", "#7A3E14", "#C8641F", "#FB923C", "#FFD9B3"),
)


def figure(
    title: str, *, theme: Theme = LIGHT, x: str | None = None, y: str | None = None, height: int = 430
) -> go.Figure:
    """An empty figure in the lab's look. title: the finding; x, y: axis titles with units.

    >>> figure("Mass grows", x="step", y="mass (share)").layout.xaxis.title.text
    'step'
    """
    axis = {
        "showgrid": True,
        "gridcolor": theme.grid,
        "zeroline": False,
        "linecolor": theme.grid,
        "ticks": "outside",
        "tickcolor": theme.grid,
        "title": {"standoff": 10},
        "automargin": True,
    }
    layout = go.Layout(
        template="none",
        title={"text": title, "x": 0, "xref": "paper", "xanchor": "left", "font": {"size": 17}},
        font={"family": "Source Serif, Source Serif 4, Georgia, serif", "size": 15, "color": theme.ink},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        height=height,
        margin={"l": 60, "r": 24, "t": 48, "b": 48},
        showlegend=False,
        xaxis=axis | ({"title": {"text": x, "standoff": 10}} if x else {}),
        yaxis=axis | ({"title": {"text": y, "standoff": 10}} if y else {}),
        hoverlabel={"bgcolor": theme.surface, "font": {"color": theme.ink}, "bordercolor": theme.grid},
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "bgcolor": "rgba(0,0,0,0)"},
        colorway=list(theme.classes),
    )
    return go.Figure(layout=layout)


def heatmap(
    values: np.ndarray, *, theme: Theme = LIGHT, low: float = 0.0, high: float | None = None, **trace: Any
) -> go.Heatmap:
    """A heat map in the theme's sequential scale; float32 on the wire. values: (rows, columns)."""
    return go.Heatmap(
        z=np.asarray(values, dtype=np.float32),
        zmin=low,
        zmax=float(np.max(values)) if high is None else high,
        colorscale=theme.colorscale(),
        colorbar={"thickness": 12, "outlinewidth": 0, "tickcolor": theme.grid},
        **trace,
    )


def confusion(
    counts: np.ndarray, names: Sequence[str], title: str, *, theme: Theme = LIGHT, height: int = 430
) -> go.Figure:
    """Confusion matrix with row-normalised colour and the counts on hover. counts: (classes, clusters), rows are truth."""
    counts = np.asarray(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    fig = figure(title, theme=theme, x="cluster, aligned to the classes", y="true class", height=height)
    names = short_names(names)
    columns = [names[place] if place < len(names) else f"extra {place}" for place in range(counts.shape[1])]
    fig.add_trace(
        heatmap(
            share,
            theme=theme,
            high=1.0,
            x=columns,
            y=list(names),
            customdata=counts,
            xgap=1,
            ygap=1,
            hovertemplate="true %{y}, cluster %{x}: %{customdata} samples (%{z:.0%} of the class)<extra></extra>",
        )
    )
    fig.update_traces(colorbar_title_text="share<br>of class", colorbar_tickformat=".0%")
    fig.update_xaxes(type="category", showgrid=False)
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return fig


def short_names(names: Sequence[str], most: int = 16) -> list[str]:
    """Names that fit beside a figure, as plain text; those that would become equal are numbered.

    >>> short_names(["cat", "a very long name, part 1", "a very long name, part 2", "<b>"])
    ['cat', 'a very long na…', 'a very long… (2)', '&lt;b&gt;']
    """
    found: list[str] = []
    for place, name in enumerate(names):
        cut = name if len(name) <= most else name[: most - 2] + "…"
        if html.escape(cut) in found:
            number = f" ({place})"
            cut = name[: most - len(number) - 1] + "…" + number
        found.append(html.escape(cut))
    return found


def end_label(fig: go.Figure, x: float, y: float, text: str, color: str) -> None:
    """Write a line's name at its last point, in the line's colour: no legend to look up."""
    fig.add_annotation(
        x=x, y=y, text=text, showarrow=False, xanchor="left", xshift=6, font={"color": color, "size": 14}
    )


def hues(k: int, theme: Theme) -> dict[str, Any]:
    """Marker options that turn the numbers 0 .. k-1 into the classes' colours: one byte a point on the wire."""
    edges = np.repeat(np.arange(k + 1) / k, 2)[1:-1]
    scale = [[float(edge), theme.class_color(place // 2)] for place, edge in enumerate(edges)]
    return {"colorscale": scale, "cmin": -0.5, "cmax": k - 0.5, "showscale": False}


def playable(fig: go.Figure, steps: Sequence[tuple[str, str]], prefix: str, theme: Theme) -> None:
    """Play, pause and a slider through the figure's frames, in one row below it that fits a phone.

    steps: (frame's name, what the slider says at it).
    """
    play = {"frame": {"duration": 350, "redraw": False}, "transition": {"duration": 0}, "fromcurrent": True}
    stop = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    buttons = [
        {"label": "▶", "method": "animate", "args": [None, play]},
        {"label": "❚❚", "method": "animate", "args": [[None], stop]},
    ]
    fig.update_layout(
        updatemenus=[
            {
                "type": "buttons",
                "direction": "left",
                "buttons": buttons,
                "x": 0,
                "y": 0,
                "xanchor": "left",
                "yanchor": "top",
                "pad": {"t": 34},
                "showactive": False,
                "bgcolor": theme.surface,
                "bordercolor": theme.muted,
                "font": {"color": theme.ink},
            }
        ],
        sliders=[
            {
                "steps": [{"label": label, "method": "animate", "args": [[name], stop]} for name, label in steps],
                "currentvalue": {"prefix": prefix, "font": {"size": 14, "color": theme.ink}},
                "x": 0.34,
                "len": 0.66,
                "y": 0,
                "pad": {"t": 26},
                "ticklen": 0,
                "minorticklen": 0,
                "bgcolor": theme.accent,
                "bordercolor": theme.muted,
                "font": {"size": 1, "color": "rgba(0,0,0,0)"},
            }
        ],
        margin_b=92,
    )
