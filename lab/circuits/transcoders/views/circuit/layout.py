"""Where the nodes of a circuit stand and how its edges run, in units of one marker: tokens across, layers up.

Every pair of token and row is a cell; a cell's nodes stand side by side, in several lines where they are many, so that none
covers another. The same layout serves a projector and a phone: the longest line is as short as the height allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

WIDE, HIGH = 20.0, 15.0  # markers that fit side by side on a phone, and above one another
COLUMN_GAP, ROW_GAP = 0.5, 0.7
ALL_SHOWN = 16  # tokens up to which those without a node keep their place
BARE = 0.4  # width of a token with no node, or none but its own
STUB = (-0.42, -0.40)  # where what is not drawn stands beside its target
ENOUGH, NARROW = 1.2, 0.6  # room around a handle; how wide a unit is on a phone, against its height
MOST_A_LINE, POINTS = 8, 21  # nodes; points of a curve
ALONG = (0.5, 0.4, 0.6, 0.3, 0.7, 0.25, 0.75)  # where on an edge its handle may stand, the best first


@dataclass(frozen=True)
class Layout:
    """Places in units of one marker.

    nodes     [n, 2]; curves [e, 21, 2]: the edges' points; handles [e, 2]: a place on each edge that is nobody else's
    columns   by token that has a place, its middle; `skipped`: middles of the gaps left by tokens without one
    rows      name, lower and upper end of each row, from below
    """

    nodes: np.ndarray
    curves: np.ndarray
    handles: np.ndarray
    columns: dict[int, float]
    skipped: tuple[float, ...]
    rows: tuple[tuple[str, float, float], ...]
    width: float
    height: float


def layout(nodes: pd.DataFrame, edges: pd.DataFrame, tokens: int) -> Layout:
    """Place a circuit's nodes and edges (frames of `CircuitResult`) over a prompt of so many tokens."""
    rows = [_row(kind, layer) for kind, layer in zip(nodes["kind"], nodes["layer"], strict=True)]
    names = sorted({row for row, kind in zip(rows, nodes["kind"], strict=True) if kind != "rest"})
    cells: dict[tuple[int, int], list[int]] = {}
    for place, (own, token, kind) in enumerate(zip(rows, nodes["token"], nodes["kind"], strict=True)):
        if kind != "rest":
            cells.setdefault((names.index(own), int(token)), []).append(place)
    a_line = _nodes_a_line(cells, tokens)
    columns, skipped, width = _columns(cells, a_line, tokens)
    lines = [
        max(math.ceil(len(cell) / a_line) for (row, _), cell in cells.items() if row == at) for at in range(len(names))
    ]
    bottoms = np.concatenate([[0.0], np.cumsum([count + ROW_GAP for count in lines])])
    placed = np.zeros((len(nodes), 2))
    for (row, token), cell in cells.items():
        order = sorted(cell, key=lambda place: (-abs(nodes["contribution"][place]), place))
        for line in range(math.ceil(len(order) / a_line)):
            here = sorted(order[line * a_line : (line + 1) * a_line], key=lambda place: nodes["index"][place])
            for at, place in enumerate(here):
                shift = 0.25 if line % 2 else 0.0  # so that edges pass between the nodes of the line below
                placed[place] = columns[token] + at - (len(here) - 1) / 2 + shift, bottoms[row] + line + 0.5
    for source, target in zip(edges["source"], edges["target"], strict=True):
        if nodes["kind"][source] == "rest":
            placed[source] = placed[target] + STUB
    curves = _curves(placed, edges, nodes)
    handles = _handles(curves, placed, edges["weight"].to_numpy(dtype=float))
    named = tuple((_named(*names[at]), bottoms[at], bottoms[at] + lines[at]) for at in range(len(names)))
    return Layout(placed, curves, handles, columns, skipped, named, width, float(bottoms[-1] - ROW_GAP))


