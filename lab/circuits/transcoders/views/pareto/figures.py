"""Pictures of a coder in training: where it stands between sparse and faithful, its loss, its features that fell silent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from lab.circuits.transcoders.coders.matched_sparsity import FLOOR, read_off
from lab.circuits.transcoders.views.pareto.experiment import ParetoResult
from lab.plot import LIGHT, Theme, figure

NAMES = {"transcoder": "transcoders", "sae": "autoencoders"}
SYMBOLS = {"transcoder": "circle", "sae": "square", "topk": "diamond", "skip": "triangle-up"}
COLUMN = re.compile(r"(transcoder|sae)_(\d+)_l0")
Row = Mapping[str, float]
Measure = Literal["added", "kl"]


def pareto_scatter(
    result: ParetoResult, theme: Theme = LIGHT, *, measure: Measure = "added", seeds: Sequence[Row] = ()
) -> go.Figure:
    """Active features against what is lost, both logarithmic: the lab's coders, neurons, ablations, and this coder's way.

    What lies below FLOOR, even below zero, is drawn there; the pointer says what it is.

    measure  "added": loss on the next token; "kl": divergence from the model's own prediction, which is much less noisy
    seeds    rows of a recorded sweep, with columns `KIND_PLACE_l0` and `KIND_PLACE_added` or `_kl`: drawn faint behind
    """
    unit = {"added": "added loss (nats a token)", "kl": "KL from the model (nats a token)"}[measure]
    fig = figure(pareto_title(result, measure), theme=theme, x="L0: active on a token", y=unit, height=460)
    colors = {"transcoder": theme.accent, "sae": theme.baselines[0]}
    for kind, color in colors.items():
        l0, lost = seed_points(seeds, kind, measure)
        if l0:
            fig.add_trace(
                go.Scatter(
                    x=l0,
                    y=_floored(lost),
                    mode="markers",
                    name=f"{NAMES[kind]}, ledger's seeds",
                    hoverinfo="skip",
                    showlegend=False,
                    marker={"size": 8, "color": color, "opacity": 0.25, "symbol": SYMBOLS[kind]},
                )
            )
    fig.add_trace(
        go.Scatter(
            x=result.neurons["l0"],
            y=_floored(result.neurons[measure]),
            name="neurons",
            mode="lines+markers",
            line={"color": theme.baselines[1], "dash": "dash", "width": 1.5},
            marker={"size": 6, "symbol": "x-thin-open"},
            error_y=_error(result.neurons, measure),
            customdata=result.neurons[[measure]],
            hovertemplate="%{x:.0f} neurons a token: %{customdata[0]:.2g} nats<extra></extra>",
        )
    )
    for kind in ("sae", "transcoder"):
        own = result.shipped[result.shipped["kind"] == kind].sort_values("l0")
        if len(own):
            fig.add_trace(
                go.Scatter(
                    x=own["l0"],
                    y=_floored(own[measure]),
                    name=NAMES[kind],
                    mode="lines+markers",
                    customdata=own[["lam", "d_sae", measure]],
                    error_y=_error(own, measure),
                    line={"color": colors[kind], "width": 2},
                    marker={"size": 9, "symbol": SYMBOLS[kind]},
                    hovertemplate="λ = %{customdata[0]:g}, %{customdata[1]} features<br>L0 %{x:.1f}: %{customdata[2]:.2g} nats"
                    f"<extra>the lab's {NAMES[kind]}</extra>",
                )
            )
    _way(fig, result, theme, measure)
    levels = {name: result.levels[name if measure == "added" else f"{name}_kl"] for name in ("zero", "mean")}
    _levels(fig, levels, theme)
    every = [*result.neurons["l0"], *result.shipped["l0"], *result.path["l0"], *_all_seeds(seeds, measure)[0]]
    fig.update_xaxes(
        type="log",
        dtick="D2",
        tickformat="~g",
        range=[math.log10(max(min(every), 0.1)) - 0.1, math.log10(max(every)) + 0.1],
    )
    lost = [*result.neurons[measure], *result.shipped[measure], *result.path[measure], *_all_seeds(seeds, measure)[1]]
    low, high = _floored([*lost, *levels.values()]).min(), _floored([*lost, *levels.values()]).max()
    fig.update_yaxes(type="log", dtick=1, tickformat="~g", range=[math.log10(low) - 0.2, math.log10(high) + 0.35])
    fig.update_layout(showlegend=True, margin={"r": 16})
    return fig


def pareto_title(result: ParetoResult, measure: Measure = "added") -> str:
    """Where this coder stands, and what others lose with as many active."""
    if result.path.empty:
        return f"Training a {result.name}: it is measured a few times on its way"
    now = result.path.iloc[-1]
    curves = {name: result.shipped[result.shipped["kind"] == kind] for kind, name in NAMES.items()}
    others = []
    for name, own in ({f"the lab's {name}": own for name, own in curves.items()} | {"neurons": result.neurons}).items():
        own = own[own["l0"] > 0]
        if len(own) and now["l0"] > 0:
            found = float(read_off(list(own["l0"]), list(own[measure]), np.array([now["l0"]]))[0])
            others += [f"{name} {_nats(found)}"] if math.isfinite(found) else []
    when = "" if result.done else f" at step {int(now['step'])}"
    lost = "nats lost" if measure == "added" else "nats from the model"
    says = f"This {_short(result.kind)}{when}: {now['l0']:.1f} active, {_nats(now[measure])} {lost}"
    return f"{says}; with as many active, {', '.join(others)}" if others else says


def loss_curve(result: ParetoResult, theme: Theme = LIGHT) -> go.Figure:
    """What is trained down, error, price of activation and remedy; and what is left unexplained of the output.

    The remedy's term rises where features fall silent while the rate goes to zero: nothing teaches them any more.
    """
    title = "What it is trained down"
    if len(result.loss):
        first, last = result.loss["loss"].iloc[0], result.loss["loss"].iloc[-1]
        title = f"The loss falls from {first:.3g} to {last:.3g}"
        if len(result.path):
            title += f"; {result.path['fvu'].iloc[-1]:.1%} of the output's variance is unexplained"
    fig = figure(title, theme=theme, x="training step", y="loss (no unit)")
    fig.add_trace(
        go.Scatter(
            x=result.loss["step"],
            y=result.loss["loss"],
            name="loss, with the remedy for dead features",
            mode="lines",
            line={"color": theme.accent, "width": 2},
            hovertemplate="step %{x}: %{y:.4g}<extra></extra>",
        )
    )
    fig.add_trace(
        go.Scatter(
            x=result.path["step"],
            y=result.path["fvu"],
            name="unexplained variance, held out",
            mode="lines+markers",
            line={"color": theme.baselines[0], "dash": "dash", "width": 2},
            marker={"size": 7},
            hovertemplate="step %{x}: %{y:.2%} unexplained<extra></extra>",
        )
    )
    fig.update_xaxes(range=[0, result.steps * 1.02])
    fig.update_yaxes(type="log", dtick="D2", tickformat="~g")
    fig.update_layout(showlegend=True)
    return fig


def dead_share(result: ParetoResult, theme: Theme = LIGHT) -> go.Figure:
    """Features that fire on no held-out token, and those that are active, over the training."""
    title = "How many features fall silent"
    if len(result.path):
        now = result.path.iloc[-1]
        title = f"{now['dead']:.1%} of the features never fire on {result.tokens:,} held-out tokens; {now['l0']:.1f} fire at once"
    fig = figure(title, theme=theme, x="training step", y="dead features")
    fig.add_trace(
        go.Scatter(
            x=result.path["step"],
            y=result.path["dead"],
            name="dead",
            mode="lines+markers",
            marker={"size": 9},
            line={"color": theme.accent, "width": 2.5},
            hovertemplate="step %{x}: %{y:.1%} dead<extra></extra>",
        )
    )
    most = max([0.1, *result.path["dead"]])
    for kind, color, end in (("transcoder", theme.baselines[1], "left"), ("sae", theme.baselines[0], "right")):
        own = result.shipped[result.shipped["kind"] == kind]
        if len(own):
            middle = float(own["dead"].median())
            most = max(most, middle)
            fig.add_hline(y=middle, line={"color": color, "width": 1, "dash": "dot"})
            fig.add_annotation(
                x=0 if end == "left" else 1,
                xref="paper",
                xanchor=end,
                y=middle,
                yanchor="bottom",
                showarrow=False,
                text=f"the lab's {NAMES[kind]}, median",
                font={"color": color, "size": 13},
            )
    fig.update_xaxes(range=[0, result.steps * 1.02])
    fig.update_yaxes(tickformat=".0%", range=[-0.02 * most, min(1.2 * most, 1.02)])
    return fig


def seed_points(seeds: Sequence[Row], kind: str, measure: Measure) -> tuple[list[float], list[float]]:
    """L0 and what is lost of every coder of a kind in every row.

    >>> seed_points([{"sae_0_l0": 9.0, "sae_0_added": 0.1, "one": 1.0}], "sae", "added")
    ([9.0], [0.1])
    """
    found = [
        (float(row[name]), float(row[name.removesuffix("l0") + measure]))
        for row in seeds
        for name in row
        if (match := COLUMN.fullmatch(name)) and match[1] == kind
    ]
    return [l0 for l0, _ in found], [lost for _, lost in found]


def _all_seeds(seeds: Sequence[Row], measure: Measure) -> tuple[list[float], list[float]]:
    points = [seed_points(seeds, kind, measure) for kind in NAMES]
    return [l0 for some, _ in points for l0 in some], [lost for _, some in points for lost in some]


def _way(fig: go.Figure, result: ParetoResult, theme: Theme, measure: Measure) -> None:
    """This coder: a point for each time it was measured, the last one large."""
    if result.path.empty:
        return
    before = [1.0] * (len(result.path) - 1)
    fig.add_trace(
        go.Scatter(
            x=result.path["l0"],
            y=_floored(result.path[measure]),
            name=f"this {_short(result.kind)}",
            mode="lines+markers",
            customdata=result.path[["step", "kl", "recovered", measure]].to_numpy(),
            line={"color": theme.accent, "width": 1.5, "dash": "dot"},
            error_y=_error(result.path, measure),
            marker={
                "symbol": [*(SYMBOLS[result.kind] for _ in before), "star"],
                "size": [*(7 * one for one in before), 20],
                "color": theme.accent,
                "opacity": 1,
                "line": {"color": theme.ink, "width": [*(0 * one for one in before), 1.5]},
            },
            hovertemplate="step %{customdata[0]}<br>L0 %{x:.1f}: %{customdata[3]:.2g} nats<br>KL %{customdata[1]:.2g}, recovered "
            f"%{{customdata[2]:.1%}}<extra>{result.name}</extra>",
        )
    )


def _levels(fig: go.Figure, levels: Mapping[str, float], theme: Theme) -> None:
    """The MLP at zero and at its mean, named at the left end: the higher one above its line, the other below."""
    names = {"zero": "MLP at zero", "mean": "MLP at its mean"}
    for level, side in zip(sorted(levels, key=lambda name: levels[name]), ("top", "bottom"), strict=True):
        fig.add_hline(y=levels[level], line={"color": theme.muted, "width": 1, "dash": "dot"})
        fig.add_annotation(
            x=0.01,
            xref="paper",
            xanchor="left",
            y=math.log10(max(levels[level], FLOOR)),
            yanchor=side,
            text=f"{names[level]}: {_nats(levels[level])}",
            showarrow=False,
            font={"color": theme.muted, "size": 13},
        )


def _error(table: Any, measure: Measure) -> dict[str, Any] | None:
    """One standard error to both sides of an added loss, no further down than to the floor."""
    if measure != "added":
        return None
    seen = _floored(table["added"])
    return {
        "type": "data",
        "symmetric": False,
        "array": table["error"],
        "thickness": 1,
        "width": 0,
        "arrayminus": np.minimum(table["error"], seen - FLOOR),
    }


def _floored(lost: Iterable[float]) -> np.ndarray:
    """A logarithmic axis needs positive numbers; below FLOOR an added loss is noise."""
    return np.maximum(np.array(list(lost), float), FLOOR)


def _nats(value: float) -> str:
    """A loss in two digits; what is below the noise says so.

    >>> _nats(0.01234), _nats(2e-5), _nats(3.21)
    ('0.012', '< 0.0001', '3.2')
    """
    return f"{value:.2g}" if value > FLOOR * 1.05 else f"< {FLOOR:g}"


def _short(kind: str) -> str:
    return {"transcoder": "transcoder", "sae": "autoencoder", "topk": "topk transcoder", "skip": "skip transcoder"}[
        kind
    ]
