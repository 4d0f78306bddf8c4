"""What stands in an attribution graph's JSON, checked: its nodes and links, and what each is in the lab's terms.

The schema is circuit-tracer's and Neuronpedia's. A file comes from outside: its sizes are bounded, its numbers finite, its
links lead from nodes to nodes and only upwards, as in a network, so that influence ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab.circuits.transcoders.attribution.frozen_run import Feature, Node, Root
from lab.circuits.transcoders.attribution.graph import Edge
from lab.files import FileError
from lab.files.bounds import shown

MAX_NODES, MAX_LINKS, MAX_TOKENS = 5_000, 500_000, 10_000  # influence is computed in a matrix of nodes x nodes
LAYERS = 10_000
FEATURE, ERROR, EMBEDDING, LOGIT = "cross layer transcoder", "mlp reconstruction error", "embedding", "logit"
Text = Annotated[str, Field(max_length=500)]
Number = Annotated[float, Field(allow_inf_nan=False)]
_NAMED = re.compile(r"(\d{1,5})_(\d{1,12})_(\d{1,5})", re.ASCII)


def cantor(layer: int, feature: int) -> int:
    """The one number for a layer and a feature of it.

    >>> cantor(2, 17), uncantor(207)
    (207, (2, 17))
    """
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def uncantor(number: int) -> tuple[int, int]:
    """The layer and the feature of a number: the inverse of `cantor`."""
    diagonal = (math.isqrt(8 * number + 1) - 1) // 2
    feature = number - diagonal * (diagonal + 1) // 2
    return diagonal - feature, feature


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Metadata(_Entry):
    """Of which model and prompt the graph is; version 1 has Cantor pairings."""

    slug: Text
    scan: Text
    prompt_tokens: list[Text] = Field(max_length=MAX_TOKENS)
    prompt: str
    schema_version: int | None = None


class QParams(_Entry):
    """What a reader did with the graph: nodes put aside, and groups, each a name and then ids of nodes."""

    pinnedIds: list[Text] = Field([], max_length=MAX_NODES)
    supernodes: list[Annotated[list[Text], Field(min_length=1, max_length=MAX_NODES)]] = Field([], max_length=MAX_NODES)


class NodeEntry(_Entry):
    """One node; `clerp` is its label."""

    node_id: Text
    feature: int | None
    layer: Text | int
    ctx_idx: int = Field(ge=0, lt=MAX_TOKENS)
    feature_type: Text
    clerp: str = ""
    is_target_logit: bool = False
    token_prob: Number = 0.0
    activation: Number | None = None


class LinkEntry(_Entry):
    """A direct effect of one node on another, by their ids."""

    source: Text
    target: Text
    weight: Number


class Document(_Entry):
    """A whole file. Names that are not here are passed over; everything else that does not fit is refused."""

    metadata: Metadata
    qParams: QParams
    nodes: list[NodeEntry] = Field(min_length=1, max_length=MAX_NODES)
    links: list[LinkEntry] = Field(min_length=1, max_length=MAX_LINKS)

    @model_validator(mode="after")
    def _agrees(self) -> Document:
        for node in self.nodes:
            if node.ctx_idx >= len(self.metadata.prompt_tokens):
                raise ValueError(f"{shown(node.node_id)} stands at ctx_idx {node.ctx_idx}, beyond the prompt_tokens")
        if len({node.node_id for node in self.nodes}) < len(self.nodes):
            raise ValueError("two nodes have the same node_id, so links to it could mean either")
        if len({(link.source, link.target) for link in self.links}) < len(self.links):
            raise ValueError("two links lead from one node to the same other; there is one weight for both")
        return self


def target_of(file: Document) -> NodeEntry:
    """The target: the logit that says so, else the likeliest; without logits the one node that nothing reads."""
    logits = [node for node in file.nodes if node.feature_type == LOGIT]
    if logits:
        return max(logits, key=lambda node: (node.is_target_logit, node.token_prob))
    read = {link.source for link in file.links}
    last = [node for node in file.nodes if node.node_id not in read and node.feature_type != ERROR and _has_layer(node)]
    if len(last) != 1:
        raise FileError(f"there is no logit, and {len(last)} features that nothing reads; a circuit has one target")
    return last[0]


def root_of(file: Document, start: NodeEntry) -> tuple[Root | None, Node]:
    """The target as a root, which a logit read from a file is not, and as a node above all others."""
    if start.feature_type != LOGIT:
        layer, feature = _feature(file, start)
        return Feature(layer, feature, start.ctx_idx), Node("root", layer, start.ctx_idx, feature)
    if start.feature is None or start.feature < 0:
        raise FileError(f"node {shown(start.node_id)} is a logit of token {start.feature}; tokens count from 0")
    above = max((_layer(node) for node in file.nodes if _has_layer(node)), default=-1) + 1
    return None, Node("root", max(above, _layer(start) - 1), start.ctx_idx, start.feature)


def nodes_of(file: Document, target: NodeEntry, first: Node) -> dict[str, Node | None]:
    """By id, the file's nodes as the lab's, the target as `first`; None for logits that are not the target.

    Raises FileError for nodes the lab does not read, and for two that are the same.
    """
    found: dict[str, Node | None] = {}
    seen = set[Node]()
    for entry in file.nodes:
        node = first if entry is target else _node(file, entry)
        if node in seen:
            raise FileError(f"two nodes are the same {node.kind} of layer {node.layer} at position {node.token}")
        found[entry.node_id] = node
        seen |= {node} if node else set()
    return found


def edges_of(file: Document, ours: Mapping[str, Node | None], first: Node) -> list[Edge]:
    """The links on a way to the target as edges. Raises FileError for links that no network can have, and for none."""
    edges = [edge for link in file.links if (edge := _edge(link, ours)) is not None]
    reached, kept = {first}, []
    for edge in sorted(edges, key=lambda edge: -edge.target.layer):  # edges go up: one pass from the top finds them
        if edge.target in reached:
            reached.add(edge.source)
            kept.append(edge)
    if not kept:
        raise FileError("no link leads to the target")
    return kept


def _node(file: Document, node: NodeEntry) -> Node | None:
    """A node of the file as one of the lab's; None for a logit that is not the target."""
    if node.feature_type == LOGIT:
        return None
    if node.feature_type == EMBEDDING:
        return Node("embedding", -1, node.ctx_idx)
    if node.feature_type == ERROR:
        return Node("error", _layer(node), node.ctx_idx)
    if "transcoder" in node.feature_type:
        layer, feature = _feature(file, node)
        return Node("feature", layer, node.ctx_idx, feature)
    raise FileError(
        f"node {shown(node.node_id)} is of type {shown(node.feature_type)}; the lab reads transcoders' features, {ERROR}, "
        f"{EMBEDDING} and {LOGIT}"
    )


