"""Circuits as JSON: what is written is what the schema of circuit-tracer and Neuronpedia means, and comes back."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import circuit_toys
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.circuits.transcoders.attribution.adjacency import Adjacency, adjacency
from lab.circuits.transcoders.attribution.contributions import attribute_run
from lab.circuits.transcoders.attribution.frozen_run import Feature, FrozenRun, LogitDiff, Neuron, Node
from lab.circuits.transcoders.attribution.graph import CircuitGraph
from lab.circuits.transcoders.attribution.graph_json import GraphFile
from lab.circuits.transcoders.attribution.graph_schema import MAX_NODES, cantor, uncantor
from lab.circuits.transcoders.attribution.greedy_paths import greedy_paths
from lab.circuits.transcoders.errors import CircuitError
from lab.files import FileError

TOKENS = ("<bos>", "The", " war", "\n", " 17")
ROOT = LogitDiff((3,))
EVERYTHING = 10_000


@pytest.fixture(scope="module")
def run() -> FrozenRun:
    return FrozenRun(circuit_toys.model(2), circuit_toys.coders(2), circuit_toys.prompt(len(TOKENS)))


@pytest.fixture(scope="module")
def traced(run: FrozenRun) -> Adjacency:
    return adjacency(run, ROOT)


@pytest.fixture(scope="module")
def graph(traced: Adjacency) -> CircuitGraph:
    feature = next(node for node in traced.sources if node.kind == "feature" and node.layer == 1)
    labels = {(1, feature.index): "years", (0, 29_999): "of another prompt"}
    return CircuitGraph.from_adjacency(traced, ROOT, node=0.9, tokens=TOKENS, labels=labels)


def weights(graph: CircuitGraph) -> dict[tuple[Node, Node], float]:
    return {(edge.source, edge.target): edge.weight for edge in graph.edges if edge.source.kind != "rest"}


def by_id(text: str) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], float]]:
    document = json.loads(text)
    return (
        {node["node_id"]: node for node in document["nodes"]},
        {(link["source"], link["target"]): link["weight"] for link in document["links"]},
    )


@given(st.integers(0, 200), st.integers(0, 2**40))
def test_cantor_is_a_pairing(layer: int, feature: int) -> None:
    assert uncantor(cantor(layer, feature)) == (layer, feature)


def test_cantor_counts_along_diagonals() -> None:
    diagonals = [(total - feature, feature) for total in range(30) for feature in range(total + 1)]
    assert [cantor(*pair) for pair in diagonals] == list(range(len(diagonals)))


def test_what_is_written_is_read(graph: CircuitGraph, run: FrozenRun) -> None:
    features = [node for node in graph.nodes if node.kind == "feature"]
    file = GraphFile(
        graph, "war", "toy", (("years", tuple(features[:2])), ("one", (features[2],))), (features[3],), target=" 40"
    )
    found = GraphFile.read(file.to_json().encode())
    assert (found.slug, found.scan, found.target) == ("war", "toy", " 40".strip())
    assert (found.supernodes, found.pinned) == (file.supernodes, file.pinned)
    assert found.token_ids == tuple(run.tokens.tolist()) and found.graph.tokens == TOKENS
    assert found.graph.labels == {key: label for key, label in graph.labels.items() if label == "years"}
    known = {
        (source, target if target.kind != "root" else found.graph.nodes[0]): weight
        for (source, target), weight in weights(graph).items()
    }
    assert weights(found.graph) == known
    assert all(found.graph.fires[node] == graph.fires[node] for node in features)
    assert found.graph.value == pytest.approx(
        sum(edge.weight for edge in graph.into(graph.nodes[0]) if edge.source.kind != "rest")
    )
    again = GraphFile.read(found.to_json().encode())
    assert again == found
    with pytest.raises(CircuitError, match="knows no model and prompt any more"):
        found.graph.ablate(features[:1])


def test_every_field_of_the_schema_is_there(graph: CircuitGraph, run: FrozenRun) -> None:
    text = GraphFile(graph, "war", "toy", target="40").to_json()
    document = json.loads(text)
    assert document["metadata"] == {
        "slug": "war",
        "scan": "toy",
        "transcoder_list": [],
        "prompt_tokens": list(TOKENS),
        "prompt": "".join(TOKENS),
        "node_threshold": 1.0,
        "schema_version": 1,
    }
    assert document["qParams"] == {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""}
    nodes, links = by_id(text)
    assert len(nodes) == len(document["nodes"])
    assert all(end in nodes for pair in links for end in pair)
    share = float(run.logits[-1].softmax(-1)[3])
    root = nodes["3_3_4"]  # two layers: circuit-tracer puts logits on the third
    assert root | {"influence": None} == {
        "node_id": "3_3_4",
        "feature": 3,
        "layer": "3",
        "ctx_idx": 4,
        "feature_type": "logit",
        "token_prob": share,
        "is_target_logit": True,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": "3_3-0",
        "clerp": f'Output "40" (p={share:.3f})',
        "influence": None,
        "activation": None,
    }
    for node in graph.nodes:
        if node.kind == "feature":
            entry = nodes[f"{node.layer}_{node.index}_{node.token}"]
            assert entry["feature"] == cantor(node.layer, node.index) and entry["layer"] == str(node.layer)
            assert entry["activation"] == graph.fires[node] and entry["ctx_idx"] == node.token
            assert entry["clerp"] == graph.labels.get((node.layer, node.index), "")
    embeddings = [node for node in nodes.values() if node["feature_type"] == "embedding"]
    assert [node["node_id"] for node in embeddings] == [
        f"E_{token}_{at}" for at, token in enumerate(run.tokens.tolist())
    ]
    shares = {name: node["influence"] for name, node in nodes.items() if node["influence"] is not None}
    ranked = sorted(shares.values())
    assert ranked[-1] == pytest.approx(1) and ranked[0] > 0 and "3_3_4" not in shares
    most = max((node for node in graph.nodes[1:] if node.kind == "feature"), key=lambda node: graph.influence[node])
    least = min((node for node in graph.nodes[1:] if node.kind == "feature"), key=lambda node: graph.influence[node])
    assert shares[f"{most.layer}_{most.index}_{most.token}"] < shares[f"{least.layer}_{least.index}_{least.token}"]


def test_heads_fold_into_direct_effects(run: FrozenRun, traced: Adjacency) -> None:
    """All paths of three steps hold every way to the root past at most two heads: its links are the adjacency's row."""
    paths = greedy_paths(attribute_run(run, ROOT), 3, EVERYTHING)
    graph = CircuitGraph.from_paths(paths, run, ROOT, tokens=TOKENS)
    assert any(node.kind == "head" and node.layer == 1 for node in graph.nodes)
    found = GraphFile.read(GraphFile(graph, "a", "b").to_json().encode()).graph
    into = {edge.source: edge.weight for edge in found.edges if edge.target.kind == "root"}
    row = dict(zip(traced.sources, traced.weights[0].tolist(), strict=True))
    wanted = {node: weight for node, weight in row.items() if node.kind in ("feature", "embedding")}
    assert set(into) == {node for node, weight in wanted.items() if weight}
    for node, weight in into.items():
        assert weight == pytest.approx(wanted[node], rel=1e-9, abs=1e-12)


