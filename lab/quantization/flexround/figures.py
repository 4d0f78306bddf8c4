"""The room's pictures: pure functions from a Result to a plotly figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab import ledger
from lab.plot import LIGHT, Theme, end_label, figure, hues, playable
from lab.quantization.figures import (
    LAYER,
    MATRIX,
    SEARCH,
    layer_bill,
    layer_columns,
    layer_histogram,
    layer_maps,
    layer_peers,
    model_blocks,
    model_metrics,
    model_scatter,
    model_view,
    over_seeds,
    search_scatter,
    search_top,
    seeds_by_name,
)
from lab.quantization.flexround.digits_experiment import TITLES as DIGITS_TITLES
from lab.quantization.flexround.digits_experiment import DigitsResult
from lab.quantization.flexround.rounding_experiment import TITLES, RoundingResult
from lab.views import Picture, View

__all__ = [
    "VIEWS",
    "digits_accuracy",
    "digits_error",
    "digits_s4",
    "digits_seeds",
    "rounding_codes",
    "rounding_deciles",
    "rounding_flow",
    "rounding_lens",
    "rounding_race",
    "rounding_scatter",
]
__all__ += [
    "layer_bill",
    "layer_columns",
    "layer_histogram",
    "layer_maps",
    "layer_peers",
    "model_blocks",
    "model_metrics",
    "model_scatter",
    "over_seeds",
    "search_scatter",
    "search_top",
    "seeds_by_name",
]

FRAMES = 24  # of the animation, at most
LOOKS: dict[str, tuple[int, str, str]] = {  # which grey, dash and symbol
    "rtn": (0, "dot", "x"),
    "adaround": (0, "solid", "circle"),
    "adaquant": (1, "dash", "square"),
    "signround": (1, "dashdot", "triangle-up"),
}
SHARES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
AT = 3  # bits of which the digits' titles speak
LEARNS = {"flexround": "d₂", "adaround": "a", "adaquant": "v", "signround": "v"}


def _color(method: str, theme: Theme) -> str:
    """The accent for FlexRound, a grey for the others."""
    return theme.accent if method.startswith("flexround") else theme.baselines[LOOKS[method][0]]


def _line(method: str, theme: Theme) -> dict[str, Any]:
    if method.startswith("flexround"):
        return {"color": theme.accent, "width": 3, "dash": "solid" if method == "flexround" else "dash"}
    return {"color": _color(method, theme), "width": 2, "dash": LOOKS[method][1]}


def _percent(value: float) -> str:
    """
    >>> _percent(0.0051), _percent(0.123), _percent(0.94)
    ('0.51 %', '12.3 %', '94 %')
    """
    return f"{100 * value:.3g} %"


def _points(count: float) -> str:
    return f"{count:g} point" + ("" if count == 1 else "s")


def _log_axis(fig: go.Figure, values: Sequence[float]) -> None:
    """Shares on a logarithmic axis, with 1, 2 and 5 of each decade where it is short."""
    kept = [value for value in values if value > 0]
    low, high = (min(kept), max(kept)) if kept else (0.01, 1.0)
    digits = range(1, 10) if high < 8 * low else (1, 2, 5) if high < 200 * low else (1,)
    ticks = [digit * decade for decade in SHARES for digit in digits]
    fig.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{100 * tick:.4g}%" for tick in ticks])


def rounding_lens(result: RoundingResult, theme: Theme = LIGHT) -> go.Figure:
    """One weight through its fit: above where it stands between the grid's points and which one it gets, below its gradient."""
    place, code, color = result.place, result.code, _color(result.method, theme)
    flips = int((np.diff(code) != 0).sum())
    title = f"The weight {result.weight:.3f} drifts from {place[0]:.2f} to {place[-1]:.2f} grid steps"
    if not flips:
        title += f" and stays on point {int(code[0])}"
    elif code[0] == code[-1]:
        title += f" and is back on point {int(code[0])} after {flips} flips"
    else:
        title += f": from point {int(code[0])} to {int(code[-1])}" + (f", in {flips} flips" if flips > 1 else "")
    steps = np.arange(len(place))
    fig = figure(title.replace("-", "−"), theme=theme, x="optimizer step", y="W / S, in grid steps", height=500)
    low, high = float(min(place.min(), code.min())), float(max(place.max(), code.max()))
    middle, half = (low + high) / 2, max(0.62 * (high - low), 1.0)
    inside = [point for point in range(int(middle - half) - 1, int(middle + half) + 2) if abs(point - middle) <= half]
    points = [point for point in inside if result.low <= point <= result.high]
    for edge in (point + 0.5 for point in points[:-1]) if len(points) < 12 else ():
        fig.add_shape(
            type="line",
            x0=0,
            x1=max(len(place) - 1, 1),
            y0=edge,
            y1=edge,
            layer="below",
            line={"color": theme.muted, "width": 1, "dash": "dot"},
        )
    fig.add_trace(
        go.Scatter(
            x=steps,
            y=code.astype(np.float32),
            name="point it is stored on",
            mode="lines",
            line={"color": theme.truth, "width": 1.6, "shape": "hv"},
            hovertemplate="step %{x}: point %{y}<extra></extra>",
        )
    )
    fig.add_trace(
        go.Scatter(
            x=steps,
            y=place.astype(np.float32),
            name=f"where {result.title} has it",
            mode="lines",
            line={"color": color, "width": 3},
            hovertemplate="step %{x}: %{y:.3f}<extra></extra>",
        )
    )
    fig.add_trace(
        go.Bar(
            x=steps[1:],
            y=result.gradient.astype(np.float32),
            name=f"gradient in {LEARNS[result.method]}",
            yaxis="y2",
            marker={"color": color, "opacity": 0.65, "line": {"width": 0}},
            hovertemplate="step %{x}: %{y:.2e}<extra></extra>",
        )
    )
    below = fig.layout.yaxis.to_plotly_json() | {"title": {"text": "gradient", "standoff": 10}, "nticks": 4}
    below |= {"domain": [0, 0.24], "zeroline": True, "zerolinecolor": theme.grid, "exponentformat": "power"}
    every = max(1, len(points) // 8)
    fig.update_layout(
        showlegend=True,
        yaxis_domain=[0.32, 1],
        xaxis_anchor="y2",
        yaxis2=below,
        bargap=0.15,
        yaxis_tickvals=points[::every],
        yaxis_range=[middle - half, middle + half],
        xaxis_range=[-0.5, max(len(place) - 0.5, 1)],
    )
    return fig


def rounding_flow(result: RoundingResult, theme: Theme = LIGHT) -> go.Figure:
    """Weights drifting and flipping while they are learned; it stands at the end: play, or drag it back.

    Across: W in steps of the first grid. Up: how far W / S is from the point that rounding to nearest gave. Beyond the lines
    at one half a weight gets another point.
    """
    first = result.codes[0].astype(float)
    away = (result.places - first).astype(np.float32)
    flipped = (result.codes != result.codes[0]).astype(np.uint8)
    farthest = int(np.abs(result.codes[-1] - first).max())
    title = f"{result.title}: {_percent(float(flipped[-1].mean()))} of the weights end on another point"
    title += f"; the farthest of these {len(first)} by {_points(farthest)}"
    fig = figure(title, theme=theme, x="W, in steps of the first grid", y="W / S, from its first point (steps)")
    shades = hues(2, theme) | {"cmin": -0.5, "cmax": 1.5}
    stay, flip = theme.baselines[2], _color(result.method, theme)
    shades["colorscale"] = [[0, stay], [0.5, stay], [0.5, flip], [1, flip]]
    drift = np.sort(np.abs(away).max(0))[-3 if len(first) > 3 else -1]  # one huge weight may leave the picture
    reach = float(np.clip(1.1 * drift, 0.75, 3.2))
    for edge in (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5):
        if abs(edge) < reach:
            fig.add_hline(y=edge, line={"color": theme.muted, "width": 1, "dash": "dot"})
    x = result.sizes.astype(np.float32)
    ends = np.quantile(x, [0.003, 0.997]) if len(x) > 10 else np.array([x.min(), x.max()])
    ends += 0.05 * max(float(np.ptp(ends)), 1e-3) * np.array([-1, 1])
    shown = np.unique(np.linspace(0, len(away) - 1, min(FRAMES, len(away))).round().astype(int))
    fig.add_trace(
        go.Scatter(
            x=x,
            y=away[-1],
            mode="markers",
            marker={"size": 6, "color": flipped[-1]} | shades,
            hovertemplate="W %{x:.2f} steps: %{y:.2f} from its first point<extra></extra>",
        )
    )
    fig.frames = [
        go.Frame(name=str(step), data=[go.Scatter(y=away[step], marker={"color": flipped[step]})], traces=[0])
        for step in shown
    ]
    playable(fig, [(str(step), str(step)) for step in shown], "step ", theme)
    fig.layout.sliders[0].update(active=len(shown) - 1, pad={"t": 58})
    fig.layout.updatemenus[0].update(pad={"t": 66})
    fig.update_layout(yaxis_range=[-reach, reach], xaxis_range=ends.tolist(), margin_b=124, height=540)
    fig.update_yaxes(dtick=0.5 if reach < 1.6 else 1, showgrid=False)
    return fig


def rounding_scatter(result: RoundingResult, theme: Theme = LIGHT) -> go.Figure:
    """|W| against the grid points that a weight moved; dots of one move are spread a little, so that all are seen."""
    size, move = result.scatter_size, result.scatter_move
    tenth = max(len(size) // 10, 1)
    small, large = (float((move[part] != 0).mean()) for part in (slice(None, tenth), slice(-tenth, None)))
    title = f"{result.title} moves {_percent(large)} of the largest tenth and {_percent(small)} of the smallest"
    title += f"; farthest by {_points(int(np.abs(move).max()))}"
    fig = figure(
        title, theme=theme, x="|W| (no unit, logarithmic; the smallest stand at the edge)", y="grid points moved"
    )
    edge = max(float(size.max()) / 1000, 1e-9)
    spread = 0.5 * (np.arange(len(move)) * 0.6180339887 % 1 - 0.5)  # evenly, in no order
    for name, chosen, color in (
        ("stayed", move == 0, theme.baselines[2]),
        ("moved", move != 0, _color(result.method, theme)),
    ):
        fig.add_trace(
            go.Scatter(
                x=np.maximum(size[chosen], edge).astype(np.float32),
                y=(move + spread)[chosen].astype(np.float32),
                mode="markers",
                name=name,
                marker={"size": 5, "color": color, "opacity": 0.7},
                customdata=move[chosen],
                hovertemplate="|W| %{x:.4f}: %{customdata} points<extra></extra>",
            )
        )
    reach = max(int(np.abs(move).max()), 1)
    fig.update_xaxes(type="log", tickvals=[10.0**power for power in range(-6, 4)], tickformat="~g")
    fig.update_yaxes(dtick=max(1, reach // 4), range=[-reach - 0.5, reach + 0.5])
    fig.update_layout(showlegend=True)
    return fig


def rounding_deciles(result: RoundingResult, theme: Theme = LIGHT) -> go.Figure:
    """How far weights went, tenth by tenth of their size: the chosen method, and AdaRound (or FlexRound beside AdaRound)."""
    other = "flexround" if result.method == "adaround" else "adaround"
    parts = {key: result.deciles[result.deciles["method"] == key] for key in (result.method, other)}
    ours, theirs = parts.values()
    large, far = float(ours["mean"].iloc[-1]), float(ours["far"].max())
    title = f"The largest tenth moves {large:.2f} points on average by {TITLES[result.method]}, "
    title += f"{float(theirs['mean'].iloc[-1]):.2f} by {TITLES[other]}; "
    title += f"{_percent(float(ours['far'].mean()))} of all go two points or more" if far else "none goes two points"
    fig = figure(title, theme=theme, x="tenth of the weights, smallest first", y="points moved (mean)", height=480)
    for key, part in parts.items():
        marker = {"color": _color(key, theme), "opacity": 0.9}
        hover = TITLES[key] + ", tenth %{x}: %{y:.3f} points<extra></extra>"
        fig.add_trace(go.Bar(x=part["decile"], y=part["mean"], name=TITLES[key], marker=marker, hovertemplate=hover))
    fig.update_layout(showlegend=True, bargap=0.25)
    most = max(float(part["far"].max()) for part in parts.values())
    if most:
        for key, part in parts.items():
            hover = TITLES[key] + ", tenth %{x}: %{y:.2%} two points or more<extra></extra>"
            marker = {"color": _color(key, theme), "opacity": 0.9}
            far_trace = {"x": part["decile"], "y": part["far"], "name": TITLES[key], "marker": marker, "yaxis": "y2"}
            fig.add_trace(go.Bar(**far_trace, hovertemplate=hover, showlegend=False))
        below = fig.layout.yaxis.to_plotly_json() | {"title": {"text": "goes ≥ 2", "standoff": 10}, "nticks": 4}
        below |= {"domain": [0, 0.3], "tickformat": "~%", "range": [0, 1.15 * most]}
        fig.update_layout(yaxis_domain=[0.4, 1], xaxis_anchor="y2", yaxis2=below)
    fig.update_xaxes(dtick=1, showgrid=False)
    return fig


def rounding_codes(result: RoundingResult, theme: Theme = LIGHT) -> go.Figure:
    """How many weights stand on each point of the grid, by rounding to nearest and in the end."""
    before, after = (counts / counts.sum() for counts in (result.before, result.after))
    zero = int(np.flatnonzero(result.points == 0)[0])
    used, once = int((after > 0).sum()), int((before > 0).sum())
    title = f"{_percent(float(after[zero]))} of the weights are stored as 0, {_percent(float(before[zero]))} before; "
    title += f"{used} of {len(after)} points are used, {once} before"
    fig = figure(title, theme=theme, x="point of the grid, 0 is the weight 0", y="weights (count, logarithmic)")
    color = _color(result.method, theme)
    fig.add_trace(
        go.Bar(
            x=result.points,
            y=result.after,
            name=f"{result.title}, in the end",
            marker={"color": color, "line": {"width": 0}},
            hovertemplate="point %{x}: %{y} weights<extra></extra>",
        )
    )
    marker = {
        "symbol": "line-ew-open",
        "size": 18 if len(after) <= 32 else 5,
        "color": theme.truth,
        "line": {"width": 3},
    }
    fig.add_trace(
        go.Scatter(
            x=result.points,
            y=np.where(result.before > 0, result.before, np.nan).astype(np.float32),
            mode="markers",
            name="rounded to nearest",
            marker=marker,
            hovertemplate="point %{x}: %{y} weights before<extra></extra>",
        )
    )
    fig.update_layout(showlegend=True, bargap=0.2 if len(after) <= 32 else 0, xaxis_showgrid=False)
    fig.update_yaxes(type="log", dtick=1)
    if len(after) <= 32:
        fig.update_xaxes(dtick=1 if len(after) <= 16 else 2)
    return fig


def rounding_race(result: RoundingResult, theme: Theme = LIGHT) -> go.Figure:
    """What the layer's output has lost after each step, by every method, rounded as it would be stored there and then."""
    table = result.methods.set_index("method")["error"]
    steps = int(result.race["step"].max())
    best, ours = str(table.idxmin()), float(table["flexround"])
    title = f"After {steps} steps FlexRound has lost {_percent(ours)} of the output, "
    title += f"round to nearest {_percent(float(table['rtn']))}"
    if best != "flexround" and table[best] < ours:
        title += f"; {TITLES[best]} has lost least, {_percent(float(table[best]))}"
    elif steps:
        title += "; no method shown has lost less"
    fig = figure(title, theme=theme, x="optimizer step", y="share of the output lost (logarithmic)")
    for key in (*LOOKS, "flexround"):
        part = result.race[result.race["method"] == key]
        fig.add_trace(
            go.Scatter(
                x=part["step"],
                y=part["error"].to_numpy(np.float32),
                name=TITLES[key],
                mode="lines",
                line=_line(key, theme),
                hovertemplate=TITLES[key] + ", step %{x}: %{y:.2%} lost<extra></extra>",
            )
        )
    _log_axis(fig, list(result.race["error"]))
    fig.update_layout(showlegend=True)
    return fig


def _by_bits(result: DigitsResult, column: str, title: str, y: str, theme: Theme) -> go.Figure:
    fig = figure(
        title, theme=theme, x="bits of a weight<br><sup>one grid a layer; rates tuned at 3 and 4</sup>", y=y, height=480
    )
    for key in (*LOOKS, "flexround_no_s4", "flexround"):
        part = result.scores[result.scores["method"] == key]
        name = DIGITS_TITLES[key]
        symbol = LOOKS[key][2] if key in LOOKS else "circle" if key == "flexround" else "circle-open"
        fig.add_trace(
            go.Scatter(
                x=part["bits"],
                y=part[column].to_numpy(np.float32),
                name=name,
                mode="lines+markers",
                line=_line(key, theme),
                marker={"symbol": symbol, "size": 9},
                hovertemplate=name + ", %{x} bits: %{y:.2%}<extra></extra>",
            )
        )
    fig.update_layout(showlegend=True, legend={"y": -0.36, "yanchor": "top"}, margin_b=190)  # six lines on a phone
    fig.update_xaxes(dtick=1)
    return fig


def _at(result: DigitsResult, column: str, bits: int = AT) -> pd.Series:
    part = result.scores[result.scores["bits"] == bits]
    return part.set_index("method")[column]


def digits_accuracy(result: DigitsResult, theme: Theme = LIGHT) -> go.Figure:
    """Accuracy of the network on digits that it never saw, by method and bits."""
    table = _at(result, "accuracy")
    others = table.drop(["flexround", "flexround_no_s4", "rtn"])
    title = f"At {AT} bits FlexRound names {_percent(float(table['flexround']))} of {result.n_test} digits right, "
    title += f"{DIGITS_TITLES[str(others.idxmax())]} {_percent(float(others.max()))}, "
    title += f"round to nearest {_percent(float(table['rtn']))}"
    fig = _by_bits(result, "accuracy", title, "digits named right", theme)
    fig.add_hline(y=result.full, line={"color": theme.truth, "width": 1.5, "dash": "dash"})
    fig.add_annotation(
        x=1,
        xref="x domain",
        y=result.full,
        text="full precision",
        showarrow=False,
        xanchor="right",
        yanchor="bottom",
        font={"color": theme.truth, "size": 13},
    )
    fig.update_yaxes(tickformat=".0%", range=[0, 1.06])
    return fig


def digits_error(result: DigitsResult, theme: Theme = LIGHT) -> go.Figure:
    """What the network's output loses, by method and bits."""
    wins = {
        bits: str(_at(result, "error", int(bits)).idxmin()).startswith("flexround")
        for bits in sorted(set(result.scores["bits"]))
    }
    title = f"FlexRound, with s₄ or without, loses least at {sum(wins.values())} of {len(wins)} numbers of bits; "
    title += f"at {AT} bits {_percent(float(_at(result, 'error')['flexround']))} of the output"
    fig = _by_bits(result, "error", title, "output lost (logarithmic)", theme)
    _log_axis(fig, list(result.scores["error"]))
    return fig


def digits_s4(result: DigitsResult, theme: Theme = LIGHT) -> go.Figure:
    """What a factor for each input channel does: above the error with it over that without, below the factors learned.

    The channel whose weights had to become smaller because the one before was made huge is marked.
    """
    ratios = {
        int(bits): float(part["flexround"] / part["flexround_no_s4"])
        for bits, part in ((bits, _at(result, "error", int(bits))) for bits in sorted(set(result.scores["bits"])))
        if part["flexround_no_s4"] > 0
    }
    better = sum(ratio < 1 for ratio in ratios.values())
    accuracy = _at(result, "accuracy")
    gain = 100 * float(accuracy["flexround"] - accuracy["flexround_no_s4"])
    title = f"With s₄ less of the output is lost at {better} of {len(ratios)} numbers of bits; "
    title += f"at {AT} bits the accuracy changes by {gain:+.1f} points"
    fig = figure(title, theme=theme, x="bits of a weight", y="error, with over without", height=560)
    color = [theme.accent if ratio < 1 else theme.baselines[1] for ratio in ratios.values()]
    fig.add_trace(
        go.Bar(
            x=list(ratios),
            y=[ratio - 1 for ratio in ratios.values()],
            base=1,
            marker={"color": color},
            width=0.6,
            customdata=list(ratios.values()),
            hovertemplate="%{x} bits: %{customdata:.2f} times<extra></extra>",
        )
    )
    fig.add_shape(type="line", x0=0, x1=1, xref="x domain", y0=1, y1=1, line={"color": theme.truth, "width": 1})
    part = result.s4[result.s4["bits"] == AT].sort_values("size")
    names = [f"{channel}" for channel in part["channel"]]
    marks = (
        [theme.accent, *[theme.baselines[1]] * (len(part) - 1)] if result.huge > 1 else [theme.baselines[1]] * len(part)
    )
    fig.add_trace(
        go.Scatter(
            x=names,
            y=part["factor"].to_numpy(np.float32),
            mode="markers",
            xaxis="x2",
            yaxis="y2",
            marker={"color": marks, "size": 11},
            customdata=part["size"],
            hovertemplate="channel %{x}, largest weight %{customdata:.3f}: divided by %{y:.3f}<extra></extra>",
        )
    )
    bare = {"type": "category", "domain": [0, 1], "anchor": "y2", "showgrid": False}
    across = fig.layout.xaxis.to_plotly_json() | bare
    text = f"input channel, smallest weights first ({AT} bits)"
    if result.huge > 1:
        text += f"<br><sup>in colour: reads the channel that is {result.huge:g} times larger</sup>"
    across["title"] = {"text": text, "standoff": 8}
    up = fig.layout.yaxis.to_plotly_json() | {"title": {"text": "s₄ learned"}, "domain": [0, 0.36], "anchor": "x2"}
    fig.update_layout(xaxis2=across, yaxis2=up, yaxis_domain=[0.6, 1], xaxis_anchor="y")
    fig.update_layout(xaxis={"dtick": 1, "showgrid": False})
    return fig


def digits_seeds(rows: Sequence[Mapping[str, float]], bits: int = AT, theme: Theme = LIGHT) -> go.Figure:
    """Every replicate of study `digits` as a dot, the mean as a stroke, a row a method.

    rows: one mapping a seed, `METHOD_BITS_accuracy` in percent; bits: 2, 3 or 4.
    """
    table = pd.DataFrame({name: [row[f"{key}_{bits}_accuracy"] for row in rows] for key, name in DIGITS_TITLES.items()})
    means = table.mean()
    title = f"Mean of {len(rows)} trainings at {bits} bits: FlexRound {means[DIGITS_TITLES['flexround']]:.1f} %, "
    others = means.drop([DIGITS_TITLES["flexround"], DIGITS_TITLES["flexround_no_s4"]])
    title += (
        f"without s₄ {means[DIGITS_TITLES['flexround_no_s4']]:.1f} %, best other {others.idxmax()} {others.max():.1f} %"
    )
    fig = figure(title, theme=theme, x="digits named right (%), a dot a training", height=420)
    colors = [_color(key, theme) for key in DIGITS_TITLES]
    for place, (name, color) in enumerate(zip(table, colors, strict=True)):
        heights = place + np.linspace(-0.22, 0.22, len(table))
        marker = {"color": color, "size": 7, "opacity": 0.55}
        fig.add_trace(go.Scatter(x=table[name], y=heights, mode="markers", marker=marker, name=str(name)))
    stroke = {"symbol": "line-ns-open", "size": 22, "color": colors, "line": {"width": 3}}
    fig.add_trace(go.Scatter(x=means, y=np.arange(len(means)), mode="markers", marker=stroke, name="mean"))
    full = float(np.mean([row["full_accuracy"] for row in rows]))
    fig.add_vline(x=full, line={"color": theme.truth, "width": 1.5, "dash": "dash"})
    end_label(fig, full, -0.6, "full precision", theme.truth)
    fig.update_annotations(xanchor="right", xshift=-6, font_size=13)
    fig.update_yaxes(
        tickvals=np.arange(len(table.columns)), ticktext=list(table.columns), range=[len(means) - 0.4, -0.9]
    )
    fig.update_yaxes(showgrid=False)
    return fig


def _seeds() -> list[dict[str, float]]:
    """The ledger's seeds of the network for digits; no knob moves them."""
    return ledger.rows("flexround", "digits")


VIEWS = (
    LAYER,
    View(
        "rounding",
        "Rounding",
        {
            "One weight": rounding_lens,
            "All weights": rounding_flow,
            "Who moves": rounding_scatter,
            "By size": rounding_deciles,
            "Points": rounding_codes,
            "Race": rounding_race,
        },
    ),
    model_view("FlexRound"),
    View(
        "digits",
        "Digits",
        {
            "Accuracy": digits_accuracy,
            "Error": digits_error,
            "Channel factors": digits_s4,
            "Over seeds": Picture(digits_seeds, rows=_seeds),
        },
    ),
    SEARCH,
    MATRIX,
)
