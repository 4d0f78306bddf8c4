"""Pictures of one layer before and after: its weights, what it takes to store, its peers, its input channels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab.plot import LIGHT, Theme, figure
from lab.quantization.axis_figures import LOST, TRUE_BITS, finite_rows, percents
from lab.quantization.layer_experiment import LayerResult
from lab.quantization.quality_figures import Mark, family, quality_and_bits

if TYPE_CHECKING:
    import pandas as pd

PARTS = {
    "weights": "the weights' own bits",
    "mask": "the mask",
    "scales": "scales and means",
    "zeros": "zero points",
}


def diverging(theme: Theme) -> list[list[Any]]:
    """A scale from blue through the page's surface to the accent, for numbers with a sign."""
    return [[0.0, theme.class_color(0)], [0.5, theme.surface], [1.0, theme.accent]]


def layer_maps(result: LayerResult, theme: Theme = LIGHT) -> go.Figure:
    """The weight, which entries are kept precise, the quantized weight, and what is lost: a corner of the layer."""
    share = result.share
    title = f"{share:.0%} of the layer's weights stay precise" if share else "Every weight goes to a grid point"
    lost = result.rounded - result.weight
    high = float(np.quantile(np.abs(result.weight), 0.995))
    panels = {"the weight W": result.weight, "quantized Ŵ": result.rounded, "lost: Ŵ − W": lost}
    if share:
        panels = {"the weight W": result.weight, "kept precise": result.kept} | panels
    names = list(panels)
    fig = make_subplots(rows=len(names), cols=1, subplot_titles=names, vertical_spacing=0.07)
    fig.update_layout(figure(title, theme=theme, height=150 * len(names) + 60).layout)
    for place, (name, values) in enumerate(panels.items(), start=1):
        mask = name == "kept precise"
        scale = [[0, theme.surface], [1, theme.truth]] if mask else diverging(theme)
        bounds = {"zmin": 0, "zmax": 1} if mask else {"zmin": -high, "zmax": high}
        fig.add_trace(
            go.Heatmap(
                z=values.astype(np.float32),
                colorscale=scale,
                showscale=False,
                **bounds,
                hovertemplate="output %{y}, input %{x}: %{z:.4f}<extra>" + name + "</extra>",
            ),
            row=place,
            col=1,
        )
    fig.update_xaxes(showgrid=False, ticks="", showticklabels=False)
    fig.update_yaxes(showgrid=False, ticks="", showticklabels=False, autorange="reversed")
    fig.update_xaxes(title_text=f"input channels of {result.name}", row=len(names), col=1)
    fig.update_annotations(font={"size": 14, "color": theme.muted})
    return fig


def layer_histogram(result: LayerResult, theme: Theme = LIGHT) -> go.Figure:
    """How many weights lie where, before and after."""
    fullest = np.argsort(-result.after)[:4]
    now, once = (float(counts[fullest].sum() / counts.sum()) for counts in (result.after, result.before))
    fig = figure(
        f"{now:.0%} of the weights now stand in four of {len(result.after)} bins, where {once:.0%} stood before",
        theme=theme,
        x="weight (no unit)",
        y="weights (count, logarithmic)",
    )
    centers = (result.bins[1:] + result.bins[:-1]) / 2
    fig.add_trace(go.Bar(x=centers, y=result.after, name="after", marker={"color": theme.accent, "line": {"width": 0}}))
    line = {"color": theme.baselines[0], "width": 2}
    fig.add_trace(go.Scatter(x=centers, y=result.before, name="before", mode="lines", line=line))
    fig.update_layout(bargap=0, showlegend=True)
    fig.update_yaxes(type="log", dtick=1)
    return fig


def layer_bill(result: LayerResult, theme: Theme = LIGHT) -> go.Figure:
    """What a weight costs: as the paper counts, and in truth."""
    bill = result.bill
    total = bill[list(PARTS)].sum(axis=1)
    paper, stored = float(total.iloc[0]), float(total.iloc[1])
    title = f"{result.method} costs {stored:.2f} bits a weight here; the paper's count is {paper:.2f}"
    fig = figure(title, theme=theme, x="bits a weight", height=110 + 62 * len(bill))
    stacked_bits(fig, bill, theme)
    return fig


