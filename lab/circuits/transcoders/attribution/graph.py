r"""Circuits as graphs: from greedy paths, or from the full adjacency pruned by influence; scored and cut.

Edges point from what writes to what reads. In a graph of paths a weight is a contribution in units of the root, summed
over all distinct prefixes that use the edge; in one from an adjacency it is in units of the target's pre-activation.
Everything pruned away is kept as one grey "rest" node per target, so the incoming edges of a node sum to its value.

A node's influence counts the absolute weights of all ways to the root: with $A_{rn}=|w_{rn}|/\sum_m|w_{rm}|$ and the
root's row p,

$$ I = p\,(1+A+A^2+\dots) . \tag{1} $$

Pruning keeps the fewest nodes that carry the share `node` of $\sum_n I_n$, then the fewest edges that carry the share
`edge` of $\sum_{rn} I_r A_{rn}$ among them (Ameisen et al., 2025), where the root has $I=1$.
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

    Parameters
    ----------
    source, target : Node
        What writes, and what reads.
    weight : float
        In units of the root in a graph of paths, of the target's pre-activation in one from an adjacency.
    cuts : tuple of (Node, float)
        What cutting the edge takes off: each feature (or the root) that reads the source, perhaps through heads, and how
        much of its own pre-activation comes this way. Empty for an edge from a "rest", which cannot be cut.

    Examples
    --------
    >>> feature, root = Node("feature", 0, 1, 7), Node("feature", 1, 2, 3)
    >>> Edge(feature, root, 0.5, ((root, 0.5),)).weight
    0.5
    """

    source: Node
    target: Node
    weight: float
    cuts: tuple[tuple[Node, float], ...]