def _has_layer(node: NodeEntry) -> bool:
    return node.feature_type == ERROR or "transcoder" in node.feature_type


def _feature(file: Document, node: NodeEntry) -> tuple[int, int]:
    """Layer and feature of a node: by its number in schema version 1, by its id in earlier files."""
    layer = _layer(node)
    if file.metadata.schema_version == 1:
        if node.feature is not None and 0 <= node.feature < 2**80 and uncantor(node.feature)[0] == layer:
            return uncantor(node.feature)
        raise FileError(
            f"node {shown(node.node_id)} has feature {shown(node.feature)}, which is no Cantor pairing of layer {layer} "
            "and a feature, as schema_version 1 wants it"
        )
    named = _NAMED.fullmatch(node.node_id)
    if named is None or (int(named[1]), int(named[3])) != (layer, node.ctx_idx):
        raise FileError(
            f"node {shown(node.node_id)} is not named layer_feature_position, as files before version 1 are"
        )
    return layer, int(named[2])


def _layer(node: NodeEntry) -> int:
    text = str(node.layer)
    if not (text.isascii() and text.isdecimal() and int(text) < LAYERS):
        raise FileError(
            f"node {shown(node.node_id)} has layer {shown(text)}; it must be a whole number below {LAYERS:,}"
        )
    return int(text)


def _edge(link: LinkEntry, ours: Mapping[str, Node | None]) -> Edge | None:
    """A link as an edge; None if it leads to a logit that is not the target."""
    for end in (link.source, link.target):
        if end not in ours:
            raise FileError(f"a link names {shown(end)}, but there is no such node")
    source, target = ours[link.source], ours[link.target]
    if target is None:
        return None
    if source is None or source.layer >= target.layer or target.kind not in ("feature", "root"):
        raise FileError(
            f"the link from {shown(link.source)} to {shown(link.target)} is none a network can have: links go from lower "
            "to higher layers, and end in features and logits"
        )
    return Edge(source, target, link.weight, ((target, link.weight),))


def token_of(node: NodeEntry) -> int | None:
    """The token that an embedding's id names, by number; None where it names none."""
    named = re.fullmatch(r"E_(\d{1,9})_\d{1,5}", node.node_id, re.ASCII)
    return int(named[1]) if named and node.feature_type == EMBEDDING else None
