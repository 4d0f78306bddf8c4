"""Paths, graphs and cuts: greedy is exhaustive with enough branches, sums close, cuts do what the graph says."""

from __future__ import annotations

import itertools

import circuit_toys
import pytest
import torch

from lab.circuits.transcoders.attribution.ablation import ablate
from lab.circuits.transcoders.attribution.adjacency import adjacency
from lab.circuits.transcoders.attribution.contributions import attribute_run
from lab.circuits.transcoders.attribution.frozen_run import Feature, FrozenRun, LogitDiff, Node
from lab.circuits.transcoders.attribution.graph import CircuitGraph
from lab.circuits.transcoders.attribution.graph_json import GraphFile
from lab.circuits.transcoders.attribution.greedy_paths import Path, greedy_paths
from lab.circuits.transcoders.errors import CircuitError

ROOT = LogitDiff((3,), (4,))
EVERYTHING = 10_000


def run(layers: int = 2, skip: tuple[int, ...] = (), length: int = 5) -> FrozenRun:
    return FrozenRun(circuit_toys.model(layers), circuit_toys.coders(layers, skip=skip), circuit_toys.prompt(length))


def by_hand(frozen: FrozenRun, depth: int) -> dict[tuple[Node, ...], float]:
    """All paths of up to so many steps, one node at a time, straight from the formulas."""
    model = frozen.model
    root, reader, _ = frozen.root(ROOT)
    layers = model.cfg.n_layers
    found: dict[tuple[Node, ...], float] = {}

    def centred(v: torch.Tensor, name: str, token: int) -> torch.Tensor:
        return (v - v.mean()) / frozen.at(f"{name}.hook_scale")[token]

    def walk(nodes: tuple[Node, ...], v: torch.Tensor, token: int, heads: int, mlps: int) -> None:
        if len(nodes) > depth:
            return
        embedding = (*nodes, Node("embedding", -1, token))
        found[embedding] = float((model.W_E[frozen.tokens[token]] + model.W_pos[token]) @ v)
        for layer in range(mlps):
            coder = frozen.coders[layer]
            z = coder.encode(frozen.inputs(layer))[token]
            for index in z.nonzero()[:, 0].tolist():
                wired = coder.W_dec[index] @ v
                path = (*nodes, Node("feature", layer, token, index))
                found[path] = float(z[index] * wired)
                walk(
                    path, wired * centred(coder.W_enc[:, index], f"blocks.{layer}.ln2", token), token, layer + 1, layer
                )
        for layer, head, source in itertools.product(range(heads), range(model.cfg.n_heads), range(token + 1)):
            attention = frozen.pattern(layer)[head, token, source]
            value = frozen.at(f"blocks.{layer}.ln1.hook_normalized")[source] @ model.W_V[layer, head]
            path = (*nodes, Node("head", layer, token, head, source))
            found[path] = float(attention * value @ model.W_O[layer, head] @ v)
            if layer > 0:
                back = attention * model.W_V[layer, head] @ (model.W_O[layer, head] @ v)
                walk(path, centred(back, f"blocks.{layer}.ln1", source), source, layer, layer)

    walk((root,), reader.directions[0], len(frozen) - 1, layers, layers)
    return found


def test_with_enough_branches_greedy_is_exhaustive() -> None:
    frozen = run()
    expected = by_hand(frozen, 3)
    found = {path.nodes: path.value for path in greedy_paths(attribute_run(frozen, ROOT), 3, EVERYTHING)}
    assert set(found) == set(expected) and len(found) > 500
    assert all(value == pytest.approx(expected[nodes], abs=1e-9) for nodes, value in found.items())


