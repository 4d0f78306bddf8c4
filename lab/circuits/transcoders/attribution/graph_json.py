r"""Circuits in the JSON that circuit-tracer writes and Neuronpedia shows (schema version 1), both ways, never by pickle.

That schema has features, errors, embeddings and logits. A link is a direct effect on its target's pre-activation, past
all heads at once. So heads are folded away: what flows u -> head -> ... -> j becomes one link u -> j of that size, which is
exact, and what a head brings that the graph traces no further is left out, as is every "rest". A head of the first block
reads nothing but embeddings, so its flow is the link of its source's embedding. A whole MLP counts as an error node.

A feature's number there is the Cantor pairing of layer l and feature i, ``(l + i)(l + i + 1) / 2 + i``; a reader's labels
stand in `clerp`. A node's `influence` is cumulative: the share of all influence that it and those above it have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lab.circuits.transcoders.attribution.frozen_run import Feature, LogitDiff, Neuron, Node
from lab.circuits.transcoders.attribution.graph import CircuitGraph
from lab.circuits.transcoders.attribution.graph_schema import (
    EMBEDDING,
    ERROR,
    FEATURE,
    LOGIT,
    Document,
    NodeEntry,
    cantor,
    edges_of,
    nodes_of,
    root_of,
    target_of,
    token_of,
)
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.units.labels import LENGTH, cleaned
from lab.files import FileError, Limits
from lab.files.bounds import Source, content, shown
from lab.paths import write_atomic

GRAPH_LIMITS = Limits(max_bytes=64 * 2**20)
_CLERP = re.compile(r'Output "(.*)" \(p=.*\)', re.DOTALL)


@dataclass(frozen=True)
class GraphFile:
    """A circuit and what its file says beside it.

    slug        the file's short name; `scan` names the model
    supernodes  a reader's groups: a name and the nodes in it
    pinned      nodes that a reader put aside
    token_ids   the prompt's tokens by number, where the graph does not know them
    target      what the root is called: the text of the token, or of the difference
    """

    graph: CircuitGraph
    slug: str
    scan: str
    supernodes: tuple[tuple[str, tuple[Node, ...]], ...] = ()
    pinned: tuple[Node, ...] = ()
    token_ids: tuple[int, ...] = ()
    target: str = ""

    def to_json(self) -> str:
        """The graph as JSON.

        Raises CircuitError for a graph that has no texts of its tokens, or goes to a neuron, and for
        supernodes and pinned nodes that the JSON does not have.
        """
        graph = self.graph
        if isinstance(graph.root, Neuron):
            raise CircuitError("the root is a neuron; the format has features and logits only")
        if any(node.token >= len(graph.tokens) or node.token < 0 for node in graph.nodes):
            raise CircuitError(
                f"the graph's nodes need positions in its tokens, which are {len(graph.tokens)}: write one that was "
                "made with tokens="
            )
        links = _links(graph)
        ids = {
            node: self._id(node) for node in dict.fromkeys([graph.nodes[0], *(one for pair in links for one in pair)])
        }
        ids |= {node: self._id(node) for node in (Node("embedding", -1, at) for at in range(len(graph.tokens)))}
        for name, nodes in (("pinned", self.pinned), *self.supernodes):
            if missing := [node for node in nodes if node not in ids]:
                raise CircuitError(f"{name}: {missing[0]} is no node of the JSON, which has no heads and no rests")
        cumulative = _cumulative(graph, ids)
        return json.dumps(
            {
                "metadata": {
                    "slug": self.slug,
                    "scan": self.scan,
                    "transcoder_list": [],
                    "prompt_tokens": list(graph.tokens),
                    "prompt": "".join(graph.tokens),
                    "node_threshold": 1.0,  # all that is in the file is shown
                    "schema_version": 1,
                },
                "qParams": {
                    "pinnedIds": [ids[node] for node in self.pinned],
                    "supernodes": [[name, *(ids[node] for node in nodes)] for name, nodes in self.supernodes],
                    "linkType": "both",
                    "clickedId": "",
                    "sg_pos": "",
                },
                "nodes": [self._node(node, name, cumulative) for node, name in ids.items()],
                "links": [
                    {"source": ids[source], "target": ids[target], "weight": weight}
                    for (source, target), weight in links.items()
                ],
            },
            ensure_ascii=False,
            allow_nan=False,
        )

    def save(self, path: Path) -> None:
        """Write `to_json` to a file, which is the old one or the new one at any time."""
        write_atomic(path, self.to_json())

    @classmethod
    def read(cls, source: Source, *, name: str | None = None) -> GraphFile:
        """The graph in a JSON file of at most 64 MiB; `source` is a path, the file's bytes, or an open binary stream.

        Of several logits the file's target is the root, and what leads only to others is left out. A graph read this way
        knows no model: it can be drawn, scored and written, not cut. Pinned nodes and members of supernodes that are not
        in the graph are passed over. Raises FileError, naming the node or link, for anything that is no such graph.
        """
        data, title = content(source, name, GRAPH_LIMITS)
        try:
            return _read(Document.model_validate_json(data))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "its content"
            raise FileError(f"{title}: this is no attribution graph: {shown(place)[1:-1]}: {first['msg']}") from error
        except FileError as error:
            raise FileError(f"{title}: {error}") from error

    def _id(self, node: Node) -> str:
        """Unique: circuit-tracer's own "0_layer_position" of an error may also be a feature of layer 0."""
        if node.kind == "root":
            if isinstance(self.graph.root, Feature):
                return f"{node.layer}_{node.index}_{node.token}"
            return f"{node.layer + 1}_{self._target_token()}_{node.token}"
        if node.kind == "feature":
            return f"{node.layer}_{node.index}_{node.token}"
        if node.kind == "embedding":
            return f"E_{self._tokens()[node.token]}_{node.token}"
        if node.kind in ("error", "mlp"):
            return f"-1_{node.layer}_{node.token}"
        raise CircuitError(f"a node of kind {node.kind!r} has no place in the format")

    def _node(self, node: Node, name: str, cumulative: dict[Node, float]) -> dict[str, Any]:
        graph = self.graph
        values: dict[str, Any] = {
            "node_id": name,
            "feature": -1,
            "layer": str(node.layer),
            "ctx_idx": node.token,
            "feature_type": ERROR,
            "token_prob": 0.0,
            "is_target_logit": False,
            "run_idx": 0,
            "reverse_ctx_idx": 0,
            "jsNodeId": name.rsplit("_", 1)[0] + "-0",
            "clerp": "",
            "influence": cumulative.get(node),
            "activation": None,
        }
        if node.kind == "embedding":
            values |= {"feature": node.token, "layer": "E", "feature_type": EMBEDDING}
        elif node.kind == "feature" or (isinstance(graph.root, Feature) and node.kind == "root"):
            read = node.kind == "feature" or graph.run is None
            fires = graph.fires[node] if read else max(graph.value, 0.0)
            clerp = graph.labels.get((node.layer, node.index), "")
            values |= {"feature": cantor(node.layer, node.index), "feature_type": FEATURE, "activation": fires}
            values["clerp"] = clerp
        elif node.kind == "root":
            share = self._probability()
            values |= {"feature": self._target_token(), "layer": str(node.layer + 1), "feature_type": LOGIT}
            values |= {"is_target_logit": True, "token_prob": share, "clerp": f'Output "{self.target}" (p={share:.3f})'}
        return values

    def _tokens(self) -> Sequence[int]:
        """The prompt's tokens by number; -1 where nothing says."""
        if self.graph.run is not None:
            return [int(token) for token in self.graph.run.tokens]
        return self.token_ids or [-1] * len(self.graph.tokens)

    def _target_token(self) -> int:
        """A logit's token; for a difference the first number that is none, as circuit-tracer has it."""
        graph = self.graph
        if isinstance(graph.root, LogitDiff) and len(graph.root.plus) == 1 and not graph.root.minus:
            return graph.root.plus[0]
        return max(graph.nodes[0].index, 0) if graph.run is None else graph.run.model.cfg.d_vocab

    def _probability(self) -> float:
        """What the model gives the tokens of the target together; 0 where the graph has no model."""
        graph = self.graph
        if graph.run is None or not isinstance(graph.root, LogitDiff):
            return 0.0
        return float(graph.run.logits[graph.nodes[0].token].softmax(-1)[list(graph.root.plus)].sum())


