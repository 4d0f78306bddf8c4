"""Pictures of how one unit is wired: heads, the tokens it finds, earlier features by weight and by what they really add."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.circuits.transcoders.models.languages import quoted
from lab.circuits.transcoders.views.features.figures import escape, name, never_dimmed
from lab.circuits.transcoders.views.wiring.experiment import WiringResult
from lab.plot import LIGHT, Theme, figure, heatmap

Labels = Mapping[tuple[int, int], str]
TOP = 10
WAYS = {"direct": "read directly", "extended": "read behind layer 0"}
HUES = (0, 2, 6)  # of layers; text is readable on them
ROW = 46  # pixels a layer of heads


def ov_map(result: WiringResult, theme: Theme = LIGHT, *, head: str = "") -> go.Figure:
    """``||W_V W_O f||`` of each head, layers up; a click finds "layer.head" in the point's customdata. `head` is framed."""
    norms = np.asarray(result.heads)
    layers, heads = norms.shape
    best = result.best_head
    median = float(np.median(norms))
    title = f"Head {best} can bring {_it(result)} most from elsewhere: {norms.max():.2f}, the median head {median:.2f}"
    fig = figure(title, theme=theme, x="head", y="layer", height=110 + ROW * max(layers, 3))
    fig.add_trace(
        heatmap(
            norms,
            theme=theme,
            x=list(range(heads)),
            y=list(range(layers)),
            xgap=2,
            ygap=2,
            hoverinfo="skip",
            name="OV norm",
        )
    )
    fig.update_traces(
        colorbar={"title": {"text": "‖W<sub>V</sub>W<sub>O</sub>f‖", "font": {"size": 13}}, "thickness": 10}
    )
    places = [(layer, number) for layer in range(layers) for number in range(heads)]
    fig.add_trace(
        go.Scatter(
            x=[number for _, number in places],
            y=[layer for layer, _ in places],
            mode="markers",
            name="heads",
            marker={"symbol": "square", "size": 34, "opacity": 0, "color": theme.muted},
            customdata=[f"{layer}.{number}" for layer, number in places],
            text=[f"head {layer}.{number}: {norms[layer, number]:.3f}" for layer, number in places],
            hovertemplate="%{text}<extra></extra>",
            **never_dimmed(0),
        )
    )
    if head:
        layer, number = map(int, head.split("."))
        fig.add_shape(
            type="rect",
            x0=number - 0.5,
            x1=number + 0.5,
            y0=layer - 0.5,
            y1=layer + 0.5,
            line={"color": theme.ink, "width": 2.5},
        )
    fig.update_xaxes(tickvals=list(range(heads)), showgrid=False, range=[-0.55, heads - 0.45], ticks="", showline=False)
    fig.update_yaxes(
        tickvals=list(range(layers)), showgrid=False, range=[-0.55, layers - 0.45], ticks="", showline=False
    )
    fig.update_layout(clickmode="event+select", dragmode="pan", margin={"r": 12})
    return fig


def tokens_read(result: WiringResult, theme: Theme = LIGHT, *, way: str = "extended") -> go.Figure:
    """The tokens that the unit finds most, in one of the result's ways: "direct", "extended", or "head 1.3"."""
    table = result.reads[result.reads["way"] == way]
    ways = WAYS | {way: f"at the other end of {way}"} if way not in WAYS else WAYS
    best = ", ".join(quoted(piece) for piece in table["piece"][:3])
    title = f"{escape(best)} would make {_it(result)} fire most, {ways[way]}"
    fig = figure(title, theme=theme, x="pre-activation, unscaled", height=90 + 26 * TOP)
    rows = list(range(len(table)))
    names = [escape(quoted(piece)) for piece in table["piece"]]
    fig.add_trace(
        go.Bar(
            x=table["value"],
            y=rows,
            orientation="h",
            name=way,
            width=0.7,
            marker={"color": theme.accent},
            customdata=names,
            hovertemplate="%{customdata} %{x:+.3~g}<extra></extra>",
        )
    )
    fig.update_yaxes(
        tickvals=rows, ticktext=names, autorange="reversed", showgrid=False, ticks="", tickfont={"size": 13}
    )
    fig.update_xaxes(zeroline=True, zerolinecolor=theme.muted, zerolinewidth=1, nticks=6)
    return fig


