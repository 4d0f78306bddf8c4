r"""Greedy paths through a frozen prompt: the paper's search for a circuit (official code, `greedy_get_top_paths`).

From the root, repeatedly: for each kept path look at what its last node reads, collect the strongest features of each
earlier transcoder there, the strongest pairs of head and source, and the embedding; of all paths that are one node longer
keep the best. Values stay in units of the root: behind feature i one reads ``f_i <d_i, v>``, behind a head
``A_ts W_V W_O v``. The official code runs each transcoder anew for each node and spreads every attention layer out as
[heads, T, T, D]; here activations are kept once, directions are pulled back first, and all kept paths go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.circuits.transcoders.attribution.contributions import Attribution, head_scores
from lab.circuits.transcoders.attribution.frozen_run import FrozenRun, Node, NodeKind, Reader
from lab.circuits.transcoders.errors import CircuitError

KINDS = frozenset({"feature", "head", "embedding"})
LAST: tuple[NodeKind, ...] = ("embedding",)  # kinds of node that nothing leads to


@dataclass(frozen=True)
class Path:
    """A chain of nodes from the root backwards, and what flows along it, in units of the root.

    nodes  the root first; values[k] is the contribution at nodes[k] of all that flows nodes[0] <- ... <- nodes[k]
    units  what one unit of the pre-activation of the last feature up to nodes[k] is to the root; 1 before the first
    """

    nodes: tuple[Node, ...]
    values: tuple[float, ...]
    units: tuple[float, ...]

    @property
    def value(self) -> float:
        """What its last node contributes along it."""
        return self.values[-1]


@torch.no_grad()
def greedy_paths(
    attribution: Attribution,
    num_iters: int = 3,
    num_branches: int = 15,
    *,
    kinds: frozenset[str] = KINDS,
) -> list[Path]:
    """The best paths to a root: after each of `num_iters` steps the `num_branches` of the largest value, shortest first.

    kinds   of nodes that may appear: some of "feature", "head", "embedding"

    Raises CircuitError for numbers below one and for other kinds.
    """
    for name, value in (("num_iters", num_iters), ("num_branches", num_branches)):
        if value < 1:
            raise CircuitError(f"{name} must be at least 1, got {value}")
    if unknown := sorted(kinds - KINDS):
        raise CircuitError(f"kinds can hold feature, head and embedding, not {unknown[0]!r}")
    run = attribution.run
    start = Path((attribution.root,), (attribution.value,), (1.0,))
    kept, readers, found = [start], attribution.reader, []
    for _ in range(num_iters):
        steps = _strongest(run, readers, num_branches, kinds).best(num_branches)
        if not len(steps):
            break
        nodes = [_node(run, readers, steps, place) for place in range(len(steps))]
        new = []
        for node, parent, value, unit in zip(
            nodes, steps.paths.tolist(), steps.values.tolist(), steps.units.tolist(), strict=True
        ):
            before = kept[parent]
            own = unit if node.kind == "feature" else before.units[-1]
            new.append(Path((*before.nodes, node), (*before.values, value), (*before.units, own)))
        found += new
        on = [place for place, node in enumerate(nodes) if node.kind not in LAST and not _at_the_bottom(node)]
        if not on:
            break
        readers = _behind(run, readers, steps, on)
        kept = [new[place] for place in _order(steps, on)]
    return found


@dataclass(frozen=True)
class _Steps:
    """Candidates for the next node, a row each: of which path, what kind, where, how much."""

    paths: Int[Tensor, " c"]  # number of the reader
    kinds: Int[Tensor, " c"]  # 0 feature, 1 head, 2 embedding
    layers: Int[Tensor, " c"]
    places: Int[Tensor, " c"]  # of a feature in `active`, or the head
    sources: Int[Tensor, " c"]
    values: Float[Tensor, " c"]
    units: Float[Tensor, " c"]  # of a feature: what one unit of its pre-activation is to the root

    def __len__(self) -> int:
        return len(self.values)

    def best(self, count: int) -> _Steps:
        order = self.values.argsort(descending=True, stable=True)[:count]
        return self._at(order)

    def _at(self, rows: Tensor) -> _Steps:
        return _Steps(*(getattr(self, name)[rows] for name in _FIELDS))


_FIELDS = ("paths", "kinds", "layers", "places", "sources", "values", "units")


def _strongest(run: FrozenRun, readers: Reader, count: int, allowed: frozenset[str]) -> _Steps:
    """For each reader and layer the `count` strongest features, and heads with sources; and the embedding."""
    parts: list[tuple[Tensor, ...]] = []
    for layer in range(run.model.cfg.n_layers):
        reads = (readers.mlps > layer).nonzero()[:, 0]
        if "feature" in allowed and layer in run.active and len(reads) and len(run.active[layer].features):
            active = run.active[layer]
            z = active.z[readers.tokens[reads]]
            value = z * (readers.directions[reads] @ active.decoder.T)
            parts.append(_top(reads, 0, layer, value.masked_fill(z <= 0, -torch.inf), z, count))
        reads = (readers.attentions > layer).nonzero()[:, 0]
        if "head" in allowed and len(reads):
            few = Reader(
                readers.directions[reads], readers.tokens[reads], readers.attentions[reads], readers.mlps[reads]
            )
            attention = run.pattern(layer)[:, few.tokens].transpose(0, 1)
            value = attention * head_scores(run, few, layer)
            future = torch.arange(len(run)) > few.tokens[:, None]
            value = value.masked_fill(future[:, None], -torch.inf)
            parts.append(_top(reads, 1, layer, value.flatten(1), torch.full_like(value, torch.inf).flatten(1), count))
    if "embedding" in allowed:
        stream = run.model.W_E[run.tokens[readers.tokens]] + run.model.W_pos[readers.tokens]
        value = (stream * readers.directions).sum(1, keepdim=True)
        everyone = torch.arange(len(readers))
        parts.append(_top(everyone, 2, -1, value, torch.full_like(value, torch.inf), 1))
    if not parts:
        empty = torch.empty(0, dtype=torch.int64)
        return _Steps(empty, empty, empty, empty, empty, torch.empty(0), torch.empty(0))
    paths, kinds, layers, places, values, fires = (torch.cat(column) for column in zip(*parts, strict=True))
    real = values > -torch.inf
    paths, kinds, layers, places, values, fires = (
        column[real] for column in (paths, kinds, layers, places, values, fires)
    )
    heads = kinds == 1
    sources = torch.where(heads, places % len(run), -1)
    places = torch.where(heads, places // len(run), places)
    return _Steps(paths, kinds, layers, places, sources, values, values / fires)


def _top(paths: Tensor, kind: int, layer: int, values: Tensor, fires: Tensor, count: int) -> tuple[Tensor, ...]:
    best, places = values.topk(min(count, values.shape[1]), dim=1)
    rows = paths[:, None].expand_as(places).flatten()
    same = torch.full_like(rows, kind), torch.full_like(rows, layer)
    return rows, *same, places.flatten(), best.flatten(), fires.gather(1, places).flatten()


def _node(run: FrozenRun, readers: Reader, steps: _Steps, row: int) -> Node:
    kind, layer, place = int(steps.kinds[row]), int(steps.layers[row]), int(steps.places[row])
    token = int(readers.tokens[steps.paths[row]])
    if kind == 0:
        return Node("feature", layer, token, int(run.active[layer].features[place]))
    return Node("head", layer, token, place, int(steps.sources[row])) if kind == 1 else Node("embedding", -1, token)


def _at_the_bottom(node: Node) -> bool:
    """A head of the first layer reads embeddings alone: its value is theirs, and the path ends there."""
    return node.kind == "head" and node.layer == 0


def _order(steps: _Steps, on: Sequence[int]) -> list[int]:
    """The rows that go on, in the order in which `_behind` lists their readers: by kind, then layer."""
    return [
        place
        for kind, layer in sorted({(int(steps.kinds[p]), int(steps.layers[p])) for p in on})
        for place in on
        if (int(steps.kinds[place]), int(steps.layers[place])) == (kind, layer)
    ]


def _behind(run: FrozenRun, readers: Reader, steps: _Steps, on: Sequence[int]) -> Reader:
    """What the new last nodes read, in units of the root."""
    found = []
    ordered = _order(steps, on)
    for kind, layer in sorted({(int(steps.kinds[p]), int(steps.layers[p])) for p in on}):
        rows = torch.tensor([p for p in ordered if (int(steps.kinds[p]), int(steps.layers[p])) == (kind, layer)])
        paths = steps.paths[rows]
        directions, tokens = readers.directions[paths], readers.tokens[paths]
        if kind == 0:
            places = steps.places[rows]
            wired = (run.active[layer].decoder[places] * directions).sum(1, keepdim=True)
            reader = run.feature_reader(layer, places, tokens)
            found.append(Reader(wired * reader.directions, reader.tokens, reader.attentions, reader.mlps))
        else:
            found.append(run.through_heads(directions, layer, steps.places[rows], tokens, steps.sources[rows]))
    return Reader(
        *(torch.cat([getattr(one, name) for one in found]) for name in ("directions", "tokens", "attentions", "mlps"))
    )