def test_links_to_features_are_in_units_of_their_pre_activation(run: FrozenRun) -> None:
    graph = CircuitGraph.from_paths(greedy_paths(attribute_run(run, ROOT), 2, EVERYTHING), run, ROOT, tokens=TOKENS)
    found = GraphFile.read(GraphFile(graph, "a", "b").to_json().encode()).graph
    targets = [node for node in found.nodes if node.kind == "feature" and node.layer == 1 and node.token == 4]
    assert targets
    for target in targets[:3]:
        parts = attribute_run(run, Feature(target.layer, target.index, target.token))
        direct = dict(zip(parts.nodes, parts.values, strict=True))
        sources = [edge for edge in found.into(target) if edge.source.kind == "feature"]
        assert sources
        assert all(edge.weight == pytest.approx(direct[edge.source], rel=1e-9) for edge in sources)


def test_a_features_circuit(run: FrozenRun) -> None:
    index = int(run.active[1].features[0])
    root = Feature(1, index, -1)
    graph = CircuitGraph.from_adjacency(adjacency(run, root), root, tokens=TOKENS, labels={(1, index): "mine"})
    text = GraphFile(graph, "a", "b").to_json()
    entry = by_id(text)[0][f"1_{index}_4"]
    assert entry["feature_type"] == "cross layer transcoder" and entry["feature"] == cantor(1, index)
    assert entry["activation"] == max(graph.value, 0) and entry["clerp"] == "mine"
    found = GraphFile.read(text.encode())
    assert found.graph.root == Feature(1, index, 4) and found.graph.nodes[0] == Node("root", 1, 4, index)
    assert GraphFile.read(found.to_json().encode()) == found


def test_a_layer_without_a_transcoder_is_an_error_node(run: FrozenRun) -> None:
    half = FrozenRun(run.model, {0: run.coders[0]}, run.tokens)
    graph = CircuitGraph.from_adjacency(adjacency(half, ROOT), ROOT, node=1.0, edge=1.0, tokens=TOKENS)
    assert any(node.kind == "mlp" for node in graph.nodes)
    found = GraphFile.read(GraphFile(graph, "a", "b").to_json().encode()).graph
    assert {node.layer for node in found.nodes if node.kind == "error"} == {0, 1}


