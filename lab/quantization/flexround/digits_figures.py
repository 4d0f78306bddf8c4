"""Pictures of the network for digits: accuracy and error by bits, the input channels' factors, and the ledger's seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.plot import LIGHT, Theme, end_label, figure
from lab.quantization.flexround.digits_experiment import TITLES, DigitsResult
from lab.quantization.flexround.method_figures import LOOKS, log_shares, method_color, method_line, percent

AT = 3  # bits of which the digits' titles speak


def _by_bits(result: DigitsResult, column: str, title: str, y: str, theme: Theme) -> go.Figure:
    fig = figure(
        title, theme=theme, x="bits of a weight<br><sup>one grid a layer; rates tuned at 3 and 4</sup>", y=y, height=480
    )
    for key in (*LOOKS, "flexround_no_s4", "flexround"):
        part = result.scores[result.scores["method"] == key]
        name = TITLES[key]
        symbol = LOOKS[key][2] if key in LOOKS else "circle" if key == "flexround" else "circle-open"
        fig.add_trace(
            go.Scatter(
                x=part["bits"],
                y=part[column].to_numpy(np.float32),
                name=name,
                mode="lines+markers",
                line=method_line(key, theme),
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
    title = f"At {AT} bits FlexRound names {percent(float(table['flexround']))} of {result.n_test} digits right, "
    title += f"{TITLES[str(others.idxmax())]} {percent(float(others.max()))}, "
    title += f"round to nearest {percent(float(table['rtn']))}"
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
    title += f"at {AT} bits {percent(float(_at(result, 'error')['flexround']))} of the output"
    fig = _by_bits(result, "error", title, "output lost (logarithmic)", theme)
    log_shares(fig, list(result.scores["error"]))
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
    table = pd.DataFrame({name: [row[f"{key}_{bits}_accuracy"] for row in rows] for key, name in TITLES.items()})
    means = table.mean()
    title = f"Mean of {len(rows)} trainings at {bits} bits: FlexRound {means[TITLES['flexround']]:.1f} %, "
    others = means.drop([TITLES["flexround"], TITLES["flexround_no_s4"]])
    title += f"without s₄ {means[TITLES['flexround_no_s4']]:.1f} %, best other {others.idxmax()} {others.max():.1f} %"
    fig = figure(title, theme=theme, x="digits named right (%), a dot a training", height=420)
    colors = [method_color(key, theme) for key in TITLES]
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
