"""The picture of a circuit: tokens across, layers up, edges as wide as what they bring; its nodes and edges can be clicked."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from lab.circuits.transcoders.models.languages import quoted
from lab.circuits.transcoders.views.circuit.answer_figures import cut_title, live_and_frozen, next_tokens, waterfall
from lab.circuits.transcoders.views.circuit.cut_experiment import Cuts
from lab.circuits.transcoders.views.circuit.experiment import CircuitResult
from lab.circuits.transcoders.views.circuit.layout import Layout, layout
from lab.circuits.transcoders.views.circuit.words import Row, counted, edge_says, node_says
from lab.plot import LIGHT, Theme, figure

__all__ = ["circuit_graph", "cut_title", "graph_title", "live_and_frozen", "next_tokens", "waterfall"]

Selected = tuple[Literal["node", "edge"], int] | None
NO_CUTS = Cuts()
DARK_KINDS = ("error", "mlp", "rest", "skip", "bias")  # what no feature stands for
SYMBOLS = {"root": "star", "head": "diamond", "embedding": "square", "position": "square"}
WIDTHS = (0.8, 1.5, 2.4, 3.6, 5.0, 7.0)  # pixels of an edge
SMALL, LARGE, STAR, DOT = 9.0, 20.0, 24.0, 6.0  # pixels of a node
HANDLE, REACH = 6, 12  # pixels of an edge's handle, small so that nodes win, and around any marker that a click hits
LABELLED, LABEL = 12, 2.2  # nodes that have their number beside them, where there is so much room
SMALLER = 1  # than the other letters
PIECE, NAME = 9, 16  # letters of a token below the graph, and of a reader's own name in it


def circuit_graph(
    result: CircuitResult,
    theme: Theme = LIGHT,
    *,
    cuts: Cuts = NO_CUTS,
    selected: Selected = None,
    height: int = 500,
    letters: int = 13,
    names: Mapping[tuple[int, int], str] = MappingProxyType({}),
) -> go.Figure:
    """The circuit, readable at a phone's width and on a wall.

    Nodes and a place on each edge answer to clicks: their customdata is ["node" or "edge", row of the result's frame].

    cuts, selected   what is crossed out, and what has a ring
    height, letters  pixels of the picture and of its letters
    names            a reader's own names of features, by layer and number
    """
    fig = figure(graph_title(result), theme=theme, height=height)
    places = layout(result.nodes, result.edges, result.position + 1)
    nodes, edges = (frame.to_dict("records") for frame in (result.nodes, result.edges))
    for node in nodes:
        node["name"] = names.get((node["layer"], node["index"]), "") if node["kind"] == "feature" else ""
    size = _sizes(result)
    fig.add_traces(
        [
            *_lines(result, places, theme, cuts),
            *_marks(places, theme, cuts, selected, below=True),
            _handles(places, nodes, edges),
            _dots(result, places, nodes, size, theme, cuts),
            *_marks(places, theme, cuts, selected, below=False),
        ]
    )
    beside = _beside_nodes(result, nodes, places, size, theme, letters)
    fig.update_layout(
        shapes=_bands(places, theme),
        annotations=[*beside, _legend(result, theme, letters)],
        clickmode="event+select",
        hoverdistance=REACH,
        hoverlabel_align="left",
        margin={"l": 12, "r": 12, "t": 64, "b": 8},
    )
    _axes(fig, result, places, theme, letters)
    return fig


def graph_title(result: CircuitResult) -> str:
    """What the drawn features and heads bring, in a sentence."""
    features, heads = round(result.direct["features"]), round(result.direct["heads"])
    speaks = f"what makes {result.answer} fire" if result.feature else f"what speaks for {result.answer}"
    if not features + heads:
        return f"No drawn feature or head adds to {result.answer} directly"
    return f"{counted(features, heads)} bring{'s' * (features + heads == 1)} {result.direct['share']:.0%} of {speaks}"


def _lines(result: CircuitResult, places: Layout, theme: Theme, cuts: Cuts) -> list[go.Scatter]:
    """The edges, a trace for each width and sign."""
    sources, targets = (result.edges[end].to_numpy(dtype=int) for end in ("source", "target"))
    weight = result.edges["weight"].to_numpy(dtype=float)
    dark = result.nodes["kind"].isin(DARK_KINDS).to_numpy()[sources]
    scale = np.abs(weight[~dark]).max(initial=1e-9)
    step = np.clip(np.sqrt(np.abs(weight) / scale) * (len(WIDTHS) - 1), 0, len(WIDTHS) - 1).round().astype(int)
    cut = np.isin(np.arange(len(weight)), cuts.edges) | np.isin(sources, cuts.nodes) | np.isin(targets, cuts.nodes)
    step[cut] = 1
    styles = {
        "unexplained": (dark & ~cut, theme.baselines[2], "solid", 0.6),
        "adds": (~dark & ~cut & (weight >= 0), theme.accent, "solid", 0.7),
        "takes away": (~dark & ~cut & (weight < 0), theme.class_color(0), "dash", 0.8),
        "cut": (cut, theme.muted, "dot", 0.4),
    }
    return [
        go.Scatter(
            x=_broken(places.curves[mine, :, 0]),
            y=_broken(places.curves[mine, :, 1]),
            mode="lines",
            name=name,
            line={"color": color, "width": width, "dash": dash},
            opacity=opacity,
            hoverinfo="skip",
        )
        for name, (which, color, dash, opacity) in styles.items()
        for at, width in enumerate(WIDTHS)
        if len(mine := np.flatnonzero(which & (step == at)))
    ]


def _handles(places: Layout, nodes: Sequence[Row], edges: Sequence[Row]) -> go.Scatter:
    """What hover and clicks find of the edges; a marker is, a line is not."""
    drawn = [place for place, edge in enumerate(edges) if nodes[edge["source"]]["kind"] != "rest"]
    hover = []
    for place in drawn:
        source, target = (nodes[edges[place][end]] for end in ("source", "target"))
        hover.append(_hover(f"{source['label']} → {target['label']}", edge_says(edges[place], source, target)))
    return go.Scatter(
        x=places.handles[drawn, 0],
        y=places.handles[drawn, 1],
        mode="markers",
        name="edges",
        text=hover,
        marker={"size": HANDLE, "opacity": 0},
        customdata=[["edge", place] for place in drawn],
        hovertemplate="%{text}<extra></extra>",
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
    )


def _dots(
    result: CircuitResult, places: Layout, nodes: Sequence[Row], size: np.ndarray, theme: Theme, cuts: Cuts
) -> go.Scatter:
    """The nodes, as large as they matter. Plotly fades what a click did not select, so no opacity is left to it."""
    colors = {"root": theme.truth, "feature": theme.accent, "head": theme.baselines[0]}
    colors |= dict.fromkeys(("embedding", "position"), theme.truth)
    kinds = [node["kind"] for node in nodes]
    shown = [
        theme.grid if place in cuts.nodes else colors.get(kind, theme.baselines[2]) for place, kind in enumerate(kinds)
    ]
    return go.Scatter(
        x=places.nodes[:, 0],
        y=places.nodes[:, 1],
        mode="markers",
        name="nodes",
        marker={
            "size": size,
            "symbol": [SYMBOLS.get(kind, "circle") for kind in kinds],
            "color": shown,
            "opacity": 1,
            "line": {"color": theme.surface, "width": 1.5},
        },
        customdata=[["node", place] for place in range(len(nodes))],
        hovertemplate="%{text}<extra></extra>",
        text=[_hover(node["label"], [*filter(None, [node["name"]]), *node_says(node, result)]) for node in nodes],
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 1}},
    )


def _marks(places: Layout, theme: Theme, cuts: Cuts, selected: Selected, *, below: bool) -> list[go.Scatter]:
    """A ring around what is selected, and under all markers its line; crosses over what is cut. No click hits them."""
    quiet: dict[str, Any] = {"hoverinfo": "skip", "name": "mark"}
    if below:
        if selected is None or selected[0] == "node":
            return []
        x, y = places.curves[selected[1]].T
        return [go.Scatter(x=x, y=y, mode="lines", line={"color": theme.ink, "width": 3}, **quiet)]
    found = []
    if cut := [*places.nodes[list(cuts.nodes)], *places.handles[list(cuts.edges)]]:
        x, y = np.array(cut).T
        marker = {"symbol": "x-thin", "size": 14, "color": theme.ink, "line": {"color": theme.ink, "width": 3}}
        found.append(go.Scatter(x=x, y=y, mode="markers", marker=marker, **quiet))
    if selected is not None:
        x, y = (places.nodes if selected[0] == "node" else places.handles)[selected[1]]
        marker = {"symbol": "circle-open", "size": 28, "color": theme.ink, "line": {"width": 2.5}}
        found.append(go.Scatter(x=[x], y=[y], mode="markers", marker=marker, **quiet))
    return found


def _sizes(result: CircuitResult) -> np.ndarray:
    kinds = result.nodes["kind"].to_numpy()
    influence = result.nodes["influence"].to_numpy(dtype=float)
    largest = influence[(kinds != "root") & (kinds != "rest")].max(initial=1e-9)
    size = SMALL + (LARGE - SMALL) * np.sqrt(np.clip(influence / largest, 0, 1))
    size[kinds == "root"], size[kinds == "rest"] = STAR, DOT
    return size


def _beside_nodes(
    result: CircuitResult, nodes: Sequence[Row], places: Layout, size: np.ndarray, theme: Theme, letters: int
) -> list[dict[str, Any]]:
    """Numbers or names beside the most influential features and heads that have room, and the answer beside the root."""
    kinds = result.nodes["kind"]
    root = int(np.flatnonzero(kinds == "root")[0])
    best = result.nodes[kinds.isin(["feature", "head"])].nlargest(LABELLED, "influence").index
    others = places.nodes[(kinds != "rest").to_numpy()]
    right = bool(places.nodes[root, 0] <= places.width / 2)
    found = [_text(places.nodes[root], size[root], f"{result.answer} {result.value:+.1f}", right=right)]
    for place in best:
        (x, y), node = places.nodes[place], nodes[place]
        dx, dy = (others - (x, y)).T
        level = np.abs(dy) < 0.45
        number = f"{node['layer']}.{node['index']}" if node["kind"] == "head" else node["name"] or str(node["index"])
        right = bool(x + LABEL < places.width + 0.9 and not (level & (dx > 0.1) & (dx < LABEL)).any())
        if right or (x > LABEL and not (level & (dx < -0.1) & (dx > -LABEL)).any()):
            found.append(_text(places.nodes[place], size[place], _cut_off(number, NAME), right=right))
    font = {"size": letters - SMALLER, "color": theme.ink}
    return [text | {"font": font, "showarrow": False} for text in found]


def _text(place: np.ndarray, size: float, text: str, *, right: bool) -> dict[str, Any]:
    aside = size / 2 + 3
    side = {"xanchor": "left", "xshift": aside} if right else {"xanchor": "right", "xshift": -aside}
    return {"x": place[0], "y": place[1], "text": html.escape(text)} | side


def _legend(result: CircuitResult, theme: Theme, letters: int) -> dict[str, Any]:
    """What symbols and lines mean, in one line that fits a phone; only what is drawn."""
    kinds = result.nodes["kind"]
    taken = (result.edges["weight"] < 0).to_numpy() & ~kinds.isin(DARK_KINDS).to_numpy()[result.edges["source"]]
    signs = {
        ("●", theme.accent, "feature"): (kinds == "feature").any(),
        ("◆", theme.baselines[0], "head"): (kinds == "head").any(),
        ("■", theme.truth, "token"): (kinds == "embedding").any(),
        ("●", theme.baselines[2], "unexplained"): kinds.isin(DARK_KINDS).any(),
        ("━", theme.accent, "adds"): True,
        ("╍", theme.class_color(0), "takes"): taken.any(),
    }
    said = [
        f"<span style='color:{color}'>{sign}</span>\u00a0{name}"
        for (sign, color, name), drawn in signs.items()
        if drawn
    ]
    return {
        "text": "  ".join(said),
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": letters - SMALLER, "color": theme.muted},
    }


def _bands(places: Layout, theme: Theme) -> list[dict[str, Any]]:
    """Every other row has a ground."""
    return [
        {
            "type": "rect",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": low - 0.3,
            "y1": high + 0.3,
            "fillcolor": theme.grid,
            "opacity": 0.35,
            "line": {"width": 0},
            "layer": "below",
        }
        for _, low, high in places.rows[::2]
    ]


def _axes(fig: go.Figure, result: CircuitResult, places: Layout, theme: Theme, letters: int) -> None:
    texts = [
        "" if result.merged else html.escape(_cut_off(quoted(result.tokens[token])[1:-1], PIECE))
        for token in places.columns
    ]
    quiet = {"showgrid": False, "ticks": "", "showline": False}
    fig.update_xaxes(
        tickvals=[*places.columns.values(), *places.skipped],
        ticktext=[*texts, *["…"] * len(places.skipped)],
        range=[-0.9, places.width + 0.9],
        tickfont={"size": letters},
        autotickangles=[0, 90],
        **quiet,
    )
    fig.update_yaxes(
        tickvals=[(low + high) / 2 for _, low, high in places.rows],
        ticktext=[name for name, _, _ in places.rows],
        range=[-0.75, places.height + 0.6],
        tickfont={"size": letters, "color": theme.muted},
        **quiet,
    )


def _cut_off(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _hover(name: str, lines: Sequence[str]) -> str:
    return "<br>".join([f"<b>{html.escape(name)}</b>", *map(html.escape, lines)])


def _broken(lines: np.ndarray) -> list[float | None]:
    """Several curves in one trace, gaps between them."""
    return [value for line in lines.round(3).tolist() for value in (*line, None)]
