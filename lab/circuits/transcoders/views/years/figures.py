"""Pictures of the greater-than study: the years with their truth, few units against many, what units write, no MLP at all."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from lab.circuits.transcoders.views.years.experiment import YearsResult
from lab.plot import LIGHT, Theme, figure

ALL_YEARS = np.arange(100)
WAY_NAMES = {
    "model": "the model",
    "transcoder": "transcoder instead",
    "kept": "few units",
    "mean": "MLP at its mean",
    "zero": "MLP at zero",
}
SINGLE = {"features": "feature", "neurons": "neuron"}
CLOSE = 1.1  # areas whose ratio is smaller are called alike


def year_plot(result: YearsResult, theme: Theme = LIGHT) -> go.Figure:
    """The 100 years that could come next: the truth behind, the model, and what is left of it with the kept units."""
    possible = result.truth > 0
    whole, few = float(result.model[possible].sum()), float(result.few[possible].sum())
    when = "later" if result.verb == "lasted" else "earlier"
    kl = result.ways.set_index("way")["kl"]
    title = (
        f"‘{result.prompt}..’: the model puts {_share(whole)} on {when} years (KL {kl['model']:.2f} nats), with {result.kept} "
        f"{_share(few)} (KL {kl['kept']:.2f})"
    )
    fig = figure(title, theme=theme, x="second year, 17..", y="probability")
    truth = {"color": theme.truth, "width": 1.5, "shape": "hvh"}
    fig.add_trace(
        go.Scatter(
            x=ALL_YEARS,
            y=result.truth,
            name="truth",
            mode="lines",
            line=truth,
            fill="tozeroy",
            fillcolor=_faint(theme.truth),
            hovertemplate="17%{x:02d}: %{y:.2%} in truth<extra></extra>",
        )
    )
    fig.add_trace(
        go.Bar(
            x=ALL_YEARS,
            y=result.model,
            name="model",
            marker={"color": theme.baselines[1], "line": {"width": 0}},
            opacity=0.75,
            hovertemplate="17%{x:02d}: %{y:.2%} by the model<extra></extra>",
        )
    )
    fig.add_trace(
        go.Scatter(
            x=ALL_YEARS,
            y=result.few,
            name=f"with {result.kept}",
            mode="lines",
            line={"color": theme.accent, "width": 2.5},
            hovertemplate="17%{x:02d}: %{y:.2%} with " + result.kept + "<extra></extra>",
        )
    )
    fig.add_vline(x=result.first, line={"color": theme.muted, "width": 1.5, "dash": "dot"})
    fig.add_annotation(
        x=result.first,
        y=1,
        yref="paper",
        yanchor="bottom",
        text=f"17{result.first:02d}",
        showarrow=False,
        font={"color": theme.muted, "size": 14},
    )
    fig.update_xaxes(range=[-1, 100], tickvals=ALL_YEARS[::10], ticktext=[f"{year:02d}" for year in ALL_YEARS[::10]])
    fig.update_yaxes(tickformat="~%", rangemode="tozero")
    fig.update_layout(showlegend=True, bargap=0)
    return fig


def few_units(result: YearsResult, theme: Theme = LIGHT) -> go.Figure:
    """Keep the first k units only: divergence from the truth above, probability difference below; nothing left out."""
    features, neurons = result.areas["features"], result.areas["neurons"]
    fig = _panels(few_title(features, neurons), theme, rows=2, height=500)
    whole = result.ways.set_index("way")
    for kind, color, dash in (("neurons", theme.baselines[0], "dash"), ("features", theme.accent, "solid")):
        own = result.curve[result.curve["units"] == kind]
        for row, column in enumerate(("kl", "pd")):
            fig.add_trace(
                go.Scatter(
                    x=own["k"],
                    y=own[column],
                    name=kind,
                    mode="lines",
                    line={"color": color, "dash": dash, "width": 2.5},
                    showlegend=row == 0,
                    xaxis=_axis("x", row),
                    yaxis=_axis("y", row),
                    hovertemplate=f"%{{x}} {kind}: %{{y:.3f}}<extra></extra>",
                )
            )
    last = float(result.curve["k"].max())
    floors = (("whole model", "model", theme.truth, "solid"), ("whole transcoder", "transcoder", theme.accent, "dot"))
    for name, way, color, dash in floors:
        for row, column in enumerate(("kl_mean", "pd_mean")):
            fig.add_trace(
                go.Scatter(
                    x=[0, last],
                    y=[whole.loc[way, column]] * 2,
                    name=name,
                    mode="lines",
                    showlegend=row == 0,
                    line={"color": color, "dash": dash, "width": 1.5},
                    xaxis=_axis("x", row),
                    yaxis=_axis("y", row),
                    hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>",
                )
            )
    if result.k <= last:
        for row in range(2):
            _mark(fig, result.k, row, theme)
    fig.update_layout(
        yaxis={"type": "log", "title": {"text": "KL (nats)"}, "dtick": "D2", "tickformat": "~g"},
        yaxis2={"title": {"text": "PD"}},
        xaxis={"showticklabels": False},
        xaxis2={"title": {"text": "units kept"}},
        showlegend=True,
        legend={"y": -0.16},
    )
    return fig


def few_title(features: float, neurons: float) -> str:
    """Which kind of unit keeps more of the truth, over k = 1 ... 16.

    >>> few_title(0.4, 0.6)
    'With 1 to 16 units kept, features stay nearer the truth than neurons: 0.40 against 0.60 nats on average'
    >>> few_title(0.5, 0.52)
    'With 1 to 16 units kept, features and neurons are about as far from the truth: 0.50 and 0.52 nats on average'
    """
    if max(features, neurons) < CLOSE * min(features, neurons):
        says = f"features and neurons are about as far from the truth: {features:.2f} and {neurons:.2f}"
    elif features < neurons:
        says = f"features stay nearer the truth than neurons: {features:.2f} against {neurons:.2f}"
    else:
        says = f"neurons stay nearer the truth than features: {neurons:.2f} against {features:.2f}"
    return f"With 1 to 16 units kept, {says} nats on average"


def logit_boosts(result: YearsResult, theme: Theme = LIGHT) -> go.Figure:
    """What the first units of the ranking add to each year's logit, each with its best single step."""
    own = float(result.steps[result.units_kind])
    other = next(kind for kind in result.steps if kind != result.units_kind)
    title = (
        f"One step explains {_share(own)} of what a top {SINGLE[result.units_kind]} adds over the years (median of ten); "
        f"of a {SINGLE[other]}, {_share(result.steps[other])}"
    )
    count, columns = len(result.units), 2
    rows = -(-count // columns)
    fig = _panels(title, theme, rows=rows, columns=columns, height=140 * rows + 60)
    color = theme.accent if result.units_kind == "features" else theme.baselines[0]
    for place, unit in enumerate(result.units.itertuples()):
        axes = {"xaxis": _axis("x", place), "yaxis": _axis("y", place)}
        line = {"color": color, "width": 2}
        name = f"{SINGLE[result.units_kind]} {unit.unit}"
        fig.add_trace(
            go.Scatter(
                x=ALL_YEARS,
                y=result.boosts[place],
                name=name,
                mode="lines",
                line=line,
                **axes,
                hovertemplate="17%{x:02d}: %{y:+.2f}<extra>" + name + "</extra>",
            )
        )
        fig.add_trace(
            go.Scatter(
                x=ALL_YEARS,
                y=result.fits[place],
                name=f"{name}, best step",
                mode="lines",
                hoverinfo="skip",
                **axes,
                line={"color": theme.truth, "width": 1.2, "dash": "dash", "shape": "hvh"},
            )
        )
        fig.add_annotation(
            text=f"<b>{unit.unit}</b> fires {unit.fires:.1f} · R² {unit.r2:.2f}",
            showarrow=False,
            x=0,
            xanchor="left",
            xref=f"{_axis('x', place)} domain",
            y=1,
            yanchor="bottom",
            yref=f"{_axis('y', place)} domain",
            font={"size": 13, "color": theme.muted},
        )
        _mark(fig, result.first, place, theme)
        below = place >= count - columns
        fig.update_layout(
            {
                _layout(axes["xaxis"]): {
                    "showticklabels": below,
                    "tickvals": ALL_YEARS[::25],
                    "tickformat": "02d",
                    "title": {"text": "year, 17.." if below else ""},
                },
                _layout(axes["yaxis"]): {
                    "nticks": 4,
                    "title": {"text": "logit" if place % columns == 0 else "", "standoff": 4},
                    "zeroline": True,
                    "zerolinecolor": theme.grid,
                },
            }
        )
    return fig


def without_mlp(result: YearsResult, theme: Theme = LIGHT) -> go.Figure:
    """The MLP as it is, replaced, reduced, at its mean and at zero: divergence and probability difference over all years."""
    table = result.ways.set_index("way")
    said = {
        way: f"KL {table.loc[way, 'kl_mean']:.2f} nats, PD {table.loc[way, 'pd_mean']:.2f}"
        for way in ("zero", "transcoder", "model")
    }
    title = (
        f"‘{result.verb}’ without the MLP: {said['zero']}; with the transcoder in its place: {said['transcoder']}; "
        f"as it is: {said['model']}"
    )
    fig = _panels(title, theme, rows=2, height=480)
    names = [result.kept if way == "kept" else WAY_NAMES[way] for way in table.index]
    colors = {"transcoder": theme.accent, "kept": theme.accent, "model": theme.truth}
    if result.units_kind == "neurons":
        colors["kept"] = theme.baselines[0]
    for row, (column, unit) in enumerate((("kl_mean", "mean KL to the truth (nats)"), ("pd_mean", "mean PD"))):
        values = table[column].to_numpy()
        fig.add_trace(
            go.Bar(
                x=values,
                y=list(range(len(names))),
                orientation="h",
                name=unit,
                xaxis=_axis("x", row),
                yaxis=_axis("y", row),
                marker={"color": [colors.get(way, theme.baselines[2]) for way in table.index]},
                text=values,
                width=0.7,
                texttemplate="%{x:.2f}",
                textposition="outside",
                cliponaxis=False,
                customdata=names,
                textfont={"size": 13, "color": theme.muted},
                hovertemplate="%{customdata}: %{x:.3f}<extra></extra>",
            )
        )
        low, high = min(0.0, *values), max(0.0, *values)
        room = 0.14 * (high - low)
        fig.update_layout(
            {
                _layout(_axis("x", row)): {
                    "title": {"text": unit},
                    "range": [low - (room if low < 0 else 0), high + room],
                    "zeroline": True,
                    "zerolinecolor": theme.muted,
                },
                _layout(_axis("y", row)): {
                    "tickvals": list(range(len(names))),
                    "ticktext": names,
                    "autorange": "reversed",
                    "showgrid": False,
                    "ticks": "",
                    "tickfont": {"size": 13},
                },
            }
        )
    fig.update_layout(margin={"r": 16})
    return fig


# --- several panels in one figure ------------------------------------------------------------------------------------


def _panels(title: str, theme: Theme, *, rows: int, columns: int = 1, height: int) -> go.Figure:
    """An empty figure of rows x columns panels, numbered along the rows, all in the lab's look."""
    fig = figure(title, theme=theme, height=height)
    look = fig.layout.xaxis.to_plotly_json()
    across, down = 0.12 if columns > 1 else 0.0, 0.16 if columns == 1 else 0.11
    wide, high = (1 - across * (columns - 1)) / columns, (1 - down * (rows - 1)) / rows
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        left, top = column * (wide + across), 1 - row * (high + down)
        x, y = _axis("x", place), _axis("y", place)
        fig.update_layout(
            {
                _layout(x): look | {"domain": [left, min(left + wide, 1.0)], "anchor": y},
                _layout(y): look | {"domain": [max(top - high, 0.0), top], "anchor": x},
            }
        )
    return fig


def _mark(fig: go.Figure, x: float, place: int, theme: Theme) -> None:
    """A dotted line through a panel, from bottom to top."""
    fig.add_shape(
        type="line",
        x0=x,
        x1=x,
        xref=_axis("x", place),
        y0=0,
        y1=1,
        yref=f"{_axis('y', place)} domain",
        line={"color": theme.muted, "width": 1, "dash": "dot"},
    )


def _axis(letter: str, place: int) -> str:
    """The name of a panel's axis in a trace.

    >>> _axis("x", 0), _axis("y", 2)
    ('x', 'y3')
    """
    return letter if place == 0 else f"{letter}{place + 1}"


def _layout(axis: str) -> str:
    """The name of that axis in a layout.

    >>> _layout("y3")
    'yaxis3'
    """
    return f"{axis[0]}axis{axis[1:]}"


def _faint(color: str) -> str:
    """A colour of six hex digits, nearly transparent.

    >>> _faint("#1C1917")
    'rgba(28,25,23,0.1)'
    """
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.1)"


def _share(value: float) -> str:
    """A share in per cent; never a hundred that is not quite.

    >>> _share(0.9996), _share(0.5), _share(0.0)
    ('99.96%', '50%', '0%')
    """
    return f"{value:.2%}" if 0.995 <= value < 1 else f"{value:.0%}"
