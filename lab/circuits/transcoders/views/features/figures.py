"""Pictures of one unit and of all units of its layer: how strongly it fires, what it makes likelier, how it compares."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from lab.circuits.transcoders.models.languages import quoted
from lab.circuits.transcoders.units.dashboard import Dashboard
from lab.circuits.transcoders.views.browse import Survey
from lab.plot import LIGHT, Theme, figure

WHAT = {"transcoder": "Feature", "sae": "SAE feature", "neuron": "Neuron"}
MANY = {"transcoder": "features", "sae": "SAE features", "neuron": "neurons"}


def escape(text: str) -> str:
    """Text that plotly shows letter by letter; quotes stay, as it knows no name for them.

    >>> escape('<b> "x"')
    '&lt;b&gt; "x"'
    """
    return html.escape(text, quote=False)


def name(kind: str, layer: int, unit: int) -> str:
    """A unit in words.

    >>> name("neuron", 2, 17)
    'Neuron 17 of layer 2'
    """
    return f"{WHAT[kind]} {unit} of layer {layer}"


def headline(board: Dashboard, label: str = "") -> str:
    """What one sees of a unit, with the reader's own label if there is one."""
    who = name(board.kind, board.layer, board.unit) + (f", “{label}”," if label else "")
    if not board.live:
        return f"{who} is silent on all {board.tokens:,} tokens"
    weakest, bands = float(board.shares[-1]) / board.frequency, len(board.shares)
    return (
        f"{who} fires on {share(board.frequency)} of tokens, {share(weakest)} of them in the weakest of {bands} bands"
    )


def share(value: float) -> str:
    """A share of tokens as a percentage of two digits.

    >>> share(0.0312), share(0.00012), share(0.0)
    ('3.1 %', '0.012 %', '0 %')
    """
    percent = 100 * value
    digits = 0 if percent >= 10 or not percent else max(0, 1 - int(np.floor(np.log10(percent))))
    return f"{percent:.{digits}f} %"


def histogram(board: Dashboard, theme: Theme = LIGHT) -> go.Figure:
    """How often it fires how strongly, in its bands; the share of all tokens stands above each."""
    if not board.live:
        return _nothing(f"{name(board.kind, board.layer, board.unit)} never fires", board, theme)
    strongest = float(board.shares[0])
    title = (
        f"Whoever sees its maxima alone sees {share(strongest / board.frequency)} of its firings: "
        f"{round(strongest * board.tokens):,} of {round(board.frequency * board.tokens):,}"
    )
    fig = figure(title, theme=theme, x="activation", y="tokens (log scale)", height=330)
    middles, width = (board.bins[:-1] + board.bins[1:]) / 2, float(board.bins[1] - board.bins[0])
    bands = len(board.shares)
    of = np.clip(((board.maximum - middles) / board.maximum * bands).astype(int), 0, bands - 1)
    seen = board.counts > 0
    fig.add_trace(
        go.Bar(
            x=middles[seen],
            y=board.counts[seen],
            width=width * 0.94,
            name="tokens",
            marker={"color": theme.accent, "opacity": 1 - 0.75 * of[seen] / max(bands - 1, 1)},
            hovertemplate="%{y:,} tokens fire with about %{x:.2f}<extra></extra>",
        )
    )
    for edge in board.edges[1:-1]:
        fig.add_vline(x=float(edge), line={"color": theme.muted, "width": 1, "dash": "dot"})
    for place, found in enumerate(board.shares):
        fig.add_annotation(
            x=float(board.edges[place] + board.edges[place + 1]) / 2,
            y=1,
            yref="paper",
            yanchor="bottom",
            text=share(float(found)),
            showarrow=False,
            font={"size": 12, "color": theme.muted},
            textangle=-40 if len(board.shares) > 4 else 0,
        )
    fig.update_yaxes(type="log", dtick=1, range=[-0.3, np.log10(board.counts.max()) + 0.15])
    fig.update_xaxes(range=[0, board.maximum * 1.01])
    fig.update_layout(bargap=0, margin={"t": 64})
    return fig


def logits(board: Dashboard, theme: Theme = LIGHT) -> go.Figure:
    """The tokens that it makes likelier, and those that it makes less likely, by its direct way to the logits."""
    top, bottom = board.top_logits, board.bottom_logits
    best = ", ".join(map(quoted, top["piece"][:3]))
    title = f"It speaks for {escape(best)} and against {escape(quoted(bottom['piece'][0]))}"
    fig = figure(title, theme=theme, x="logits for a unit of activation", height=330)
    rows = range(len(top))
    for side, table, color in (
        ("likelier", top, theme.accent),
        ("less likely", bottom, theme.baselines[1]),
    ):
        names = [escape(quoted(piece)) for piece in table["piece"]]
        fig.add_trace(
            go.Bar(
                x=table["value"],
                y=list(rows),
                orientation="h",
                name=side,
                marker={"color": color},
                customdata=names,
                width=0.7,
                hovertemplate="%{customdata} %{x:+.3f}<extra></extra>",
                text=names,
                textposition="outside",
                cliponaxis=False,
                textfont={"size": 12, "color": theme.ink},
                constraintext="none",
                textangle=0,
            )
        )
    reach = 1.5 * float(max(top["value"].abs().max(), bottom["value"].abs().max()))
    fig.update_xaxes(range=[-reach, reach], zeroline=True, zerolinecolor=theme.muted, zerolinewidth=1, nticks=7)
    fig.update_yaxes(autorange="reversed", showticklabels=False, ticks="", showgrid=False, title=None)
    fig.update_layout(barmode="overlay", margin={"l": 12, "r": 12})
    return fig


