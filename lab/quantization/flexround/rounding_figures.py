"""Pictures of rounding while it is learned: one weight, all weights, who moves how far, and what the output loses."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from lab.plot import LIGHT, Theme, figure, hues, playable
from lab.quantization.flexround.method_figures import LOOKS, log_shares, method_color, method_line, percent
from lab.quantization.flexround.rounding_experiment import TITLES, RoundingResult

FRAMES = 24  # of the animation, at most
LEARNS = {"flexround": "d₂", "adaround": "a", "adaquant": "v", "signround": "v"}


def _points(count: float) -> str:
    return f"{count:g} point" + ("" if count == 1 else "s")


def rounding_lens(result: RoundingResult, theme: Theme = LIGHT) -> go.Figure:
    """One weight through its fit: above where it stands between the grid's points and which one it gets, below its gradient."""
    place, code, color = result.place, result.code, method_color(result.method, theme)
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
    title = f"{result.title}: {percent(float(flipped[-1].mean()))} of the weights end on another point"
    title += f"; the farthest of these {len(first)} by {_points(farthest)}"
    fig = figure(title, theme=theme, x="W, in steps of the first grid", y="W / S, from its first point (steps)")
    shades = hues(2, theme) | {"cmin": -0.5, "cmax": 1.5}
    stay, flip = theme.baselines[2], method_color(result.method, theme)
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
    title = f"{result.title} moves {percent(large)} of the largest tenth and {percent(small)} of the smallest"
    title += f"; farthest by {_points(int(np.abs(move).max()))}"
    fig = figure(
        title, theme=theme, x="|W| (no unit, logarithmic; the smallest stand at the edge)", y="grid points moved"
    )
    edge = max(float(size.max()) / 1000, 1e-9)
    spread = 0.5 * (np.arange(len(move)) * 0.6180339887 % 1 - 0.5)  # evenly, in no order
    for name, chosen, color in (
        ("stayed", move == 0, theme.baselines[2]),
        ("moved", move != 0, method_color(result.method, theme)),
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
    title += f"{percent(float(ours['far'].mean()))} of all go two points or more" if far else "none goes two points"
    fig = figure(title, theme=theme, x="tenth of the weights, smallest first", y="points moved (mean)", height=480)
    for key, part in parts.items():
        marker = {"color": method_color(key, theme), "opacity": 0.9}
        hover = TITLES[key] + ", tenth %{x}: %{y:.3f} points<extra></extra>"
        fig.add_trace(go.Bar(x=part["decile"], y=part["mean"], name=TITLES[key], marker=marker, hovertemplate=hover))
    fig.update_layout(showlegend=True, bargap=0.25)
    most = max(float(part["far"].max()) for part in parts.values())
    if most:
        for key, part in parts.items():
            hover = TITLES[key] + ", tenth %{x}: %{y:.2%} two points or more<extra></extra>"
            marker = {"color": method_color(key, theme), "opacity": 0.9}
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
    title = f"{percent(float(after[zero]))} of the weights are stored as 0, {percent(float(before[zero]))} before; "
    title += f"{used} of {len(after)} points are used, {once} before"
    fig = figure(title, theme=theme, x="point of the grid, 0 is the weight 0", y="weights (count, logarithmic)")
    color = method_color(result.method, theme)
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
    title = f"After {steps} steps FlexRound has lost {percent(ours)} of the output, "
    title += f"round to nearest {percent(float(table['rtn']))}"
    if best != "flexround" and table[best] < ours:
        title += f"; {TITLES[best]} has lost least, {percent(float(table[best]))}"
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
                line=method_line(key, theme),
                hovertemplate=TITLES[key] + ", step %{x}: %{y:.2%} lost<extra></extra>",
            )
        )
    log_shares(fig, list(result.race["error"]))
    fig.update_layout(showlegend=True)
    return fig