def test_graphs_that_cannot_be_written(graph: CircuitGraph, run: FrozenRun) -> None:
    with pytest.raises(CircuitError, match="positions in its tokens, which are 0.*made with tokens="):
        GraphFile(CircuitGraph.from_adjacency(adjacency(run, ROOT), ROOT), "a", "b").to_json()
    neuron = Neuron(1, 3)
    other = CircuitGraph.from_adjacency(adjacency(run, neuron), neuron, tokens=TOKENS)
    with pytest.raises(CircuitError, match="the root is a neuron"):
        GraphFile(other, "a", "b").to_json()
    for name in ("pinned", "supernodes"):
        more: Any = (
            {"pinned": (Node("head", 1, 4, 0, 2),)}
            if name == "pinned"
            else {"supernodes": (("mine", (Node("rest", 0, 0),)),)}
        )
        with pytest.raises(CircuitError, match="(pinned|mine): .* is no node of the JSON"):
            GraphFile(graph, "a", "b", **more).to_json()


# A small document by hand: two features, an error, two tokens


def document() -> dict[str, Any]:
    def node(name: str, feature: int | None, layer: str, at: int, kind: str, **more: Any) -> dict[str, Any]:
        return {
            "node_id": name,
            "feature": feature,
            "layer": layer,
            "ctx_idx": at,
            "feature_type": kind,
            "jsNodeId": name,
            "clerp": "",
        } | more

    return {
        "metadata": {
            "slug": "s",
            "scan": "gemma-2-2b",
            "prompt_tokens": ["a", "b"],
            "prompt": "ab",
            "schema_version": 1,
            "info": {},
        },
        "qParams": {
            "pinnedIds": ["2_9_1", "gone"],
            "supernodes": [["group", "2_9_1", "0_3_0"], ["empty", "gone"]],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": [
            node("E_17_0", 0, "E", 0, "embedding"),
            node("0_3_0", cantor(0, 3), "0", 0, "cross layer transcoder", activation=2.5, clerp="three\x1b[2J\u202e"),
            node("0_1_1", -1, "1", 1, "mlp reconstruction error"),
            node("2_9_1", cantor(2, 9), "2", 1, "cross layer transcoder", activation=None),
            node(
                "27_500_1", 500, "27", 1, "logit", is_target_logit=True, token_prob=0.4, clerp='Output " x" (p=0.400)'
            ),
            node("27_501_1", 501, "27", 1, "logit", token_prob=0.3),
            node("1_4_1", cantor(1, 4), "1", 1, "cross layer transcoder"),
        ],
        "links": [
            {"source": "E_17_0", "target": "0_3_0", "weight": 1.5},
            {"source": "0_3_0", "target": "2_9_1", "weight": -2},
            {"source": "0_1_1", "target": "2_9_1", "weight": 0.5},
            {"source": "2_9_1", "target": "27_500_1", "weight": 3.0},
            {"source": "2_9_1", "target": "27_501_1", "weight": 9.0},
            {"source": "1_4_1", "target": "27_501_1", "weight": 9.0},
        ],
    }


def read(changed: Any) -> GraphFile:
    return GraphFile.read(changed if isinstance(changed, bytes) else json.dumps(changed).encode(), name="g.json")


def test_reading_a_document_of_theirs() -> None:
    found = read(document())
    three, nine, error = Node("feature", 0, 0, 3), Node("feature", 2, 1, 9), Node("error", 1, 1)
    root = Node("root", 26, 1, 500)
    assert weights(found.graph) == {
        (Node("embedding", -1, 0), three): 1.5,
        (three, nine): -2.0,
        (error, nine): 0.5,
        (nine, root): 3.0,
    }
    assert found.graph.labels == {(0, 3): "three[2J"}
    assert found.graph.fires[three] == 2.5 and found.graph.fires[nine] == 1.0
    assert found.graph.influence[three] == pytest.approx(0.8) and found.graph.value == 3.0
    assert (found.pinned, found.supernodes) == ((nine,), (("group", (nine, three)),))
    assert (found.token_ids, found.target, found.scan) == ((17, -1), "x", "gemma-2-2b")
    nodes, links = by_id(found.to_json())
    assert nodes["27_500_1"]["layer"] == "27" and links["2_9_1", "27_500_1"] == 3.0 and "-1_1_1" in nodes