def _links(graph: CircuitGraph) -> dict[tuple[Node, Node], float]:
    """Heads folded away: by what writes and what reads it, how much of the reader's pre-activation comes this way."""
    links: dict[tuple[Node, Node], float] = {}
    for edge in graph.edges:
        source = edge.source
        if source.kind == "rest" or (source.kind == "head" and source.layer > 0):
            continue
        if source.kind == "head":
            source = Node("embedding", -1, source.source)
        for target, weight in edge.cuts:
            links[source, target] = links.get((source, target), 0.0) + weight
    return links


def _cumulative(graph: CircuitGraph, ids: dict[Node, str]) -> dict[Node, float]:
    """By node, the share of all influence that it has together with all nodes of more."""
    known = {node: graph.influence[node] for node in ids if node in graph.influence and node != graph.nodes[0]}
    order = sorted(known, key=lambda node: -known[node])
    total = sum(known.values()) or 1.0
    return {
        node: min(sofar / total, 1.0)
        for node, sofar in zip(order, accumulate(known[node] for node in order), strict=True)
    }


def _read(file: Document) -> GraphFile:
    by_id, tokens = {node.node_id: node for node in file.nodes}, tuple(file.metadata.prompt_tokens)
    start = target_of(file)
    root, first = root_of(file, start)
    ours = nodes_of(file, start, first)
    edges = edges_of(file, ours, first)
    named = [(ours[name], node) for name, node in by_id.items()]
    graph = CircuitGraph.of_edges(
        edges,
        first,
        {one: node.activation for one, node in named if one is not None and node.activation is not None},
        sum(edge.weight for edge in edges if edge.target == first),
        root=root,
        labels=_labels([(one, node) for one, node in named if node.feature_type not in (EMBEDDING, ERROR, LOGIT)]),
        tokens=tokens,
    )
    here = {name: node for name, node in ours.items() if node in set(graph.nodes)}
    ids = {node.ctx_idx: token for node in file.nodes if (token := token_of(node)) is not None}
    groups = [(cleaned(name), _members(names, here)) for name, *names in file.qParams.supernodes]
    said = _CLERP.fullmatch(start.clerp)
    return GraphFile(
        graph,
        slug=cleaned(file.metadata.slug),
        scan=cleaned(file.metadata.scan),
        supernodes=tuple((name, members) for name, members in groups if members),
        pinned=_members(file.qParams.pinnedIds, here),
        token_ids=tuple(ids.get(at, -1) for at in range(len(tokens))),
        target=cleaned(said[1] if said else start.clerp)[:LENGTH] if start.feature_type == LOGIT else "",
    )


def _members(names: Sequence[str], here: Mapping[str, Node | None]) -> tuple[Node, ...]:
    return tuple(node for name in names if (node := here.get(name)) is not None)


def _labels(features: Sequence[tuple[Node | None, NodeEntry]]) -> dict[tuple[int, int], str]:
    """The features' labels, of those that have one; the first where they differ between positions."""
    found: dict[tuple[int, int], str] = {}
    for node, entry in features:
        label = cleaned(entry.clerp)[:LENGTH]
        if node is not None and label:
            found.setdefault((node.layer, node.index), label)
    return found