def all_units(
    found: Survey,
    board: Dashboard,
    theme: Theme = LIGHT,
    *,
    labels: Mapping[tuple[int, int], str] | None = None,
) -> go.Figure:
    """Every unit of the layer by how often and how strongly it fires; a click finds its number in the point's customdata."""
    live = found.live
    many, count = MANY[board.kind], len(live)
    dead = int((found.frequency == 0).sum())
    rare = count - int(live.sum()) - dead
    title = f"{int(live.sum()):,} of the {count:,} {many} of layer {board.layer} are live"
    parts = [f"{dead:,} never fire"] * bool(dead) + [f"{rare:,} on at most one token in 10,000"] * bool(rare)
    title += f"; {', '.join(parts) or 'none is silent'}"
    fig = figure(title, theme=theme, x="share of tokens it fires on (log)", y="mean activation there", height=400)
    floor = 0.4 / found.tokens
    x = np.maximum(found.frequency, floor)
    named = {unit: text for (layer, unit), text in (labels or {}).items() if layer == board.layer and unit < count}
    groups = [
        ("live", live, theme.baselines[1], 6),
        ("rare or silent", ~live, theme.baselines[3], 6),
        ("with your label", _marked(count, named), theme.class_color(0), 10),
        ("this one", _marked(count, [board.unit]), theme.accent, 15),
    ]
    for title_of, which, color, size in groups:
        chosen = np.flatnonzero(which)
        fig.add_trace(
            go.Scatter(
                x=x[chosen],
                y=found.mean[chosen],
                mode="markers",
                name=title_of,
                customdata=chosen.tolist(),
                text=[_hover(found, board, int(unit), named.get(int(unit), "")) for unit in chosen],
                hovertemplate="%{text}<extra></extra>",
                marker={
                    "color": color,
                    "size": size,
                    "opacity": 0.55 if size < 10 else 1,
                    "line": {"color": theme.surface, "width": 0 if size < 10 else 1.5},
                },
                **never_dimmed(0.55 if size < 10 else 1),
            )
        )
    ticks = [tick for tick in (1e-4, 1e-3, 1e-2, 1e-1, 1.0) if tick > floor]
    fig.update_xaxes(
        type="log",
        tickvals=[*([floor] if dead else []), *ticks],
        ticktext=[*(["never"] if dead else []), *map(share, ticks)],
        range=[np.log10(x.min()) - 0.15, np.log10(x.max()) + 0.15],
    )
    fig.update_yaxes(rangemode="tozero")
    fig.update_layout(
        clickmode="event+select",
        dragmode="pan",
        showlegend=True,
        legend={"y": 1.02, "yanchor": "bottom", "font": {"size": 13}},
    )
    return fig


def never_dimmed(opacity: float) -> dict[str, dict[str, dict[str, float]]]:
    """A click selects, and plotly would fade all others."""
    return {side: {"marker": {"opacity": opacity}} for side in ("selected", "unselected")}


def _hover(found: Survey, board: Dashboard, unit: int, label: str) -> str:
    lines = [f"<b>{name(board.kind, board.layer, unit)}</b>"]
    lines += [escape(label)] if label else []
    if not found.frequency[unit]:
        return "<br>".join([*lines, "never fires on these texts"])
    lines.append(f"fires on {share(float(found.frequency[unit]))} of tokens")
    lines.append(f"mean {found.mean[unit]:.2f}, at most {found.maximum[unit]:.2f}")
    return "<br>".join(lines)


def _marked(count: int, units: Sequence[int] | Mapping[int, str]) -> np.ndarray:
    mask = np.zeros(count, dtype=bool)
    mask[list(units)] = True
    return mask


def _nothing(title: str, board: Dashboard, theme: Theme) -> go.Figure:
    fig = figure(title, theme=theme, x="activation", y="tokens", height=330)
    fig.add_annotation(
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        showarrow=False,
        text=f"silent on all {board.tokens:,} tokens",
        font={"color": theme.muted},
    )
    fig.update_xaxes(range=[0, 1])
    fig.update_yaxes(range=[0, 1])
    return fig
