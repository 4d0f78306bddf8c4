r"""Circuits as graphs: from greedy paths, or from the full adjacency pruned by influence; scored, merged, cut.

Edges point from what writes to what reads. In a graph of paths a weight is a contribution in units of the root, summed
over all distinct prefixes that use the edge; in one from an adjacency it is in units of the target's pre-activation. What
is not drawn is drawn too: one grey "rest" a node, so that what enters a node sums to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.circuits.transcoders.attribution.ablation import Ablation, ablate
from lab.circuits.transcoders.attribution.adjacency import Adjacency, influence
from lab.circuits.transcoders.attribution.frozen_run import FrozenRun, Node, Root
from lab.circuits.transcoders.attribution.greedy_paths import Path
from lab.circuits.transcoders.errors import CircuitError

UNEXPLAINED = ("error", "mlp", "rest")


@dataclass(frozen=True)
class Edge:
    """What flows from one node to another.

    weight  as the graph counts, see the module
    cuts    what cutting it takes off, a pair each: a feature (or the root) that reads it, perhaps through heads, and how much
            of that one's own pre-activation comes this way
    """

    source: Node
    target: Node
    weight: float
    cuts: tuple[tuple[Node, float], ...]


@dataclass(frozen=True)
class CircuitGraph:
    """A circuit: nodes (the root first), edges, and how much each node matters.

    fires       by node, a feature's activation, 1 for others
    influence   by node, its share in the root by absolute weights, through all drawn ways
    labels      a reader's own names of features, by (layer, feature)
    tokens      the prompt's pieces of text, if known
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    fires: Mapping[Node, float]
    influence: Mapping[Node, float]
    value: float
    root: Root | None = None
    run: FrozenRun | None = field(default=None, repr=False, compare=False)
    labels: Mapping[tuple[int, int], str] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()

    @classmethod
    def from_paths(cls, paths: Sequence[Path], run: FrozenRun, root: Root, **more: Any) -> CircuitGraph:
        """The graph of some paths to one root; raises CircuitError when there are none."""
        if not paths:
            raise CircuitError("paths: there is no path to draw")
        flows: dict[tuple[Node, ...], tuple[float, float]] = {}
        for path in paths:
            for length in range(2, len(path.nodes) + 1):
                flows[path.nodes[:length]] = path.values[length - 1], path.units[length - 2]
        value = paths[0].values[0]
        weights: dict[tuple[Node, Node], float] = {}
        tails: dict[tuple[Node, ...], float] = {}
        inward: dict[Node, float] = {paths[0].nodes[0]: value}
        drawn: dict[Node, float] = {}
        for prefix, (flow, unit) in flows.items():
            source, target = prefix[-1], prefix[-2]
            weights[source, target] = weights.get((source, target), 0.0) + flow
            start = max(place for place, node in enumerate(prefix[:-1]) if node.kind != "head")
            if unit:  # several paths may share the tail from what reads to the source: it flows there once
                tails[prefix[start:]] = flow / unit
            inward[source] = inward.get(source, 0.0) + flow
        for source, target in weights:
            drawn[target] = drawn.get(target, 0.0) + weights[source, target]
        cuts: dict[tuple[Node, Node], dict[Node, float]] = {pair: {} for pair in weights}
        for tail, flow in tails.items():
            taken = cuts[tail[-1], tail[-2]]
            taken[tail[0]] = taken.get(tail[0], 0.0) + flow
        edges = [Edge(*pair, weight, tuple(cuts[pair].items())) for pair, weight in weights.items()]
        for target, explained in drawn.items():
            rest = Node("rest", target.layer, target.token, target.index, target.source)
            edges.append(Edge(rest, target, inward[target] - explained, ()))
        fires = {node: _fires(run, node) for node in inward}
        return cls.of_edges(edges, paths[0].nodes[0], fires, value, root=root, run=run, **more)

    @classmethod
    def from_adjacency(
        cls, graph: Adjacency, root: Root, *, node: float = 0.8, edge: float = 0.98, **more: Any
    ) -> CircuitGraph:
        """The part of an adjacency that carries the shares `node` and `edge` of the influence, see `prune`."""
        nodes, edges = _kept(
            graph.shares(), graph.targets, _embeddings(graph.sources), _features(graph.sources), node, edge
        )
        found: list[Edge] = []
        targets = (graph.root, *(graph.sources[place] for place in graph.targets.tolist()))
        rests = dict.fromkeys(range(len(targets)), 0.0)
        for row, column in edges.nonzero().tolist():
            weight = float(graph.weights[row, column])
            rests[row] += weight
            found.append(Edge(graph.sources[column], targets[row], weight, ((targets[row], weight),)))
        for row, drawn in rests.items():
            if row == 0 or nodes[graph.targets[row - 1]]:
                target = targets[row]
                rest = Node("rest", target.layer, target.token, target.index, target.source)
                found.append(Edge(rest, target, float(graph.values[row]) - drawn, ()))
        fires = dict(zip(graph.sources, graph.fires.tolist(), strict=True))
        return cls.of_edges(found, graph.root, fires, float(graph.values[0]), root=root, run=graph.run, **more)

    @classmethod
    def of_edges(
        cls, edges: Sequence[Edge], start: Node, fires: Mapping[Node, float], value: float, **more: Any
    ) -> CircuitGraph:
        """The graph of some edges towards the root `start`, of which `value` is known."""
        order = sorted({node for edge in edges for node in (edge.source, edge.target)} - {start}, key=_height)
        nodes = (start, *order)
        shares, targets = _rows(nodes, edges)
        matters = dict(zip(nodes[1:], influence(shares, targets).tolist(), strict=True)) | {start: 1.0}
        return cls(nodes, tuple(edges), {node: fires.get(node, 1.0) for node in nodes}, matters, value, **more)

    def into(self, node: Node) -> list[Edge]:
        """The edges that end in a node, the largest first."""
        return sorted((edge for edge in self.edges if edge.target == node), key=lambda edge: -abs(edge.weight))

    def gap(self) -> float:
        """By how much what flows into the root misses it, relative to the sum of sizes; "rest" included."""
        flows = [edge.weight for edge in self.into(self.nodes[0])]
        return abs(sum(flows) - self.value) / max(sum(map(abs, flows)), 1e-300)

    def prune(self, node: float = 0.8, edge: float = 0.98) -> CircuitGraph:
        """Keep nodes that carry the share `node` of all influence, then edges that carry the share `edge` of what is left.

        Embeddings stay. Features without a way in, or nodes without a way to the root, are dropped until nothing changes
        (Ameisen et al., 2025); what goes is added to its target's "rest". Raises CircuitError for shares outside 0 ... 1.
        """
        plain = [one for one in self.edges if one.source.kind != "rest"]
        nodes = (self.nodes[0], *(one for one in self.nodes[1:] if one.kind != "rest"))
        shares, targets = _rows(nodes, plain)
        kept, edges = _kept(shares, targets, _embeddings(nodes[1:]), _features(nodes[1:]), node, edge)
        places = {one: place for place, one in enumerate(nodes[1:])}
        rows = {nodes[0]: 0} | {nodes[1 + place]: row + 1 for row, place in enumerate(targets.tolist())}
        left: list[Edge] = []
        rests = {one.target: one.weight for one in self.edges if one.source.kind == "rest"}
        for one in plain:
            if bool(edges[rows[one.target], places[one.source]]):
                left.append(one)
            else:
                rests[one.target] = rests.get(one.target, 0.0) + one.weight
        for target, weight in rests.items():
            if target == nodes[0] or bool(kept[places[target]]):
                rest = Node("rest", target.layer, target.token, target.index, target.source)
                left.append(Edge(rest, target, weight, ()))
        more = {"root": self.root, "run": self.run, "labels": self.labels, "tokens": self.tokens}
        return CircuitGraph.of_edges(left, nodes[0], self.fires, self.value, **more)

    def scores(self) -> dict[str, float]:
        """How much of the circuit is explained, in 0 ... 1.

        replacement   of the influence that reaches leaves, the share that reaches embeddings and positions
        completeness  averaged over nodes by their influence, the share of what flows in that is no error and no rest
        """
        shares, targets = _rows(self.nodes, self.edges)
        matters = influence(shares, targets)
        sources = self.nodes[1:]
        leaf = torch.ones(len(sources), dtype=torch.bool)
        leaf[targets] = False
        known = torch.tensor([node.kind in ("embedding", "position", "bias") for node in sources])
        blind = torch.tensor([node.kind in UNEXPLAINED for node in sources])
        reached = float(matters[leaf].sum())
        weights = torch.cat([torch.ones(1, dtype=matters.dtype), matters[targets]])
        explained = 1 - shares[:, blind].sum(1)
        return {
            "replacement": float(matters[leaf & known].sum()) / reached if reached else 0.0,
            "completeness": float((explained * weights).sum() / weights.sum()),
        }

    def ablate(self, nodes: Iterable[Node] = (), edges: Iterable[Edge] = (), *, frozen: bool = False) -> Ablation:
        """Cut some nodes and edges of it and run the prompt again, see `ablate`.

        Raises CircuitError for a graph that has no prompt (read from a file), and for what cannot be cut.
        """
        if self.run is None or self.root is None:
            raise CircuitError("this graph knows no model and prompt any more: ablate the graph it was made from")
        flows = []
        for edge in edges:
            if not edge.cuts:
                raise CircuitError(f"what is not drawn ({edge.source.kind}) cannot be cut")
            flows += [(edge.source, target, weight) for target, weight in edge.cuts]
        return ablate(self.run, self.root, nodes, flows, frozen=frozen)