def test_few_branches_keep_the_best_of_each_step_and_more_lose_none_of_the_first() -> None:
    frozen = run(3)
    attribution = attribute_run(frozen, ROOT)
    first = {length: [path for path in greedy_paths(attribution, 1, length)] for length in (3, 8)}
    assert {path.nodes for path in first[3]} <= {path.nodes for path in first[8]}
    direct = sorted((value for path, value in by_hand(frozen, 1).items()), reverse=True)[:8]
    assert [path.value for path in first[8]] == pytest.approx(direct)
    paths = greedy_paths(attribution, 3, 4)
    assert [len(path.nodes) for path in paths] == sorted(len(path.nodes) for path in paths) and len(paths) <= 12
    best = {branches: max(path.value for path in greedy_paths(attribution, 3, branches)) for branches in (1, 4, 16)}
    assert best[1] <= best[4] <= best[16]


def test_only_the_kinds_asked_for() -> None:
    frozen = run()
    attribution = attribute_run(frozen, ROOT)
    only = greedy_paths(attribution, 2, EVERYTHING, kinds=frozenset({"feature"}))
    assert {node.kind for path in only for node in path.nodes[1:]} == {"feature"}
    every = greedy_paths(attribution, 2, EVERYTHING)
    assert {node.kind for path in every for node in path.nodes[1:]} == {"feature", "head", "embedding"}
    assert any(node.source == 0 for path in every for node in path.nodes)
    assert greedy_paths(attribution, 2, 5, kinds=frozenset()) == []


def test_the_graph_of_paths_sums_to_its_root_and_to_each_parent() -> None:
    frozen = run(3, skip=(1,))
    paths = greedy_paths(attribute_run(frozen, ROOT), 3, 15)
    graph = CircuitGraph.from_paths(paths, frozen, ROOT)
    assert graph.gap() < 1e-12 and graph.nodes[0].kind == "root"
    inward = {graph.nodes[0]: graph.value}
    for edge in graph.edges:
        inward[edge.source] = inward.get(edge.source, 0.0) + edge.weight
    for node in graph.nodes:
        if flows := [edge.weight for edge in graph.into(node)]:
            assert sum(flows) == pytest.approx(inward[node], abs=1e-9)


def test_an_edge_used_by_two_paths_carries_both() -> None:
    frozen = run()
    root, top = frozen.root(ROOT)[0], Node("feature", 1, 4, int(frozen.active[1].features[0]))
    middle, low = Node("head", 1, 4, 0, 2), Node("embedding", -1, 2)
    paths = [
        Path((root, top, middle, low), (5.0, 2.0, 1.0, 0.5), (1.0, 0.5, 0.5, 0.5)),
        Path((root, middle, low), (5.0, 0.25, 0.125), (1.0, 1.0, 1.0)),
    ]
    graph = CircuitGraph.from_paths(paths, frozen, ROOT)
    shared = next(edge for edge in graph.edges if edge.source == low)
    assert shared.weight == pytest.approx(0.625)
    assert dict(shared.cuts) == {top: pytest.approx(1.0), root: pytest.approx(0.125)}


def test_an_edge_into_a_feature_that_two_paths_reach_is_cut_once() -> None:
    frozen = run(3)
    graph = CircuitGraph.from_paths(greedy_paths(attribute_run(frozen, ROOT), 3, 400), frozen, ROOT)
    checked = 0
    for edge in graph.edges:
        if edge.source.kind == edge.target.kind == "feature":
            coder, target = frozen.coders[edge.target.layer], edge.target
            direction = coder.W_enc[:, target.index]
            scale = frozen.at(f"blocks.{target.layer}.ln2.hook_scale")[target.token]
            wired = frozen.coders[edge.source.layer].W_dec[edge.source.index] @ (direction - direction.mean()) / scale
            assert dict(edge.cuts) == {target: pytest.approx(float(wired) * graph.fires[edge.source])}
            checked += 1
    assert checked > 50


