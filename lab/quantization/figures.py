"""Pictures that the three quantization papers share, of a layer, a model, a search and the ledger's seeds: pure functions
from a Result to a figure."""

from __future__ import annotations

import html
import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab import ledger
from lab.plot import LIGHT, Theme, end_label, figure
from lab.quantization.layer_experiment import LayerResult
from lab.quantization.model_experiment import ModelResult
from lab.quantization.search_experiment import SearchResult
from lab.views import Picture, View

if TYPE_CHECKING:
    import pandas as pd

Box = tuple[float, float, float, float]  # left, low, right, high
PARTS = {
    "weights": "the weights' own bits",
    "mask": "the mask",
    "scales": "scales and means",
    "zeros": "zero points",
}
METRICS = {
    "cosine": "cosine to full precision",
    "spearman": "rank correlation",
    "recall_1": "found first",
    "recall_5": "found in five",
    "perplexity": "perplexity",
}
TRUE_BITS = "true bits a weight"
TRUE_BITS_BOUND = TRUE_BITS + "<br><sup>whisker: the mask at its entropy bound</sup>"
NARROW = (262.0, 330.0)  # pixels of a plot on a phone: labels that fit there fit on anything wider
SYMBOLS = ("circle", "diamond-open", "square-open", "x-thin-open")
MIDDLE = (0.455, 0.545)  # where the ranks of a search stand
LETTER, LINE = 7.2, 15.0  # pixels of a label
LOST = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


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
        for row in _finite(table, "error").itertuples()
        if row.error > 0
    ]
    ours = {mark.family for mark in marks if mark.ours}
    _quality_and_bits(fig, marks, math.nan, False, ours, theme, joined=True)
    return fig.update_yaxes(tickvals=LOST, ticktext=_percent(LOST))


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


def model_scatter(result: ModelResult, theme: Theme = LIGHT) -> go.Figure:
    """Every method on the whole model: what it leaves, against every bit that it really costs."""
    metric, table = result.metric, _finite(result.methods, result.metric)
    fig = figure(_model_title(result), theme=theme, x=TRUE_BITS_BOUND, y=_axis(metric))
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
    return _quality_and_bits(
        fig, marks, result.full.get(metric, math.nan), result.higher, _families(result), theme, joined=True
    )


def model_metrics(result: ModelResult, theme: Theme = LIGHT) -> go.Figure:
    """Every method by name, best first, with all that was measured of it."""
    names = [name for name in result.full if name in result.methods]
    table = _finite(result.methods, result.metric)
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
    axis = "share, or correlation" if len(names) > 1 else _axis(result.metric)
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
    _named_rows(fig, rows, ours, [32.0, *table["bits"]], theme)
    if result.higher:
        fig.update_xaxes(rangemode="tozero")
    else:
        fig.update_xaxes(type="log", **log_ticks([result.full[result.metric], *table[result.metric]]))
    if len(looks) > 1:
        fig.update_layout(showlegend=True, legend={"y": -90 / (fig.layout.height - 96)}, height=fig.layout.height + 70)
    return fig


def _named_rows(fig: go.Figure, rows: Sequence[str], ours: Sequence[bool], bits: Sequence[float], theme: Theme) -> None:
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


def model_blocks(result: ModelResult, theme: Theme = LIGHT) -> go.Figure:
    """How the error grows from block to block, where each block sees what the blocks before it left."""
    table = _finite(result.blocks, "error")
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
        ticktext=_percent(LOST),
    )
    fig.update_xaxes(tickvals=list(range(1, last + 1)), range=[0.8, last + 0.1])
    fig.update_layout(margin_r=138)
    return fig


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


