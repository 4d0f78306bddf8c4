"""The room's pictures: pure functions from a Result to a plotly figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.plot import LIGHT, Theme, figure
from lab.quantization.axis_figures import end_labels, log_ticks, short
from lab.quantization.figures import LAYER, MATRIX, SEARCH, model_view
from lab.quantization.layer_figures import layer_bill, layer_maps, layer_peers
from lab.quantization.model_figures import model_blocks, model_scatter
from lab.quantization.pb_llm.training_experiment import TrainingResult
from lab.views import View

__all__ = [
    "VIEWS",
    "layer_bill",
    "layer_maps",
    "layer_peers",
    "model_blocks",
    "model_scatter",
    "training_curves",
    "training_ends",
]


def training_curves(result: TrainingResult, theme: Theme = LIGHT) -> go.Figure:
    """The training loss of each arm: frozen salient weights in the accent, all others in grey."""
    curves = result.curves
    arms = {str(name): part for name, part in curves.groupby("arm", sort=False)}
    early = {name: _early(part) for name, part in arms.items()}
    best = min(early, key=lambda name: early[name])
    fig = figure(
        f"A quarter of the way, {best} has the lowest training loss, {early[best]:.2f} nats; "
        f"{max(early, key=lambda name: early[name])} the highest, {max(early.values()):.2f}",
        theme=theme,
        x="optimizer step",
        y="training loss (nats a token)",
    )
    ends: dict[str, tuple[float, float, str]] = {}
    for name, part in arms.items():
        color, line = _look(part.iloc[0], theme)
        fig.add_trace(
            go.Scatter(
                x=part["step"],
                y=part["loss"].astype(np.float32),
                name=name,
                mode="lines",
                line=line,
                hovertemplate=name + ", step %{x}: %{y:.3f} nats<extra></extra>",
            )
        )
        ends[name] = float(part["step"].iloc[-1]), float(part["loss"].iloc[-1]), color
    low, high = float(curves["loss"].min()), float(curves["loss"].max())
    end_labels(fig, ends, (low - 0.05 * (high - low), high + 0.05 * (high - low)))
    fig.update_xaxes(range=[0, float(curves["step"].max())])
    fig.update_layout(margin_r=104)
    return fig


def _early(part: pd.DataFrame) -> float:
    """The loss after a quarter of the steps."""
    steps = part["step"].to_numpy()
    return float(part["loss"].iloc[int(np.argmax(steps >= steps.max() / 4))])


def _look(row: pd.Series, theme: Theme) -> tuple[str, dict[str, object]]:
    """The method (frozen salient weights) in the accent, the more of them the wider; the others grey and dashed."""
    ours = bool(row["frozen"]) and row["salient"] > 0
    color = theme.accent if ours else theme.baselines[0 if row["salient"] else 1]
    dash = "solid" if ours else "dash" if row["salient"] else "dot"
    return color, {"color": color, "width": 1.4 + row["salient"] / 6, "dash": dash}


def training_ends(result: TrainingResult, theme: Theme = LIGHT) -> go.Figure:
    """Held-out perplexity of each arm before and after its training; full precision as a line."""
    ends = result.ends
    best = ends.loc[ends["perplexity"].idxmin()]
    fig = figure(
        f"{best['arm']} ends lowest, with a perplexity of {short(best['perplexity'])} from {short(best['at_start'])}; "
        f"{short(result.full)} in full precision",
        theme=theme,
        x="held-out perplexity (log)",
        y="salient weights",
        height=120 + 58 * len(ends),
    )
    for _, row in ends.iterrows():
        color, _ = _look(row, theme)
        fig.add_trace(
            go.Scatter(
                x=[row["at_start"], row["perplexity"]],
                y=[row["arm"]] * 2,
                mode="lines+markers",
                name=row["arm"],
                line={"color": color, "width": 2},
                marker={"color": color, "size": [9, 13], "symbol": ["circle-open", "circle"], "line": {"width": 2}},
                hovertemplate="%{y}: %{x:.4g}<extra></extra>",
            )
        )
        fig.add_annotation(
            x=float(np.log10(row["perplexity"])),
            y=row["arm"],
            text=short(row["perplexity"]),
            showarrow=False,
            yshift=15,
            font={"color": color, "size": 13},
        )
    fig.add_vline(x=result.full, line={"color": theme.truth, "width": 1.5, "dash": "dash"})
    fig.add_annotation(
        x=float(np.log10(result.full)),
        y=1,
        yref="paper",
        yanchor="bottom",
        xanchor="left",
        text="full precision",
        showarrow=False,
        font={"color": theme.truth, "size": 13},
    )
    values = [result.full, *ends["at_start"], *ends["perplexity"]]
    fig.update_xaxes(type="log", **log_ticks(values))
    fig.update_yaxes(type="category", autorange="reversed")
    fig.update_layout(margin_t=64)
    return fig


VIEWS = (
    LAYER,
    model_view("PB-LLM"),
    SEARCH,
    View("training", "Training", {"Loss": training_curves, "Perplexity": training_ends}),
    MATRIX,
)