def test_whole_shares_keep_all_that_matters_and_halves_keep_less() -> None:
    frozen = run(3)
    whole = adjacency(frozen, ROOT, max_targets=EVERYTHING)
    graph = CircuitGraph.from_adjacency(whole, ROOT, node=1.0, edge=1.0)
    drawn = {node for node in graph.nodes if node.kind not in ("root", "rest")}
    matters = {node for node, value in zip(whole.sources, whole.influence(), strict=True) if value > 0}
    assert drawn == matters
    half = CircuitGraph.from_adjacency(whole, ROOT, node=0.5, edge=0.8)
    assert 1 < len(half.nodes) < len(graph.nodes) and half.gap() < 1e-12
    again = graph.prune(0.5, 0.8)
    assert {node for node in again.nodes if node.kind != "rest"} == {node for node in half.nodes if node.kind != "rest"}
    for node in half.nodes:
        if node.kind == "feature":
            assert half.into(node) and any(edge.source == node for edge in half.edges)
            value = float(whole.values[1 + whole.targets.tolist().index(whole.sources.index(node))])
            assert sum(edge.weight for edge in half.into(node)) == pytest.approx(value)


def test_scores_of_graphs_whose_answer_is_known() -> None:
    frozen = run()
    root, reading, error = Node("root", 2, 4), Node("embedding", -1, 4), Node("error", 1, 4)
    feature = Node("feature", 1, 4, 3)

    def graph(flows: dict[tuple[Node, Node], float]) -> CircuitGraph:
        from lab.circuits.transcoders.attribution.graph import Edge

        edges = [Edge(source, target, weight, ()) for (source, target), weight in flows.items()]
        return CircuitGraph.of_edges(edges, root, {}, sum(flows.values()), run=frozen)

    explained = graph({(feature, root): 2.0, (reading, feature): -1.0})
    assert explained.scores() == {"replacement": 1.0, "completeness": 1.0}
    half = graph({(feature, root): 1.0, (error, root): -1.0, (reading, feature): 3.0})
    assert half.scores() == {"replacement": 0.5, "completeness": pytest.approx((0.5 * 1 + 1 * 0.5) / 1.5)}


def test_a_graph_survives_its_file() -> None:
    frozen = run(3)
    pieces = tuple(f"t{token}" for token in range(len(frozen)))
    graph = CircuitGraph.from_adjacency(adjacency(frozen, ROOT, max_targets=50), ROOT, tokens=pieces)
    read = GraphFile.read(GraphFile(graph, "toy", "toy-model").to_json().encode()).graph
    with pytest.raises(CircuitError, match="knows no model and prompt"):
        read.ablate()

    def flows_of(some: CircuitGraph) -> dict[tuple[Node, int, int], float]:
        drawn = [edge for edge in some.edges if edge.source.kind == "feature"]
        return {(edge.source, edge.target.layer, edge.target.token): edge.weight for edge in drawn}

    flows, again = flows_of(graph), flows_of(read)
    assert len(flows) > 3 and set(flows) == set(again) and again == pytest.approx(flows, rel=1e-5)


def test_cutting_nothing_changes_nothing() -> None:
    frozen = run(3, skip=(1,))
    for still in (True, False):
        assert ablate(frozen, ROOT, frozen=still).effect == pytest.approx(0, abs=1e-10)


def test_in_the_frozen_stand_in_a_cut_does_what_the_edge_says() -> None:
    """At the root: cutting an edge takes exactly its weight away, in graphs of paths and of influence alike."""
    frozen = run(3)
    attribution = attribute_run(frozen, ROOT)
    for graph in (
        CircuitGraph.from_paths(greedy_paths(attribution, 2, 10), frozen, ROOT),
        CircuitGraph.from_adjacency(adjacency(frozen, ROOT, max_targets=50), ROOT),
    ):
        edges = [edge for edge in graph.into(graph.nodes[0]) if edge.cuts]
        assert len(edges) > 2
        for edge in edges:
            assert graph.ablate(edges=[edge], frozen=True).effect == pytest.approx(-edge.weight, abs=1e-9)
    top = [node for node, _ in attribution.top(40) if node.kind == "feature" and node.layer == 2]
    for node in top[:5]:
        flow = attribution.values[attribution.nodes.index(node)]
        assert ablate(frozen, ROOT, [node], frozen=True).effect == pytest.approx(-flow, abs=1e-9)