def _row(kind: str, layer: int) -> tuple[int, int]:
    """Order from below: tokens, then of each layer its heads and what stands for its MLP, then the answer."""
    if kind in ("embedding", "position"):
        return -1, 0
    if kind == "root":
        return 10**6, 0
    return layer, 0 if kind == "head" else 1


def _named(layer: int, part: int) -> str:
    if layer == -1:
        return "tokens"
    return "answer" if layer == 10**6 else f"layer {layer}" if part else f"heads {layer}"


def _nodes_a_line(cells: dict[tuple[int, int], list[int]], tokens: int) -> int:
    """How many nodes a cell sets side by side, so that neither width nor height runs out."""

    def crowd(a_line: int) -> float:
        high: dict[int, int] = {}
        for (row, _), cell in cells.items():
            high[row] = max(high.get(row, 1), math.ceil(len(cell) / a_line))
        width = _columns(cells, a_line, tokens)[2]
        return (width / WIDE) ** 2 + ((sum(high.values()) + ROW_GAP * len(high)) / HIGH) ** 2

    return min(range(1, MOST_A_LINE + 1), key=crowd)


def _columns(
    cells: dict[tuple[int, int], list[int]], a_line: int, tokens: int
) -> tuple[dict[int, float], tuple[float, ...], float]:
    """The middle of each token's column, the middles of gaps, and the width of all."""
    wide: dict[int, float] = {}
    held: dict[int, int] = {}
    for (_, token), cell in cells.items():
        wide[token] = max(wide.get(token, 1.0), float(min(a_line, len(cell))))
        held[token] = held.get(token, 0) + len(cell)
    merged = set(wide) == {-1}
    middles: dict[int, float] = {}
    skipped: list[float] = []
    at, before = 0.0, -1
    for token in sorted(wide) if merged or tokens > ALL_SHOWN else range(tokens):
        if token > before + 1 and not merged:
            skipped.append(at + BARE / 2)
            at += BARE + COLUMN_GAP
        width = BARE if held.get(token, 0) <= 1 else wide[token]
        middles[token] = at + width / 2
        at += width + COLUMN_GAP
        before = token
    return middles, tuple(skipped), at - COLUMN_GAP


def _curves(placed: np.ndarray, edges: pd.DataFrame, nodes: pd.DataFrame) -> np.ndarray:
    """Edges leave and arrive upright; those that stay above their source swing aside, past what stands between."""
    sources, targets = (edges[name].to_numpy(dtype=int) for name in ("source", "target"))
    start, end = placed[sources], placed[targets]
    rise = end[:, 1] - start[:, 1]
    aside = np.where(np.abs(end[:, 0] - start[:, 0]) < 1.0, np.minimum(0.35 * np.maximum(rise - 1.5, 0), 1.6), 0.0)
    aside *= np.where(np.arange(len(edges)) % 2, 1.0, -1.0)
    stub = nodes["kind"].to_numpy()[sources] == "rest"
    lift = np.where(stub, 0.0, 0.55) * rise
    first = start + np.stack([aside, lift], 1)
    second = end + np.stack([aside, -lift], 1)
    t = np.linspace(0, 1, POINTS)[None, :, None]
    ways = (start, first, second, end)
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    found: np.ndarray = sum(weight * way[:, None] for weight, way in zip(weights, ways, strict=True))
    return found


def _handles(curves: np.ndarray, placed: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A place on each edge as far as may be from nodes and from other handles; wide edges choose first."""
    choices = curves[:, [round(share * (POINTS - 1)) for share in ALONG]]
    found = np.zeros((len(curves), 2))
    taken = placed
    for place in np.argsort(-np.abs(weight), kind="stable"):
        room = np.linalg.norm((choices[place][:, None] - taken[None]) * (NARROW, 1.0), axis=2).min(1)
        found[place] = choices[place, int(np.minimum(room, ENOUGH).argmax())]
        taken = np.concatenate([taken, found[place][None]])
    return found
