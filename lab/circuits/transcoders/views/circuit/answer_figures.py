"""Pictures of an answer: the waterfall that closes, the likeliest tokens, and what a cut leaves of them."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from lab.circuits.transcoders.models.languages import quoted
from lab.circuits.transcoders.views.circuit.cut_experiment import CutResult
from lab.circuits.transcoders.views.circuit.experiment import CircuitResult
from lab.circuits.transcoders.views.circuit.words import parts
from lab.plot import LIGHT, Theme, figure

UNEXPLAINED = ("error", "mlp", "skip")  # parts of the waterfall that no feature stands for
SHOWN = 8  # tokens in a list of bars


def waterfall(result: CircuitResult, theme: Theme = LIGHT) -> go.Figure:
    """All contributions by kind and layer, one after the other, from zero to the answer; nothing is left out."""
    table = result.waterfall
    by_kind = table.groupby("kind")["value"].sum()
    dark = float(sum(by_kind.get(kind, 0.0) for kind in UNEXPLAINED))
    brought = ", ".join(
        f"{name} {by_kind[kind]:+.1f}" for kind, name in (("feature", "features"), ("head", "heads")) if kind in by_kind
    )
    title = f"The books close at {result.value:.2f}: {brought}, what no feature explains {dark:+.1f}"
    fig = figure(title, theme=theme, x=html.escape(result.measure), height=90 + 25 * (len(table) + 1))
    colors = {"feature": theme.accent, "head": theme.baselines[0]} | dict.fromkeys(UNEXPLAINED, theme.baselines[3])
    names = [*table["part"], "the answer"]
    values, rows = [*table["value"], result.value], list(range(len(table) + 1))
    hover = [
        f"<b>{name}</b><br>{value:+.3f}" + (f"<br>strongest of {count}: {html.escape(text)}" if text else "")
        for name, value, count, text in zip(names, values, [*table["count"], 1], [*table["largest"], ""], strict=True)
    ]
    fig.add_trace(
        go.Bar(
            x=values,
            y=rows,
            base=[*table["start"], 0.0],
            orientation="h",
            width=0.72,
            customdata=hover,
            name="contribution",
            marker={"color": [*(colors.get(kind, theme.baselines[1]) for kind in table["kind"]), theme.truth]},
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    xs = [x for end in table["end"] for x in (end, end, None)]
    ys = [y for row in rows[:-1] for y in (row - 0.36, row + 1.36, None)]
    line = {"color": theme.muted, "width": 1, "dash": "dot"}
    fig.add_trace(go.Scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", name="runs on"))
    highs = [max(pair) for pair in zip([*table["start"], 0.0], [*table["end"], result.value], strict=True)]
    fig.add_trace(
        go.Scatter(
            x=highs,
            y=rows,
            mode="text",
            text=[f" {value:+.2f}" for value in values],
            textposition="middle right",
            textfont={"size": 12, "color": theme.muted},
            hoverinfo="skip",
            name="value",
            cliponaxis=False,
        )
    )
    low, high = min(0.0, *table["end"]), max(highs)
    fig.update_xaxes(range=[low - 0.02 * (high - low), high + 0.18 * (high - low)], title_font_size=13, **_zero(theme))
    _rows_down(fig, rows, names)
    fig.update_layout(margin={"r": 12})
    return fig


def next_tokens(result: CircuitResult | CutResult, theme: Theme = LIGHT) -> go.Figure:
    """The likeliest next tokens; beside them, what is left of each after a cut."""
    table = result.logits.head(SHOWN)
    if isinstance(result, CircuitResult):
        bars = {"probability": ("probability", theme.accent)}
        title = f"{quoted(table['piece'][0])} comes next with {table['probability'][0]:.0%}"
    else:
        bars = {"before": ("before", theme.baselines[1]), "after": ("after the cut", theme.accent)}
        first, then = (result.logits.loc[result.logits[name].idxmax()] for name in bars)
        title = (
            f"{quoted(first['piece'])} goes from {first['before']:.0%} to {first['after']:.0%}"
            if first["token"] == then["token"]
            else f"Now {quoted(then['piece'])} comes first, no longer {quoted(first['piece'])}"
        )
    fig = figure(title, theme=theme, x="probability of the next token", height=110 + 40 * len(table))
    rows = list(range(len(table)))
    for column, (name, color) in bars.items():
        fig.add_trace(
            go.Bar(
                x=table[column],
                y=rows,
                orientation="h",
                name=name,
                marker={"color": color},
                texttemplate="%{x:.1%}",
                textposition="outside",
                cliponaxis=False,
                textfont={"size": 12, "color": theme.muted},
                hovertemplate="%{x:.2%} " + name + "<extra></extra>",
            )
        )
    _rows_down(fig, rows, [html.escape(quoted(piece)) for piece in table["piece"]])
    fig.update_xaxes(tickformat=".0%", rangemode="tozero")
    fig.update_layout(showlegend=len(bars) > 1, legend={"y": -0.16}, margin={"r": 48})
    return fig


def live_and_frozen(result: CutResult, theme: Theme = LIGHT) -> go.Figure:
    """The answer before a cut, what the circuit says is left of it, and what the model itself answers."""
    fig = figure(cut_title(result), theme=theme, x=html.escape(result.measure), height=260)
    values, colors = [result.before, result.frozen, result.live], [theme.baselines[1], theme.baselines[0], theme.accent]
    fig.add_trace(
        go.Bar(
            x=values,
            y=["before", "circuit", "model"],
            orientation="h",
            marker={"color": colors},
            name="answer",
            width=0.6,
            texttemplate="%{x:.2f}",
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    fig.add_vline(x=result.before, line={"color": theme.muted, "width": 1, "dash": "dot"})
    fig.update_xaxes(title_font_size=13, **_zero(theme))
    fig.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    fig.update_layout(margin={"r": 56})
    return fig


def cut_title(result: CutResult) -> str:
    """What a cut did, and what the circuit said it would do."""
    if not result.cuts:
        return f"Nothing is cut: circuit and model both stay at {result.before:.2f}"
    moved, said = result.live - result.before, result.frozen - result.before
    return f"Without {parts(len(result.cuts))} the answer moves by {moved:+.2f}; the circuit said {said:+.2f}"


def _rows_down(fig: go.Figure, rows: list[int], names: list[str]) -> None:
    """Bars from the top down, their names at the left."""
    fig.update_yaxes(
        tickvals=rows, ticktext=names, autorange="reversed", showgrid=False, ticks="", tickfont={"size": 13}
    )


def _zero(theme: Theme) -> dict[str, object]:
    return {"zeroline": True, "zerolinecolor": theme.muted, "zerolinewidth": 1}