def test_a_live_cut_is_the_model_run_by_hand() -> None:
    frozen = run(2)
    layer, token = 1, len(frozen) - 1
    coder = frozen.coders[layer]
    z = coder.encode(frozen.inputs(layer))[token]
    index = int(z.argmax())
    found = ablate(frozen, ROOT, [Node("feature", layer, token, index)])

    def without(out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[0, token] -= z[index] * coder.W_dec[index]
        return out

    logits = frozen.model(frozen.tokens[None], edits={f"blocks.{layer}.hook_mlp_out": without})[0, -1]
    assert torch.allclose(found.logits_after, logits) and found.after == pytest.approx((logits[3] - logits[4]).item())
    embedding = ablate(frozen, ROOT, [Node("embedding", -1, 2)]).logits_after

    def blank(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value[0, 2] = 0
        return value

    assert torch.allclose(embedding, frozen.model(frozen.tokens[None], edits={"hook_embed": blank})[0, -1])


def test_every_kind_that_can_be_cut_moves_the_root() -> None:
    frozen = FrozenRun(circuit_toys.model(3), {1: circuit_toys.coders(3, skip=(1,))[1]}, circuit_toys.prompt(5))
    index = int(frozen.active[1].features[frozen.active[1].z[4].argmax()])
    for node in (
        Node("feature", 1, 4, index),
        Node("head", 2, 4, 1, 3),
        Node("embedding", -1, 4),
        Node("position", -1, 4),
        Node("error", 1, 4),
        Node("mlp", 0, 4),
        Node("skip", 1, 4),
    ):
        effects = [ablate(frozen, ROOT, [node], frozen=still).effect for still in (True, False)]
        assert all(abs(effect) > 1e-6 for effect in effects), node


def test_what_cannot_be_cut_is_a_sentence() -> None:
    frozen = run()
    graph = CircuitGraph.from_paths(greedy_paths(attribute_run(frozen, ROOT), 2, 5), frozen, ROOT)
    rest = next(edge for edge in graph.edges if edge.source.kind == "rest")
    with pytest.raises(CircuitError, match="what is not drawn"):
        graph.ablate(edges=[rest])
    with pytest.raises(CircuitError, match="a bias cannot be cut"):
        graph.ablate([Node("bias", 0, 0)])
    with pytest.raises(CircuitError, match="layer 9 has no transcoder"):
        ablate(frozen, ROOT, [Node("feature", 9, 0, 0)])
    with pytest.raises(CircuitError, match="cut into a feature or the root, not into a head"):
        ablate(frozen, ROOT, edges=[(Node("embedding", -1, 0), Node("head", 0, 1, 0, 0), 1.0)])
    with pytest.raises(CircuitError, match="node is a share of the influence and must lie in 0 ... 1, got 1.5"):
        graph.prune(node=1.5)
    with pytest.raises(CircuitError, match="there is no path"):
        CircuitGraph.from_paths([], frozen, ROOT)
    with pytest.raises(CircuitError, match="num_branches must be at least 1"):
        greedy_paths(attribute_run(frozen, ROOT), 3, 0)
    with pytest.raises(CircuitError, match="kinds can hold"):
        greedy_paths(attribute_run(frozen, ROOT), 3, kinds=frozenset({"neuron"}))


def test_a_feature_as_root() -> None:
    frozen = run(3)
    index = int(frozen.active[2].features[0])
    root = Feature(2, index, token=4)
    graph = CircuitGraph.from_paths(greedy_paths(attribute_run(frozen, root), 2, 6), frozen, root)
    assert graph.nodes[0] == Node("root", 2, 4, index) and graph.gap() < 1e-12
    edge = next(edge for edge in graph.into(graph.nodes[0]) if edge.cuts)
    assert graph.ablate(edges=[edge], frozen=True).effect == pytest.approx(-edge.weight, abs=1e-9)