def earlier_features(
    result: WiringResult, theme: Theme = LIGHT, *, head: str = "", labels: Labels | None = None
) -> go.Figure:
    """The earlier features best wired to the unit, at the same token or through a head ("1.3"); clicks as in `ov_map`.

    customdata of a bar: layer and feature.
    """
    table = (result.through[result.through["head"] == head] if head else result.earlier).head(TOP)
    who = name(result.kind, result.layer, result.unit)
    if table.empty:
        return _nothing(f"No feature is there for {who} to read", theme)
    first = table.iloc[0]
    where = f"through head {head}" if head else "at the same token"
    title = f"By weights alone, feature {first['feature']} of layer {first['layer']} drives {_it(result)} most {where}"
    fig = figure(title, theme=theme, x="pre-activation for one unit of activation", height=90 + 30 * TOP)
    rows = list(range(len(table)))
    names = [_short(row.layer, row.feature, labels) for row in table.itertuples()]
    hover = [_about(row.layer, row.feature, row.writes, labels) for row in table.itertuples()]
    fig.add_trace(
        go.Bar(
            x=table["weight"],
            y=rows,
            orientation="h",
            name="weight",
            width=0.72,
            marker={"color": [theme.class_color(HUES[layer % len(HUES)]) for layer in table["layer"]]},
            customdata=[[int(row.layer), int(row.feature)] for row in table.itertuples()],
            text=[escape(f" {row.writes}") for row in table.itertuples()],
            textposition="inside",
            insidetextanchor="start",
            textfont={"size": 12, "color": theme.surface},
            hovertext=hover,
            hovertemplate="%{hovertext}<br>weight %{x:+.3f}<extra></extra>",
            **never_dimmed(1),
        )
    )
    fig.update_yaxes(
        tickvals=rows, ticktext=names, autorange="reversed", showgrid=False, ticks="", tickfont={"size": 13}
    )
    fig.update_xaxes(zeroline=True, zerolinecolor=theme.muted, zerolinewidth=1, nticks=6)
    fig.update_layout(clickmode="event+select", dragmode="pan")
    return fig


def weights_and_input(result: WiringResult, theme: Theme = LIGHT, *, labels: Labels | None = None) -> go.Figure:
    """Every earlier feature by its weight, the same for all inputs, and by what it adds on this one."""
    table: pd.DataFrame = result.earlier
    who = name(result.kind, result.layer, result.unit)
    if table.empty or not result.over:
        return _nothing(f"{who} has no earlier features" if table.empty else f"{who} does not fire here", theme)
    shared = result.agreement
    said = " and ".join(f"{round(value * int(k))} of the {k}" for k, value in shared.items())
    title = f"Of the features best wired to {_it(result)}, {said} also add most {escape(result.over)}"
    fig = figure(
        title, theme=theme, x="weight alone, the same for every input", y="activation × weight, here", height=430
    )
    wired, adds = set(table["weight"].nlargest(TOP).index), set(table["strength"].nlargest(TOP).index)
    groups = {
        "others": (table.index.difference([*wired, *adds]), theme.baselines[2], 5, 0.5),
        f"best wired {TOP}": (sorted(wired - adds), theme.class_color(0), 10, 1.0),
        f"adding most {TOP}": (sorted(adds - wired), theme.class_color(2), 10, 1.0),
        "both": (sorted(wired & adds), theme.accent, 12, 1.0),
    }
    for title_of, (rows, color, size, opacity) in groups.items():
        some = table.loc[list(rows)]
        fig.add_trace(
            go.Scatter(
                x=some["weight"].round(4),
                y=some["strength"].round(4),
                mode="markers",
                name=title_of,
                marker={"color": color, "size": size, "opacity": opacity},
                customdata=[[int(row.layer), int(row.feature)] for row in some.itertuples()],
                text=[_about(row.layer, row.feature, row.writes, labels) for row in some.itertuples()],
                hovertemplate="%{text}<br>weight %{x:+.3f}, adds %{y:+.3f}<extra></extra>",
                **never_dimmed(opacity),
            )
        )
    for axis in (fig.update_xaxes, fig.update_yaxes):
        axis(zeroline=True, zerolinecolor=theme.muted, zerolinewidth=1)
    fig.update_layout(
        clickmode="event+select",
        dragmode="pan",
        showlegend=True,
        legend={"y": 1.02, "yanchor": "bottom", "font": {"size": 13}},
    )
    return fig


def _it(result: WiringResult) -> str:
    """The unit, within a sentence."""
    words = name(result.kind, result.layer, result.unit)
    return words[0].lower() + words[1:]


def _short(layer: int, feature: int, labels: Labels | None) -> str:
    """What stands beside a bar: the reader's label, else the number."""
    text = (labels or {}).get((layer, feature), "")
    return escape(text if len(text) <= 24 else f"{text[:23]}…") or f"{layer} · {feature}"


def _about(layer: int, feature: int, writes: str, labels: Labels | None) -> str:
    lines = [f"<b>feature {feature} of layer {layer}</b>"]
    text = (labels or {}).get((layer, feature), "")
    lines += [escape(text)] if text else []
    lines += [f"makes likelier {escape(writes)}"] if writes else []
    return "<br>".join(lines)


def _nothing(title: str, theme: Theme) -> go.Figure:
    fig = figure(title, theme=theme, height=300)
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False)
    return fig
