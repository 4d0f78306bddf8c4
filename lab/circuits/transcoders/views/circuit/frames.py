"""A circuit graph as plain tables, as pages draw them: nodes, edges, the waterfall, the likeliest tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from lab.circuits.transcoders.attribution.ablation import CUTTABLE
from lab.circuits.transcoders.attribution.contributions import Attribution
from lab.circuits.transcoders.attribution.frozen_run import Node
from lab.circuits.transcoders.attribution.graph import CircuitGraph, Edge
from lab.circuits.transcoders.models.languages import Language, quoted

Flows = dict[tuple[Node, Node], float]  # by edge
LISTED, WRITES = 10, 3  # tokens in a list; tokens that a feature makes likelier
KINDS = ("head", "feature", "skip", "mlp", "error")  # in the order in which a layer writes them
PARTS = {
    "bias": "biases",
    "embedding": "its token",
    "position": "its position",
    "head": "heads {}",
    "feature": "features {}",
    "error": "missed in {}",
    "mlp": "MLP {}",
    "skip": "linear part {}",
}


def merged(node: Node) -> Node:
    """The one node for all positions of a feature or head."""
    return replace(node, token=-1, source=-1)


def drawn(graph: CircuitGraph, merge: bool) -> tuple[list[tuple[Node, ...]], list[tuple[Edge, ...]]]:
    """What is drawn as one node, and as one edge: those of the graph, if `merge` of all positions together. A rest of nothing
    is not drawn."""
    edges: dict[tuple[Node, Node], list[Edge]] = {}
    for edge in graph.edges:
        if edge.source.kind != "rest" or edge.weight:
            ends = edge.source, edge.target
            edges.setdefault((merged(ends[0]), merged(ends[1])) if merge else ends, []).append(edge)
    kept = {graph.nodes[0]} | {node for same in edges.values() for edge in same for node in (edge.source, edge.target)}
    nodes: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node in kept:
            nodes.setdefault(merged(node) if merge else node, []).append(node)
    return [tuple(same) for same in nodes.values()], [tuple(same) for same in edges.values()]


def in_root_units(graph: CircuitGraph, *, paths: bool) -> Flows:
    """By edge, what it brings to the root through all that is drawn.

    A graph of paths counts so already. In one from an adjacency an edge adds to its target's pre-activation, and what one
    unit of that brings to the root is summed over the target's own edges, readers before writers.
    """
    if paths:
        return {(edge.source, edge.target): edge.weight for edge in graph.edges}
    into_root: dict[Node, float] = dict.fromkeys(graph.nodes, 0.0) | {graph.nodes[0]: 1.0}
    outward: dict[Node, list[Edge]] = {}
    for edge in graph.edges:
        outward.setdefault(edge.source, []).append(edge)
    for node in graph.nodes[1:]:
        if node.kind == "feature":
            into_root[node] = sum(
                edge.weight / graph.fires[node] * into_root[edge.target] for edge in outward.get(node, ())
            )
    return {(edge.source, edge.target): edge.weight * into_root[edge.target] for edge in graph.edges}


def edge_frame(
    groups: Sequence[tuple[Edge, ...]], nodes: Sequence[tuple[Node, ...]], graph: CircuitGraph, flows: Flows
) -> pd.DataFrame:
    """A row a drawn edge, see `CircuitResult`.

    What stands for the rest closes the books of its target, also where not all positions that are drawn as one were traced.
    """
    places = {node: place for place, same in enumerate(nodes) for node in same}
    rows = []
    for same in groups:
        fires = sum({edge.source: graph.fires[edge.source] for edge in same}.values())
        direct = sum(weight for edge in same for _, weight in edge.cuts)
        rows.append(
            {
                "source": places[same[0].source],
                "target": places[same[0].target],
                "weight": sum(flows[edge.source, edge.target] for edge in same),
                "direct": direct,
                "fires": fires,
                "wired": direct / fires if fires else 0.0,
                "readers": len({one for edge in same for one, _ in edge.cuts}),
                "cuttable": all(edge.cuts for edge in same),
            }
        )
    frame = pd.DataFrame(rows)
    rest = frame["source"].map([same[0].kind == "rest" for same in nodes].__getitem__)
    brings = _brings(frame, len(nodes), graph.value)
    known = frame[~rest].groupby("target")["weight"].sum().reindex(frame["target"], fill_value=0.0).to_numpy()
    frame["weight"] = frame["weight"].where(~rest, brings[frame["target"]] - known)
    return frame


def node_frame(
    groups: Sequence[tuple[Node, ...]], edges: pd.DataFrame, graph: CircuitGraph, of: Language, *, merge: bool
) -> pd.DataFrame:
    """A row a drawn node, see `CircuitResult`; in a merged one the token is -1."""
    written = _written(groups, of)
    rows = []
    for same, brings in zip(groups, _brings(edges, len(groups), graph.value).tolist(), strict=True):
        node = merged(same[0]) if merge else same[0]
        rows.append(
            {
                "kind": node.kind,
                "layer": node.layer,
                "token": node.token,
                "index": node.index,
                "source": node.source,
                "fires": sum(graph.fires[one] for one in same),
                "influence": sum(graph.influence[one] for one in same),
                "contribution": brings,
                "label": label(node, graph),
                "writes": written.get((node.layer, node.index), "") if node.kind == "feature" else "",
                "cuttable": node.kind in CUTTABLE,
            }
        )
    return pd.DataFrame(rows)


def _brings(edges: pd.DataFrame, nodes: int, value: float) -> np.ndarray:
    """What each node brings to the root: all that flows out of it; the root itself comes first."""
    found = np.bincount(edges["source"], edges["weight"], minlength=nodes)
    found[0] = value
    return found


def label(node: Node, graph: CircuitGraph) -> str:
    """What a node is, in words.

    >>> from lab.circuits.transcoders.attribution.frozen_run import Node
    >>> label(Node("feature", 2, 1, 77), CircuitGraph((), (), {}, {}, 0.0, tokens=("def", " f")))
    'feature 77 of layer 2 at ‘␣f’'
    """

    def at(token: int) -> str:
        return quoted(graph.tokens[token]) if 0 <= token < len(graph.tokens) else "all positions"

    here = at(node.token)
    if node.kind == "head":
        way = f", {at(node.source)} → {here}" if node.token >= 0 else ""
        return f"head {node.index} of layer {node.layer}{way}"
    if node.kind == "rest":
        of = "the answer" if graph.nodes and node.layer == graph.nodes[0].layer else f"layer {node.layer}"
        return f"what is not drawn, into {of} at {here}"
    return {
        "root": "the answer",
        "feature": f"feature {node.index} of layer {node.layer} at {here}",
        "embedding": f"the token {here}" if node.token >= 0 else "the tokens",
        "position": f"the position of {here}",
        "error": f"what the transcoder of layer {node.layer} misses at {here}",
        "mlp": f"the whole MLP of layer {node.layer} at {here}",
        "skip": f"the linear part of layer {node.layer} at {here}",
        "bias": "biases",
    }[node.kind]


def waterfall(attribution: Attribution, graph: CircuitGraph) -> pd.DataFrame:
    """All contributions to the root by kind and layer, from below; each begins where the one before it ended."""
    found: dict[tuple[str, int], list[tuple[Node, float]]] = {}
    for node, value in zip(attribution.nodes, attribution.values.tolist(), strict=True):
        layer = node.layer if node.kind in KINDS else -1
        found.setdefault((node.kind, layer), []).append((node, value))
    order = {kind: place for place, kind in enumerate(("embedding", "position", *KINDS))}
    rows, end = [], 0.0
    for (kind, layer), parts in sorted(found.items(), key=lambda item: (item[0][1], order.get(item[0][0], -1))):
        value = sum(one for _, one in parts)
        largest = max(parts, key=lambda part: abs(part[1]))
        said = f"{label(largest[0], graph)}: {largest[1]:+.2f}" if kind in ("feature", "head") else ""
        rows.append(
            {
                "part": PARTS[kind].format(layer),
                "kind": kind,
                "layer": layer,
                "value": value,
                "start": end,
                "end": end + value,
                "count": len(parts),
                "largest": said,
            }
        )
        end += value
    return pd.DataFrame(rows)


def direct(graph: CircuitGraph, attribution: Attribution) -> dict[str, float]:
    """What of all that adds to the root is drawn and writes straight into it: how many features and heads, and their share."""
    into = [edge for edge in graph.into(graph.nodes[0]) if edge.source.kind in ("feature", "head") and edge.weight > 0]
    adds = float(attribution.values[attribution.values > 0].sum())
    return {
        "features": sum(edge.source.kind == "feature" for edge in into),
        "heads": sum(edge.source.kind == "head" for edge in into),
        "share": sum(edge.weight for edge in into) / adds if adds else 0.0,
    }


def likely(of: Language, logits: Float[Tensor, " v"], also: Iterable[int] = ()) -> pd.DataFrame:
    """The likeliest next tokens, and some others: piece, token, logit, probability."""
    chosen = _with(logits.topk(min(LISTED, len(logits))).indices.tolist(), also)
    probability = logits.softmax(-1)
    return pd.DataFrame(
        {
            "piece": of.pieces(chosen),
            "token": chosen,
            "logit": logits[chosen].tolist(),
            "probability": probability[chosen].tolist(),
        }
    )


def compared(
    of: Language, before: Float[Tensor, " v"], after: Float[Tensor, " v"], also: Iterable[int] = ()
) -> pd.DataFrame:
    """The likeliest next tokens before and after, and some others: piece, token and the two probabilities."""
    first, then = before.softmax(-1), after.softmax(-1)
    best = torch.maximum(first, then).topk(min(LISTED, len(first))).indices.tolist()
    chosen = _with(best, also)
    columns = {"before": first[chosen].tolist(), "after": then[chosen].tolist()}
    return pd.DataFrame({"piece": of.pieces(chosen), "token": chosen, **columns}).sort_values(
        "before", ascending=False, ignore_index=True, kind="stable"
    )


def _with(chosen: list[int], also: Iterable[int]) -> list[int]:
    return list(dict.fromkeys([*chosen, *also]))


def _written(groups: Sequence[tuple[Node, ...]], of: Language) -> dict[tuple[int, int], str]:
    """By layer and feature, the tokens that it makes likelier by its direct way to the logits."""
    found = {}
    layers = {same[0].layer for same in groups if same[0].kind == "feature"}
    for layer in sorted(layers):
        indices = sorted({same[0].index for same in groups if same[0].kind == "feature" and same[0].layer == layer})
        best = (of.coders[layer].W_dec[indices] @ of.model.W_U).topk(WRITES).indices
        for index, tokens in zip(indices, best.tolist(), strict=True):
            found[layer, index] = ", ".join(map(quoted, of.pieces(tokens)))
    return found