def _fires(run: FrozenRun, node: Node) -> float:
    if node.kind == "head":
        return float(run.pattern(node.layer)[node.index, node.token, node.source])
    if node.kind != "feature":
        return 1.0
    active = run.active[node.layer]
    return float(active.z[node.token, int((active.features == node.index).nonzero()[0, 0])])


def _height(node: Node) -> tuple[int, int, Node]:
    """Readers before writers."""
    return -node.layer, 0 if node.kind == "rest" else 1, node


def _embeddings(nodes: Sequence[Node]) -> Bool[Tensor, " n"]:
    return torch.tensor([node.kind in ("embedding", "position") for node in nodes], dtype=torch.bool)


def _features(nodes: Sequence[Node]) -> Bool[Tensor, " n"]:
    return torch.tensor([node.kind in ("feature", "head") for node in nodes], dtype=torch.bool)


def _rows(nodes: Sequence[Node], edges: Iterable[Edge]) -> tuple[Float[Tensor, "rows n"], Int[Tensor, " r"]]:
    """Shares of |weight| by target, the root's row first, and which of the other nodes the rows belong to."""
    places = {node: place for place, node in enumerate(nodes)}
    size = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    for edge in edges:
        size[places[edge.target], places[edge.source]] += abs(edge.weight)
    targets = size[1:].sum(1).nonzero()[:, 0]
    rows = torch.cat([size[:1], size[1:][targets]])[:, 1:]
    return rows / rows.sum(1, keepdim=True).clamp_min(1e-300), targets


