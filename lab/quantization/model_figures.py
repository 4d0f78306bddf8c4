"""Pictures of a whole model by many methods: quality and bits, all metrics by name, the error block by block."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from lab.plot import LIGHT, Theme, end_label, figure
from lab.quantization.axis_figures import (
    LOST,
    METRICS,
    NARROW,
    TRUE_BITS_BOUND,
    finite_rows,
    log_ticks,
    metric_axis,
    named_rows,
    percents,
    short,
)
from lab.quantization.model_experiment import ModelResult
from lab.quantization.quality_figures import Mark, family, quality_and_bits

if TYPE_CHECKING:
    import pandas as pd

SYMBOLS = ("circle", "diamond-open", "square-open", "x-thin-open")


def model_scatter(result: ModelResult, theme: Theme = LIGHT) -> go.Figure:
    """Every method on the whole model: what it leaves, against every bit that it really costs."""
    metric, table = result.metric, finite_rows(result.methods, result.metric)
    fig = figure(_model_title(result), theme=theme, x=TRUE_BITS_BOUND, y=metric_axis(metric))
    marks = [
        Mark(
            str(row.method),
            family(str(row.method)),
            float(row.bits),
            float(getattr(row, metric)),
            float(row.bound),
            bool(row.ours),
            f"{row.seconds:.3g} s to quantize",
        )
        for row in table.itertuples()
    ]
    return quality_and_bits(
        fig, marks, result.full.get(metric, math.nan), result.higher, _families(result), theme, joined=True
    )


def model_metrics(result: ModelResult, theme: Theme = LIGHT) -> go.Figure:
    """Every method by name, best first, with all that was measured of it."""
    names = [name for name in result.full if name in result.methods]
    table = finite_rows(result.methods, result.metric)
    if not len(table):
        return figure(f"No method has a finite {METRICS.get(result.metric, result.metric)}", theme=theme)
    table = table.sort_values(result.metric, ascending=not result.higher, kind="stable")
    shown = {name: METRICS.get(name, name) for name in names}
    best = {name: _best(table, name, result.higher) for name in ("cosine", "recall_1") if name in names}
    if len(best) == 2 and len(set(best.values())) == 1:
        title = f"{best['cosine']} comes closest to full precision, and finds most"
    elif len(best) == 2:
        title = f"{best['cosine']} comes closest to full precision; {best['recall_1']} finds most"
    else:
        value = table.iloc[0][result.metric]
        title = f"Of {len(table)} methods {table.iloc[0]['method']} has the best {shown[result.metric]}, {short(value)}"
    axis = "share, or correlation" if len(names) > 1 else metric_axis(result.metric)
    fig = figure(title, theme=theme, x=axis, height=150 + 24 * (len(table) + 1))
    rows = ["full precision", *(str(name) for name in table["method"])]
    ours = [False, *(family(name) in _families(result) for name in table["method"])]
    looks = list(zip(names, SYMBOLS, strict=False))
    for name, symbol in looks:
        values = np.array([result.full[name], *table[name]], dtype=np.float32)
        color = [theme.accent if each else theme.baselines[0] for each in ours]
        color[0] = theme.truth
        fig.add_trace(
            go.Scatter(
                x=values,
                y=rows,
                name=shown[name].partition(" to ")[0],
                mode="markers",
                marker={"symbol": symbol, "size": 10, "color": color, "line": {"width": 2, "color": color}},
                hovertemplate="%{y}: " + shown[name] + " %{x:.3f}<extra></extra>",
            )
        )
    named_rows(fig, rows, ours, [32.0, *table["bits"]], theme)
    if result.higher:
        fig.update_xaxes(rangemode="tozero")
    else:
        fig.update_xaxes(type="log", **log_ticks([result.full[result.metric], *table[result.metric]]))
    if len(looks) > 1:
        fig.update_layout(showlegend=True, legend={"y": -90 / (fig.layout.height - 96)}, height=fig.layout.height + 70)
    return fig


def model_blocks(result: ModelResult, theme: Theme = LIGHT) -> go.Figure:
    """How the error grows from block to block, where each block sees what the blocks before it left."""
    table = finite_rows(result.blocks, "error")
    if not len(table):
        return figure("No block's error is finite", theme=theme)
    lines = {str(name): part.sort_values("block") for name, part in table.groupby("method", sort=False)}
    ours = [name for name, part in lines.items() if part["ours"].any()]
    title = "The error of the paper's method is not finite"
    if ours:
        errors = lines[ours[0]]["error"].to_numpy()
        others = [float(part["error"].iloc[-1]) for name, part in lines.items() if name not in ours]
        title = f"{ours[0]}: an error of {errors[0]:.1%} of the first block's output and {errors[-1]:.1%} of the last one's; "
        title += f"{sum(end < errors[-1] for end in others)} of {len(others)} other methods have less there"
    fig = figure(title, theme=theme, x="block", y="error, share of the block's output (logarithmic)")
    for name, part in sorted(lines.items(), key=lambda line: line[0] in ours):
        mine = name in ours
        line = {"color": theme.accent if mine else theme.baselines[2], "width": 3 if mine else 1.3}
        fig.add_trace(
            go.Scatter(
                x=part["block"],
                y=part["error"].astype(np.float32),
                name=name,
                mode="lines+markers",
                line=line,
                marker={"size": 8 if mine else 5},
                hovertemplate=name + ", block %{x}: %{y:.2%}<extra></extra>",
            )
        )
    ends = {name: float(part["error"].iloc[-1]) for name, part in lines.items()}
    by_error = sorted(ends, key=lambda name: ends[name])
    wanted = [*ours, by_error[0], by_error[-1], *by_error]
    low, high = max(float(table["error"].min()), 1e-6) / 1.3, max(float(table["error"].max()), 1e-6) * 1.4
    last = int(table["block"].max())
    per_pixel = math.log10(high / low) / NARROW[1]
    placed: list[float] = []
    for name in dict.fromkeys(wanted):
        place = math.log10(max(ends[name], 1e-6))
        if all(abs(place - other) > 17 * per_pixel for other in placed):
            placed.append(place)
            end_label(fig, last, place, name, theme.accent if name in ours else theme.muted)
    fig.update_annotations(font_size=13, xshift=9)
    fig.update_yaxes(
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=LOST,
        ticktext=percents(LOST),
    )
    fig.update_xaxes(tickvals=list(range(1, last + 1)), range=[0.8, last + 0.1])
    fig.update_layout(margin_r=138)
    return fig


def _families(result: ModelResult) -> set[str]:
    """The methods that the result is about."""
    table = result.methods
    return {family(str(name)) for name in table.loc[table["ours"] == 1, "method"]} if len(table) else set()


def _best(table: pd.DataFrame, metric: str, higher: bool) -> str:
    order = table.sort_values(metric, ascending=not higher, kind="stable")
    return str(order.iloc[0]["method"]) if len(order) else ""


def _model_title(result: ModelResult) -> str:
    """What ours keeps at its cost, and whether anything that costs no more keeps as much."""
    table, metric = result.methods, result.metric
    ours = table[table["ours"] == 1] if len(table) else table
    if not len(ours):
        return f"{result.subject}: nothing is quantized yet"
    one = ours.iloc[0]
    name, value, full = METRICS.get(metric, metric), float(one[metric]), result.full.get(metric, math.nan)
    head = f"{one['method']} at {one['bits']:.2f} true bits: "
    if not math.isfinite(value):
        return head + f"no finite {name}"
    against = "" if metric == "cosine" else f" (full precision {short(full)})"
    cheap = finite_rows(table[(table["bits"] <= one["bits"]) & (table["ours"] == 0)], metric)
    best = cheap.sort_values(metric, ascending=not result.higher).head(1)
    if not len(best) or (float(best[metric].iloc[0]) - value) * (1 if result.higher else -1) <= 0:
        return head + f"{name} {short(value)}{against}; no method shown does better with as few bits"
    better = best.iloc[0]
    return (
        head
        + f"{name} {short(value)}{against}; {better['method']} has {short(better[metric])} with {better['bits']:.2f}"
    )