@dataclass(frozen=True)
class CircuitGraph:
    """A circuit: nodes, edges, and how much each node matters.

    Made by `from_paths` or `from_adjacency`; written to and read from files by `graph_json.GraphFile`.

    Parameters
    ----------
    nodes : tuple of Node
        The root first, then readers before writers.
    edges : tuple of Edge
        Those into a node sum to its value, its "rest" included.
    fires : mapping of Node to float
        A feature's activation, a head's attention, 1 for others.
    influence : mapping of Node to float
        Equation (1) of the module over the graph's own edges; 1 for the root.
    value : float
        The root: a pre-activation, or a difference of logits.
    root, run : optional
        What is explained, and the frozen prompt; a graph that was read from a file has neither and cannot be cut.
    labels : mapping of (layer, feature) to str
        A reader's own names of features.
    tokens : tuple of str
        The prompt's pieces of text, if known.

    References
    ----------
    Dunefsky, Chlenski and Nanda, "Transcoders Find Interpretable LLM Feature Circuits", 2024, Section 4 (paths);
    Ameisen et al., "Circuit Tracing", 2025 (influence).

    Examples
    --------
    >>> from lab.circuits.transcoders.attribution.adjacency import adjacency
    >>> from lab.circuits.transcoders.attribution.frozen_run import LogitDiff
    >>> from lab.circuits.transcoders.hooked import HookedGPT
    >>> run, root = FrozenRun(HookedGPT.tiny(), {}, torch.tensor([0, 3, 1])), LogitDiff((2,), (4,))
    >>> graph = CircuitGraph.from_adjacency(adjacency(run, root), root, node=1.0, edge=1.0)
    >>> graph.nodes[0].kind, graph.gap() < 1e-4
    ('root', True)
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
        """The graph of some paths to one root; `more` are `labels` and `tokens`.

        Two paths that begin alike share the flow along what they have in common: it counts once. Raises CircuitError when
        there is no path.
        """
        if not paths:
            raise CircuitError("paths: there is no path to draw")
        flows: dict[tuple[Node, ...], tuple[float, float]] = {}  # by prefix: its value, and the unit of its last reader
        for path in paths:
            for length in range(2, len(path.nodes) + 1):
                flows[path.nodes[:length]] = path.values[length - 1], path.units[length - 2]
        value = paths[0].values[0]
        weights: dict[tuple[Node, Node], float] = {}
        tails: dict[
            tuple[Node, ...], float
        ] = {}  # from what reads, through heads, to the source: flow in its own units
        inward: dict[Node, float] = {paths[0].nodes[0]: value}  # what the node brings to the root over all drawn ways
        explained: dict[Node, float] = {}
        for prefix, (flow, unit) in flows.items():
            source, target = prefix[-1], prefix[-2]
            weights[source, target] = weights.get((source, target), 0.0) + flow
            start = max(number for number, node in enumerate(prefix[:-1]) if node.kind != "head")
            if unit:  # several paths may share the tail from what reads to the source: it flows there once
                tails[prefix[start:]] = flow / unit
            inward[source] = inward.get(source, 0.0) + flow
        for source, target in weights:
            explained[target] = explained.get(target, 0.0) + weights[source, target]
        cuts: dict[tuple[Node, Node], dict[Node, float]] = {pair: {} for pair in weights}
        for tail, flow in tails.items():
            taken = cuts[tail[-1], tail[-2]]
            taken[tail[0]] = taken.get(tail[0], 0.0) + flow
        edges = [Edge(*pair, weight, tuple(cuts[pair].items())) for pair, weight in weights.items()]
        edges += [_rest(target, inward[target] - drawn) for target, drawn in explained.items()]
        fires = {node: _fires(run, node) for node in inward}
        return cls.of_edges(edges, paths[0].nodes[0], fires, value, root=root, run=run, **more)

    @classmethod
    def from_adjacency(
        cls, graph: Adjacency, root: Root, *, node: float = 0.8, edge: float = 0.98, **more: Any
    ) -> CircuitGraph:
        """The part of an adjacency that carries the shares `node` and `edge` of the influence, see `prune`."""
        nodes, edges = _prune(
            graph.shares(), graph.targets, _embeddings(graph.sources), _features(graph.sources), node, edge
        )
        drawn_edges: list[Edge] = []
        targets = (graph.root, *(graph.sources[column] for column in graph.targets.tolist()))
        drawn = dict.fromkeys(range(len(targets)), 0.0)
        for row, column in edges.nonzero().tolist():
            weight = float(graph.weights[row, column])
            drawn[row] += weight
            drawn_edges.append(Edge(graph.sources[column], targets[row], weight, ((targets[row], weight),)))
        for row, explained in drawn.items():
            if row == 0 or nodes[graph.targets[row - 1]]:
                drawn_edges.append(_rest(targets[row], float(graph.values[row]) - explained))
        fires = dict(zip(graph.sources, graph.fires.tolist(), strict=True))
        return cls.of_edges(drawn_edges, graph.root, fires, float(graph.values[0]), root=root, run=graph.run, **more)

    @classmethod
    def of_edges(
        cls, edges: Sequence[Edge], start: Node, fires: Mapping[Node, float], value: float, **more: Any
    ) -> CircuitGraph:
        """The graph of some edges towards the root `start`, of which `value` is known."""
        order = sorted({node for edge in edges for node in (edge.source, edge.target)} - {start}, key=_height)
        nodes = (start, *order)
        shares, targets = _rows(nodes, edges)
        share = dict(zip(nodes[1:], influence(shares, targets).tolist(), strict=True)) | {start: 1.0}
        return cls(nodes, tuple(edges), {node: fires.get(node, 1.0) for node in nodes}, share, value, **more)

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
        known = [each for each in self.edges if each.source.kind != "rest"]
        nodes = (self.nodes[0], *(each for each in self.nodes[1:] if each.kind != "rest"))
        shares, targets = _rows(nodes, known)
        kept_nodes, kept_edges = _prune(shares, targets, _embeddings(nodes[1:]), _features(nodes[1:]), node, edge)
        columns = {each: column for column, each in enumerate(nodes[1:])}
        rows = {nodes[0]: 0} | {nodes[1 + column]: row + 1 for row, column in enumerate(targets.tolist())}
        edges: list[Edge] = []
        rests = {each.target: each.weight for each in self.edges if each.source.kind == "rest"}
        for each in known:
            if bool(kept_edges[rows[each.target], columns[each.source]]):
                edges.append(each)
            else:
                rests[each.target] = rests.get(each.target, 0.0) + each.weight
        for target, weight in rests.items():
            if target == nodes[0] or bool(kept_nodes[columns[target]]):
                edges.append(_rest(target, weight))
        more = {"root": self.root, "run": self.run, "labels": self.labels, "tokens": self.tokens}
        return CircuitGraph.of_edges(edges, nodes[0], self.fires, self.value, **more)

    def scores(self) -> dict[str, float]:
        """How much of the circuit is explained, in 0 ... 1.

        replacement   of the influence that reaches leaves, the share that reaches embeddings and positions
        completeness  averaged over nodes by their influence, the share of what flows in that is neither error nor rest
        """
        shares, targets = _rows(self.nodes, self.edges)
        share = influence(shares, targets)
        sources = self.nodes[1:]
        leaf = torch.ones(len(sources), dtype=torch.bool)
        leaf[targets] = False
        known = torch.tensor([node.kind in ("embedding", "position", "bias") for node in sources])
        unexplained = torch.tensor([node.kind in UNEXPLAINED for node in sources])
        # sum of I over known leaves / sum of I over all leaves
        reached = float(share[leaf].sum())
        # sum_r I_r (1 - sum of A_rn over unexplained n) / sum_r I_r, the root with I = 1
        weights = torch.cat([torch.ones(1, dtype=share.dtype), share[targets]])
        explained = 1 - shares[:, unexplained].sum(1)
        return {
            "replacement": float(share[leaf & known].sum()) / reached if reached else 0.0,
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


def _rest(target: Node, weight: float) -> Edge:
    """The edge from everything into a target that is not drawn."""
    return Edge(Node("rest", target.layer, target.token, target.index, target.source), target, weight, ())


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
    number = {node: position for position, node in enumerate(nodes)}
    size = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    for edge in edges:
        size[number[edge.target], number[edge.source]] += abs(edge.weight)
    targets = size[1:].sum(1).nonzero()[:, 0]
    rows = torch.cat([size[:1], size[1:][targets]])[:, 1:]
    return rows / rows.sum(1, keepdim=True).clamp_min(1e-300), targets


def _prune(
    shares: Float[Tensor, "rows n"],
    targets: Int[Tensor, " r"],
    always: Bool[Tensor, " n"],
    needs_input: Bool[Tensor, " n"],
    node: float,
    edge: float,
) -> tuple[Bool[Tensor, " n"], Bool[Tensor, "rows n"]]:
    """Which nodes and edges carry the wanted shares of the influence.

    shares, targets   see `influence`; always: nodes that stay; needs_input: nodes that go when nothing flows into them
    """
    for name, share in (("node", node), ("edge", edge)):
        if not 0 <= share <= 1:
            raise CircuitError(f"{name} is a share of the influence and must lie in 0 ... 1, got {share}")
    # 1. The fewest nodes that carry the share `node` of the influence I (equation 1).
    nodes = _fewest(influence(shares, targets), node) | always
    # 2. Rows of what is left, summing to one again; an edge weighs I_r A_rn, with I anew; the root's row has I = 1.
    rows = torch.cat([torch.ones(1, dtype=torch.bool), nodes[targets]])
    inside = shares * rows[:, None] * nodes
    inside = inside / inside.sum(1, keepdim=True).clamp_min(1e-300)
    weight = torch.cat([torch.ones(1, dtype=inside.dtype), influence(inside, targets)[targets]])
    edges = _fewest((inside * weight[:, None]).flatten(), edge).view_as(inside) & (inside > 0)
    # 3. Drop nodes without a way to the root and features without a way in, with their edges, until nothing changes.
    while True:
        has_output = edges.any(0)
        has_input = torch.zeros_like(nodes)
        has_input[targets] = edges[1:].any(1)
        connected = nodes & (has_output | always) & (has_input | ~needs_input | always)
        if bool((connected == nodes).all()):
            return nodes & has_output, edges
        nodes = connected
        rows = torch.cat([torch.ones(1, dtype=torch.bool), nodes[targets]])
        edges = edges & rows[:, None] & nodes


def _fewest(score: Float[Tensor, " n"], share: float) -> Bool[Tensor, " n"]:
    """The fewest entries whose sum is at least the share of the whole; none that are zero."""
    order = score.argsort(descending=True, stable=True)
    total = score[order].cumsum(0)
    count = int((total < share * total[-1] * (1 - 1e-12)).sum()) + (share > 0)
    chosen = torch.zeros(len(score), dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen & (score > 0)