def _kept(
    shares: Float[Tensor, "rows n"],
    targets: Int[Tensor, " r"],
    always: Bool[Tensor, " n"],
    needs_input: Bool[Tensor, " n"],
    node: float,
    edge: float,
) -> tuple[Bool[Tensor, " n"], Bool[Tensor, "rows n"]]:
    """Which nodes and edges carry the wanted shares of the influence."""
    for name, share in (("node", node), ("edge", edge)):
        if not 0 <= share <= 1:
            raise CircuitError(f"{name} is a share of the influence and must lie in 0 ... 1, got {share}")
    nodes = _covering(influence(shares, targets), node) | always
    rows = torch.cat([torch.ones(1, dtype=torch.bool), nodes[targets]])
    inside = shares * rows[:, None] * nodes
    inside = inside / inside.sum(1, keepdim=True).clamp_min(1e-300)
    weight = torch.cat([torch.ones(1, dtype=inside.dtype), influence(inside, targets)[targets]])
    edges = _covering((inside * weight[:, None]).flatten(), edge).view_as(inside) & (inside > 0)
    while True:
        out = edges.any(0)
        has_row = torch.zeros_like(nodes)
        has_row[targets] = edges[1:].any(1)
        left = nodes & (out | always) & (has_row | ~needs_input | always)
        if bool((left == nodes).all()):
            return nodes & out, edges
        nodes = left
        rows = torch.cat([torch.ones(1, dtype=torch.bool), nodes[targets]])
        edges = edges & rows[:, None] & nodes


def _covering(score: Float[Tensor, " n"], share: float) -> Bool[Tensor, " n"]:
    """The fewest entries whose sum is at least the share of the whole; none that are zero."""
    order = score.argsort(descending=True, stable=True)
    total = score[order].cumsum(0)
    count = int((total < share * total[-1] * (1 - 1e-12)).sum()) + (share > 0)
    found = torch.zeros(len(score), dtype=torch.bool)
    found[order[:count]] = True
    return found & (score > 0)