def test_files_before_version_1_name_features_by_their_ids() -> None:
    old = document()
    del old["metadata"]["schema_version"]
    for node in old["nodes"]:
        if node["feature_type"] == "cross layer transcoder":
            node["feature"] = 12345
    assert weights(read(old).graph) == weights(read(document()).graph)
    old["nodes"][3]["node_id"] = "nine"
    old["links"] = [{"source": "nine", "target": "27_500_1", "weight": 1.0}]
    with pytest.raises(FileError, match="node 'nine' is not named layer_feature_position"):
        read(old)


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["links"][0].update(source="nobody"), "a link names 'nobody', but there is no such node"),
        (lambda d: d["links"][0].update(weight=float("nan")), "links.0.weight: "),
        (lambda d: d["links"][0].update(weight=float("inf")), "links.0.weight: "),
        (lambda d: d["links"][0].update(weight="1"), "links.0.weight: "),
        (lambda d: d["links"].append(d["links"][0]), "two links lead from one node to the same other"),
        (lambda d: d["links"].append({"source": "2_9_1", "target": "0_3_0", "weight": 1}), "none a network can have"),
        (lambda d: d["links"].append({"source": "2_9_1", "target": "2_9_1", "weight": 1}), "none a network can have"),
        (lambda d: d["links"].append({"source": "0_3_0", "target": "0_1_1", "weight": 1}), "none a network can have"),
        (
            lambda d: d["links"].append({"source": "27_501_1", "target": "2_9_1", "weight": 1}),
            "none a network can have",
        ),
        (lambda d: d["links"].pop(3), "no link leads to the target"),
        (lambda d: d["nodes"].append(d["nodes"][1]), "two nodes have the same node_id"),
        (lambda d: d["nodes"].append(d["nodes"][1] | {"node_id": "x"}), "two nodes are the same feature of layer 0"),
        (lambda d: d["nodes"][1].update(ctx_idx=2), "'0_3_0' stands at ctx_idx 2, beyond the prompt_tokens"),
        (lambda d: d["nodes"][1].update(ctx_idx=-1), "nodes.1.ctx_idx: "),
        (lambda d: d["nodes"][1].update(ctx_idx=True), "nodes.1.ctx_idx: "),
        (lambda d: d["nodes"][1].update(feature=4), "has feature '4', which is no Cantor pairing of layer 0"),
        (lambda d: d["nodes"][1].update(feature=10**40), "no Cantor pairing"),
        (lambda d: d["nodes"][1].update(feature=-1), "no Cantor pairing"),
        (lambda d: d["nodes"][1].update(feature=1.5), "nodes.1.feature: "),
        (lambda d: d["nodes"][1].update(layer="E1"), "has layer 'E1'; it must be a whole number"),
        (lambda d: d["nodes"][1].update(layer="99999"), "has layer '99999'"),
        (
            lambda d: d["nodes"][1].update(feature_type="lorsa"),
            "is of type 'lorsa'; the lab reads transcoders' features",
        ),
        (lambda d: d["nodes"][1].update(node_id="x" * 501), "nodes.1.node_id: "),
        (lambda d: d["nodes"][1].update(activation=float("nan")), "nodes.1.activation: "),
        (lambda d: d["nodes"][4].update(feature=None), "is a logit of token None; tokens count from 0"),
        (lambda d: d["nodes"].clear(), "nodes: "),
        (lambda d: d.pop("links"), "links: "),
        (lambda d: d["metadata"].update(prompt_tokens="ab"), "metadata.prompt_tokens: "),
        (lambda d: d["qParams"].update(supernodes=[[]]), "qParams.supernodes.0: "),
        (lambda d: d["qParams"].update(supernodes=[["a", 3]]), "qParams.supernodes.0.1: "),
        (lambda d: d["nodes"].extend([d["nodes"][0]] * MAX_NODES), "nodes: List should have at most"),
    ],
)
def test_documents_that_are_refused(change: Change, said: str) -> None:
    changed = copy.deepcopy(document())
    change(changed)
    with pytest.raises(FileError) as caught:
        read(changed)
    assert said in str(caught.value) and str(caught.value).startswith("'g.json': ") and "\n" not in str(caught.value)


def test_a_graph_without_logits_needs_one_last_feature() -> None:
    changed = document()
    changed["nodes"] = [node for node in changed["nodes"] if node["feature_type"] != "logit"]
    changed["links"] = changed["links"][:3]
    with pytest.raises(FileError, match="no logit, and 2 features that nothing reads"):
        read(changed)
    del changed["nodes"][-1]
    assert read(changed).graph.root == Feature(2, 9, 1)


@pytest.mark.parametrize("text", [b"[" * 200_000, b"{", b"[]", b"null", b"\xff", b'{"nodes": ' + b"9" * 10_000 + b"}"])
def test_what_is_no_document(text: bytes) -> None:
    with pytest.raises(FileError, match="'g.json': this is no attribution graph"):
        read(text)


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(FileError, match="at most 64 MiB"):
        GraphFile.read(path)


def test_saving_is_atomic_and_readable(graph: CircuitGraph, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    for target in ("40", "41"):
        GraphFile(graph, "a", "b", target=target).save(path)
    assert GraphFile.read(path).target == "41"
    assert [one.name for one in tmp_path.iterdir()] == ["graph.json"]
    assert torch.isfinite(torch.tensor(list(GraphFile.read(path).graph.influence.values()))).all()
