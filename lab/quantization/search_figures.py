"""Pictures of one search: what full precision and a quantized model find for a query."""

from __future__ import annotations

import html
import itertools
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from lab.plot import LIGHT, Theme, figure
from lab.quantization.search_experiment import SearchResult

if TYPE_CHECKING:
    import pandas as pd

MIDDLE = (0.455, 0.545)  # where the ranks of a search stand


def search_top(
    result: SearchResult, theme: Theme = LIGHT, *, letters: int = 22, lines: int = 3, size: int = 12
) -> go.Figure:
    """The five best documents for a query, by full precision and quantized, side by side; what both found is joined.

    letters: in a line of text; lines: of text; size: of the letters. As they stand, the picture fits a phone.
    """
    title = f"{result.common} of the five best documents are the same with {result.bits:.2f} bits a weight, not 32"
    fig = figure(title, theme=theme, height=470)
    line = {"color": theme.accent, "width": 3}
    for left, right in itertools.product(range(len(result.full)), range(len(result.quantized))):
        if result.full["place"][left] == result.quantized["place"][right]:
            fig.add_trace(
                go.Scatter(x=list(MIDDLE), y=[left, right], mode="lines", line=line, hoverinfo="skip", name="in both")
            )
    _found(
        fig,
        result.full,
        set(result.quantized["place"]),
        "full precision",
        0,
        theme.truth,
        theme,
        (letters, lines, size),
    )
    _found(
        fig, result.quantized, set(result.full["place"]), result.method, 1, theme.accent, theme, (letters, lines, size)
    )
    fig.update_xaxes(range=[0, 1], visible=False)
    fig.update_yaxes(range=[4.55, -0.9], visible=False)
    fig.update_layout(margin={"l": 4, "r": 4, "b": 8})
    return fig


def _found(
    fig: go.Figure,
    found: pd.DataFrame,
    others: set[str],
    who: str,
    side: int,
    color: str,
    theme: Theme,
    form: tuple[int, int, int],
) -> None:
    """One of the two lists: left (0) or right (1) of the middle, ranks as discs, filled where the other list has it too."""
    both = [place in others for place in found["place"]]
    rows = list(zip(found["place"], found["text"], found["similarity"], both, strict=True))
    fig.add_trace(
        go.Scatter(
            x=[MIDDLE[side]] * len(rows),
            y=list(range(len(rows))),
            mode="markers+text",
            name=who,
            text=[str(rank) for rank in range(1, len(rows) + 1)],
            marker={
                "size": 22,
                "color": [color if each else theme.surface for each in both],
                "line": {"color": color, "width": 2},
            },
            textfont={"size": 13, "color": [theme.surface if each else color for each in both]},
            customdata=[
                f"{_escaped(place)} ({score:.2f})<br>" + "<br>".join(map(_escaped, textwrap.wrap(text, 60)[:8]))
                for place, text, score, _ in rows
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    letters, lines, size = form
    edge = ("right", "left")[side]
    common = {"x": MIDDLE[side], "xanchor": edge, "align": edge, "showarrow": False, "xshift": (-13, 13)[side]}
    fig.add_annotation(y=-0.7, text=f"<b>{_escaped(who)}</b>", font={"size": size + 2, "color": color}, **common)
    for row, (place, text, _, shared) in enumerate(rows):
        font = {"size": size, "color": theme.ink if shared else theme.muted}
        fig.add_annotation(y=row, text=_entry(place, text, letters, lines), font=font, **common)


def _entry(place: str, text: str, wide: int, most: int) -> str:
    """A document's name and how it begins."""
    name = place if len(place) < wide - 1 else place.rsplit("/", 1)[-1]
    name = name if len(name) < wide - 1 else "…" + name[-(wide - 3) :]
    lines = textwrap.wrap(" ".join(text.split()), wide)
    more = "…" if len(lines) > most else ""
    return f"<b>{_escaped(name)}</b><br>" + "<br>".join(_escaped(line) for line in lines[:most]) + more


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def search_scatter(result: SearchResult, theme: Theme = LIGHT) -> go.Figure:
    """Every document: how similar it is to the query by full precision, and quantized; each one's five best marked."""
    full, ours = result.similarities
    best, found = (np.argsort(-each, kind="stable")[: len(result.full)] for each in (full, ours))
    ranks = np.empty(len(ours), int)
    ranks[np.argsort(-ours, kind="stable")] = np.arange(1, len(ours) + 1)
    places = ", ".join(str(ranks[index]) for index in best)
    fig = figure(
        f"Full precision's five best stand at {places} of {len(ours)} with {result.bits:.2f} bits a weight",
        theme=theme,
        x="similarity by full precision (cosine)",
        y=f"similarity with {result.bits:.2f} bits (cosine)",
    )
    ends = [float(min(full.min(), ours.min())), float(max(full.max(), ours.max()))]
    line = {"color": theme.truth, "width": 1, "dash": "dash"}
    fig.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", name="equal"))
    marker = {"color": theme.baselines[2], "size": 5, "opacity": 0.6}
    fig.add_trace(go.Scatter(x=full, y=ours, mode="markers", marker=marker, hoverinfo="skip", name="documents"))
    names = dict(zip([*best, *found], [*result.full["place"], *result.quantized["place"]], strict=True))
    groups = {
        "in both": (sorted(set(best) & set(found)), "circle", theme.accent),
        "full precision only": (sorted(set(best) - set(found)), "square-open", theme.truth),
        "quantized only": (sorted(set(found) - set(best)), "diamond-open", theme.accent),
    }
    for name, (chosen, symbol, color) in groups.items():
        if chosen:
            fig.add_trace(
                go.Scatter(
                    x=full[chosen],
                    y=ours[chosen],
                    mode="markers",
                    name=name,
                    marker={"symbol": symbol, "color": color, "size": 11, "line": {"width": 2, "color": color}},
                    text=[_escaped(names[index]) for index in chosen],
                    hovertemplate="%{text}: %{x:.2f} by full precision, %{y:.2f} quantized<extra></extra>",
                )
            )
    fig.update_layout(showlegend=True, height=470)
    return fig