def _quality_and_bits(
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
    span = _padded([scale(value) for value in values], 0.1, 0.06)
    bits = _padded([edge for mark in marks for edge in (mark.bits, mark.bound) if math.isfinite(edge)], 0.05, 0.05)
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


def _axis(metric: str) -> str:
    return METRICS.get(metric, metric) + (" (logarithmic)" if metric == "perplexity" else "")


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


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


def _padded(values: Sequence[float], before: float, after: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    span = high - low or max(abs(high), 1.0)
    return low - before * span, high + after * span


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


def short(value: float) -> str:
    """Three digits, and no powers of ten.

    >>> short(0.12345), short(14664.2)
    ('0.123', '14,664')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.3g}"


def _percent(values: Iterable[float]) -> list[str]:
    return [f"{100 * value:g}%" for value in values]


def _finite(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows whose number is one; a collapsed model's may be NaN or inf."""
    return table[np.isfinite(table[column].to_numpy(dtype=float))] if len(table) else table


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
    cheap = _finite(table[(table["bits"] <= one["bits"]) & (table["ours"] == 0)], metric)
    best = cheap.sort_values(metric, ascending=not result.higher).head(1)
    if not len(best) or (float(best[metric].iloc[0]) - value) * (1 if result.higher else -1) <= 0:
        return head + f"{name} {short(value)}{against}; no method shown does better with as few bits"
    better = best.iloc[0]
    return (
        head
        + f"{name} {short(value)}{against}; {better['method']} has {short(better[metric])} with {better['bits']:.2f}"
    )


VARIANTS: dict[str, str] = {
    "xnor": "one bit, scale a row",
    "rtn": "round to nearest, one scale",
    **{f"rtn_{bits}": f"round to nearest, {bits} bit" for bits in (2, 3, 4, 8)},
    **{f"gptq_{bits}": f"GPTQ, {bits} bit" for bits in (2, 3, 4, 8)},
    **{f"pb_{share}": f"PB-LLM, {share} %" for share in (0, 5, 10, 20, 30)},
    "pb_10_rtn": "PB-LLM, no compensation",
    "pb_10_magnitude": "PB-LLM, by magnitude",
    "pb_10_exact": "PB-LLM, the paper's Hessian",
    "pb_10_groups": "PB-LLM, groups of 128",
    "pb_10_official": "PB-LLM, the code's means",
    "pb_equal": "PB-LLM, 13 %",
    "pb_fewer": "PB-LLM, 4.9 %",
    "billm": "BiLLM",
    "ptq": "PTQ1.61",
    "ptq_start": "PTQ1.61, nothing learned",
    "ptq_no_angle": "PTQ1.61, no angular loss",
    "ptq_hessian": "PTQ1.61, by Hessian",
    "ptq_random": "PTQ1.61, by chance",
    "ptq_wider": "PTQ1.61, 56 % of channels",
    "none": "PTQ1.61, no mask",
    "mask": "PTQ1.61, mask alone",
    "preprocess": "PTQ1.61, only preprocessed",
    "learned": "PTQ1.61, not preprocessed",
    "all": "PTQ1.61, preprocessed",
    "flexround": "FlexRound, one scale",
    **{f"flexround_{bits}": f"FlexRound, {bits} bit" for bits in (3, 4, 8)},
    "adaround": "AdaRound, one scale",
    "adaquant": "AdaQuant, one scale",
    "signround": "SignRound, one scale",
    "no_s1": "FlexRound, fixed step",
    "no_s3": "FlexRound, no row factor",
}  # what the studies' columns begin with; "one scale" is one for a whole layer, else each row has its own


def over_seeds(
    rows: Mapping[str, Sequence[Mapping[str, float]]],
    ours: str = "",
    metric: str = "cosine",
    theme: Theme = LIGHT,
) -> go.Figure:
    """The ledger's replicates of all papers in one picture: mean quality with its 95 % interval, against true bits.

    rows: by study, the named numbers of each seed as `comparison.columns` gives them, `NAME_bits`, `NAME_bound` and
    `NAME_METRIC`; a setting that two studies measured counts once. ours: the method in the accent, "PB-LLM". ValueError
    where no study has such numbers.
    """
    higher = metric != "perplexity"
    marks = seed_marks(rows, metric)
    if not marks:
        raise ValueError(f"rows holds no setting with {metric} and bits")
    seeds = {len(replicates) for replicates in rows.values()}
    number = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    front = [mark.family for mark in pareto(marks, higher)]
    title = f"Of {len(front)} settings that none beats with as few bits, {ours} has {front.count(ours)} "
    if not ours:
        title = f"{len(front)} of {len(marks)} settings are beaten by none with as few bits "
    title += f"(means of {number} seeds)"
    fig = figure(title, theme=theme, x=TRUE_BITS_BOUND, y=_axis(metric), height=480)
    full = [row[f"full_{metric}"] for replicates in rows.values() for row in replicates if f"full_{metric}" in row]
    level = float(np.mean(full)) if full else math.nan
    return _quality_and_bits(fig, marks, level, higher, {ours}, theme, joined=False)


def seeds_by_name(
    rows: Mapping[str, Sequence[Mapping[str, float]]],
    ours: str = "",
    metric: str = "cosine",
    theme: Theme = LIGHT,
) -> go.Figure:
    """The same settings by name, best first, with their intervals; arguments and errors as `over_seeds`."""
    higher = metric != "perplexity"
    marks = sorted(seed_marks(rows, metric), key=lambda mark: -mark.value if higher else mark.value)
    if not marks:
        raise ValueError(f"rows holds no setting with {metric} and bits")
    place = next((place for place, mark in enumerate(marks, start=1) if mark.family == ours), 0)
    title = f"Best {METRICS[metric]} of {len(marks)} settings: {marks[0].name}, {short(marks[0].value)}"
    if place > 1:
        title += f"; the best of {ours} is number {place}, {short(marks[place - 1].value)}"
    axis = _axis(metric) + "<br><sup>bars: 95 % intervals</sup>"
    fig = figure(title, theme=theme, height=110 + 25 * len(marks), x=axis)
    names = [mark.name for mark in marks]
    for mine in (False, True):
        part = [place for place, mark in enumerate(marks) if (mark.family == ours) is mine]
        up, down = (
            [abs(edge - marks[place].value) if math.isfinite(edge) else 0.0 for place, edge in ends]
            for ends in ([(place, marks[place].high) for place in part], [(place, marks[place].low) for place in part])
        )
        shade = theme.accent if mine else theme.baselines[0]
        bars = {"type": "data", "array": up, "arrayminus": down, "thickness": 1.5, "width": 5, "color": shade}
        fig.add_trace(
            go.Scatter(
                x=[marks[place].value for place in part],
                y=[names[place] for place in part],
                mode="markers",
                marker={"color": shade, "size": 9},
                error_x=bars,
                name=ours if mine else "others",
                hovertemplate="%{y}: %{x:.3g}<extra></extra>",
            )
        )
    _named_rows(fig, names, [mark.family == ours for mark in marks], [mark.bits for mark in marks], theme)
    if not higher:
        fig.update_xaxes(type="log", **log_ticks([mark.value for mark in marks]))
    return fig


def seed_marks(rows: Mapping[str, Sequence[Mapping[str, float]]], metric: str) -> list[Mark]:
    """The mean of every setting over its seeds, with its 95 % interval; perplexities are averaged in logarithms."""
    found: dict[str, Mark] = {}
    for replicates in rows.values():
        for name, label in VARIANTS.items():
            if label in found or not replicates or not {f"{name}_{metric}", f"{name}_bits"} <= set(replicates[0]):
                continue
            values = np.array([row[f"{name}_{metric}"] for row in replicates], dtype=float)
            logarithmic = metric == "perplexity"
            if not np.isfinite(values).all() or (logarithmic and (values <= 0).any()):
                continue
            parts = ledger.t_interval(list(np.log(values) if logarithmic else values))
            mean, low, high = (math.exp(min(part, 700.0)) if logarithmic else part for part in parts)
            bits, bound = (
                float(np.mean([row.get(f"{name}_{part}", math.nan) for row in replicates]))
                for part in ("bits", "bound")
            )
            note = f"95 % interval {low:.3g} to {high:.3g}, {len(values)} seeds" if len(values) > 1 else "one seed"
            if len(values) < 2:
                low = high = math.nan
            found[label] = Mark(label, family(label), bits, mean, bound, False, note, low, high)
    return list(found.values())


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


PAPERS = ("pb-llm", "ptq1-61", "flexround")
STUDIES = {"MiniLM": ("minilm", "cosine"), "stdlib-gpt": ("gpt", "perplexity")}  # by a result's subject: study, metric


def replicates(study: str, metric: str) -> dict[str, list[dict[str, float]]]:
    """The shipped rows of a study of all three papers, those that have the metric; a paper without a record is left out."""
    rows = {slug: ledger.rows(slug, study) for slug in PAPERS}
    return {slug: some for slug, some in rows.items() if some and any(name.endswith(f"_{metric}") for name in some[0])}


def model_view(paper: str) -> View:
    """A whole model: one run, and the ledger's seeds of all three papers, as no knob moves them; `paper` is the accent."""

    def has_seeds(result: ModelResult) -> bool:
        return result.subject in STUDIES and bool(replicates(*STUDIES[result.subject]))

    def by_bits(result: ModelResult, theme: Theme = LIGHT) -> go.Figure:
        study, metric = STUDIES[result.subject]
        return over_seeds(replicates(study, metric), paper, metric, theme=theme)

    def by_name(result: ModelResult, theme: Theme = LIGHT) -> go.Figure:
        study, metric = STUDIES[result.subject]
        return seeds_by_name(replicates(study, metric), paper, metric, theme=theme)

    return View(
        "model",
        "Model",
        {
            "Quality and bits": model_scatter,
            "By name": model_metrics,
            "Block by block": model_blocks,
            "Over seeds": Picture(by_bits, when=has_seeds),
            "Seeds by name": Picture(by_name, when=has_seeds),
        },
    )


_LAYER_PICTURES = {
    "Loss and bits": layer_peers,
    "The weights": layer_maps,
    "The bill": layer_bill,
    "Channels": layer_columns,
    "Histogram": layer_histogram,
}
LAYER = View("layer", "Layer", _LAYER_PICTURES)
MATRIX = View("matrix", "Matrix", _LAYER_PICTURES)
SEARCH = View(
    "search",
    "Search",
    {
        "Found": Picture(search_top, presented={"letters": 46, "lines": 2, "size": 15}),
        "All documents": search_scatter,
    },
)