def stacked_bits(fig: go.Figure, bill: pd.DataFrame, theme: Theme) -> None:
    """Bars of bits a weight, a row of ``bill`` each: its column ``what``, and a part for each of `PARTS`; the totals beside,
    clear of the column ``paper`` if there is one."""
    total = bill[list(PARTS)].sum(axis=1)
    colors = (theme.accent, theme.baselines[0], theme.baselines[1], theme.baselines[2])
    for (part, name), color in zip(PARTS.items(), colors, strict=True):
        fig.add_trace(
            go.Bar(
                y=bill["what"],
                x=bill[part],
                name=name,
                orientation="h",
                marker={"color": color},
                hovertemplate="%{y}, " + name + ": %{x:.3f} bits<extra></extra>",
            )
        )
    clear = np.maximum(total, bill["paper"]) if "paper" in bill else total
    for what, value, x in zip(bill["what"], total, clear, strict=True):
        fig.add_annotation(y=what, x=float(x), text=f"{value:.2f}", showarrow=False, xanchor="left", xshift=6)
    below = -90 / (fig.layout.height - 96)  # of the plot's own height: clear of the axis's title
    fig.update_layout(barmode="stack", showlegend=True, legend={"y": below, "traceorder": "normal"})
    fig.update_layout(height=fig.layout.height + 60, margin={"b": 108})
    fig.update_xaxes(range=[0, 1.12 * float(total.max())])
    fig.update_yaxes(autorange="reversed", showgrid=False)


def layer_peers(result: LayerResult, theme: Theme = LIGHT) -> go.Figure:
    """Every method at its true cost: what share of the layer's output is lost."""
    table = result.methods
    one = table[table["ours"]].iloc[0]
    cheaper = table[(table["bits"] <= one["bits"]) & ~table["ours"]]
    beaten = bool((cheaper["error"] < one["error"]).any())
    verdict = "a method of fewer bits loses less" if beaten else "no method shown loses less with as few bits"
    fig = figure(
        f"At {one['bits']:.2f} true bits {result.method} loses {one['error']:.1%} of the output; {verdict}",
        theme=theme,
        x=TRUE_BITS,
        y="share of the output lost (logarithmic)",
    )
    marks = [
        Mark(str(row.method), family(str(row.method)), float(row.bits), float(row.error), ours=bool(row.ours))
        for row in finite_rows(table, "error").itertuples()
        if row.error > 0
    ]
    ours = {mark.family for mark in marks if mark.ours}
    quality_and_bits(fig, marks, math.nan, False, ours, theme, joined=True)
    return fig.update_yaxes(tickvals=LOST, ticktext=percents(LOST))


def layer_columns(result: LayerResult, theme: Theme = LIGHT) -> go.Figure:
    """Which input channels are large, and which ones the lost output comes from."""
    order = np.argsort(-result.activation)
    share = float(result.column_error[order[: len(order) // 5]].sum())
    fig = figure(
        f"The fifth of the channels with the largest inputs causes {share:.0%} of what is lost",
        theme=theme,
        x="channel, largest inputs first",
        y="share of the total (logarithmic)",
    )
    place = np.arange(len(order))
    size = result.activation[order] / result.activation.sum()
    for name, values, color in (
        ("inputs' mean size", size, theme.baselines[0]),
        ("lost output", result.column_error[order], theme.accent),
    ):
        marker = {"color": color, "size": 5, "opacity": 0.75}
        values = np.maximum(values, 1e-9).astype(np.float32)
        fig.add_trace(go.Scatter(x=place, y=values, mode="markers", name=name, marker=marker))
    fig.update_yaxes(type="log", dtick=1)
    fig.update_layout(showlegend=True)
    return fig
