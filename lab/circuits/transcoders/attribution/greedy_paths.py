r"""Greedy paths through a frozen prompt: the paper's search for a circuit (Section 4; `greedy_get_top_paths`).

A path is a chain root <- n_1 <- n_2 ...; its value is what n_k brings to the root along it. With $u_0=v$ the root's
direction, a node reads $u_{k-1}$ and passes on $u_k$, in units of the root:

$$ \text{feature } i:\quad \mathrm{value}=z_i\langle d_i,u_{k-1}\rangle,\qquad
   u_k=\langle d_i,u_{k-1}\rangle\,\frac{f_i-\bar f_i}{\sigma} \tag{1} $$
$$ \text{head } h, s:\quad \mathrm{value}=A^h_{ts}\langle \mathrm{LN}(x_s)W^h_VW^h_O,u_{k-1}\rangle,\qquad
   u_k=\frac{A^h_{ts}}{\sigma_s}\,P\,W^h_VW^h_O\,u_{k-1} \tag{2} $$
$$ \text{embedding}:\quad \mathrm{value}=\langle W_E[x_t]+W_{pos}[t],u_{k-1}\rangle \tag{3} $$

After each step the paths with the largest values are kept. The official code runs each transcoder anew for each node and
spreads every attention layer out as [heads, T, T, D]; here activations are computed once, directions are pulled back
first, and all paths of a step go together.
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

    Parameters
    ----------
    nodes : tuple of Node
        The root first.
    values : tuple of float
        ``values[k]`` is the contribution at ``nodes[k]`` of all that flows nodes[0] <- ... <- nodes[k].
    units : tuple of float
        What one unit of the pre-activation of the last feature up to ``nodes[k]`` is to the root; 1 before the first.

    Examples
    --------
    >>> Path((Node("feature", 1, 2, 3), Node("embedding", -1, 0)), (2.0, 0.5), (1.0, 1.0)).value
    0.5
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

    Parameters
    ----------
    attribution : Attribution
        The root on its prompt, from `attribute`.
    num_iters : int, at least 1
        Nodes that a path may have behind the root.
    num_branches : int, at least 1
        Paths that are kept after each step.
    kinds : set of str
        Of nodes that may appear: some of "feature", "head", "embedding".

    Returns
    -------
    list of Path
        At most ``num_iters * num_branches``; nothing leads on from an embedding, or from a head of the first layer.

    Raises
    ------
    CircuitError
        For numbers below one and for other kinds.

    References
    ----------
    Dunefsky, Chlenski and Nanda, 2024, Section 4.

    Examples
    --------
    >>> from lab.circuits.transcoders.attribution.contributions import attribute
    >>> from lab.circuits.transcoders.attribution.frozen_run import LogitDiff
    >>> from lab.circuits.transcoders.hooked import HookedGPT
    >>> root = attribute(HookedGPT.tiny(), {}, torch.tensor([0, 3, 1]), LogitDiff((2,), (4,)))
    >>> len(greedy_paths(root, num_iters=1, num_branches=3))
    3
    """
    for name, value in (("num_iters", num_iters), ("num_branches", num_branches)):
        if value < 1:
            raise CircuitError(f"{name} must be at least 1, got {value}")
    if unknown := sorted(kinds - KINDS):
        raise CircuitError(f"kinds can hold feature, head and embedding, not {unknown[0]!r}")
    run = attribution.run
    start = Path((attribution.root,), (attribution.value,), (1.0,))
    frontier, readers, paths = [start], attribution.reader, []
    for _ in range(num_iters):
        steps = _strongest(run, readers, num_branches, kinds).best(num_branches)
        if not len(steps):
            break
        nodes = [_node(run, readers, steps, row) for row in range(len(steps))]
        longer = []
        for node, parent, value, unit in zip(
            nodes, steps.paths.tolist(), steps.values.tolist(), steps.units.tolist(), strict=True
        ):
            before = frontier[parent]
            own = unit if node.kind == "feature" else before.units[-1]
            longer.append(Path((*before.nodes, node), (*before.values, value), (*before.units, own)))
        paths += longer
        open_rows = [row for row, node in enumerate(nodes) if node.kind not in LAST and not _at_the_bottom(node)]
        if not open_rows:
            break
        readers = _behind(run, readers, steps, open_rows)
        frontier = [longer[row] for row in _order(steps, open_rows)]
    return paths


@dataclass(frozen=True)
class _Steps:
    """Candidates for the next node, one row each: of which path, what kind, where, how much."""

    paths: Int[Tensor, " c"]  # number of the reader
    kinds: Int[Tensor, " c"]  # 0 feature, 1 head, 2 embedding
    layers: Int[Tensor, " c"]
    indices: Int[Tensor, " c"]  # of a feature in `active`, or the head
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


_FIELDS = ("paths", "kinds", "layers", "indices", "sources", "values", "units")


def _strongest(run: FrozenRun, readers: Reader, count: int, allowed: frozenset[str]) -> _Steps:
    """For each reader and layer the `count` strongest features, and heads with sources; and the embedding."""
    candidates: list[tuple[Tensor, ...]] = []
    for layer in range(run.model.cfg.n_layers):
        reads = (readers.mlps > layer).nonzero()[:, 0]
        if "feature" in allowed and layer in run.active and len(reads) and len(run.active[layer].features):
            active = run.active[layer]
            z = active.z[readers.tokens[reads]]  # [p, k]
            value = z * (readers.directions[reads] @ active.decoder.T)  # (1): z_i <d_i, u>
            candidates.append(_top(reads, 0, layer, value.masked_fill(z <= 0, -torch.inf), z, count))
        reads = (readers.attentions > layer).nonzero()[:, 0]
        if "head" in allowed and len(reads):
            above = Reader(
                readers.directions[reads], readers.tokens[reads], readers.attentions[reads], readers.mlps[reads]
            )
            attention = run.pattern(layer)[:, above.tokens].transpose(0, 1)  # A_ts [p, H, T]
            value = attention * head_scores(run, above, layer)  # (2)
            future = torch.arange(len(run)) > above.tokens[:, None]
            value = value.masked_fill(future[:, None], -torch.inf)
            candidates.append(
                _top(reads, 1, layer, value.flatten(1), torch.full_like(value, torch.inf).flatten(1), count)
            )
    if "embedding" in allowed:
        stream = run.model.W_E[run.tokens[readers.tokens]] + run.model.W_pos[readers.tokens]
        value = (stream * readers.directions).sum(1, keepdim=True)  # (3)
        every = torch.arange(len(readers))
        candidates.append(_top(every, 2, -1, value, torch.full_like(value, torch.inf), 1))
    if not candidates:
        empty = torch.empty(0, dtype=torch.int64)
        return _Steps(empty, empty, empty, empty, empty, torch.empty(0), torch.empty(0))
    paths, kinds, layers, indices, values, fires = (torch.cat(column) for column in zip(*candidates, strict=True))
    real = values > -torch.inf
    paths, kinds, layers, indices, values, fires = (
        column[real] for column in (paths, kinds, layers, indices, values, fires)
    )
    heads = kinds == 1
    sources = torch.where(heads, indices % len(run), -1)
    indices = torch.where(heads, indices // len(run), indices)
    return _Steps(paths, kinds, layers, indices, sources, values, values / fires)


def _top(paths: Tensor, kind: int, layer: int, values: Tensor, fires: Tensor, count: int) -> tuple[Tensor, ...]:
    best, indices = values.topk(min(count, values.shape[1]), dim=1)
    rows = paths[:, None].expand_as(indices).flatten()
    same = torch.full_like(rows, kind), torch.full_like(rows, layer)
    return rows, *same, indices.flatten(), best.flatten(), fires.gather(1, indices).flatten()


def _node(run: FrozenRun, readers: Reader, steps: _Steps, row: int) -> Node:
    kind, layer, index = int(steps.kinds[row]), int(steps.layers[row]), int(steps.indices[row])
    token = int(readers.tokens[steps.paths[row]])
    if kind == 0:
        return Node("feature", layer, token, int(run.active[layer].features[index]))
    return Node("head", layer, token, index, int(steps.sources[row])) if kind == 1 else Node("embedding", -1, token)


def _at_the_bottom(node: Node) -> bool:
    """A head of the first layer reads embeddings alone: its value is theirs, and the path ends there."""
    return node.kind == "head" and node.layer == 0


def _order(steps: _Steps, on: Sequence[int]) -> list[int]:
    """The rows that go on, in the order in which `_behind` lists their readers: by kind, then layer."""
    return [
        index
        for kind, layer in sorted({(int(steps.kinds[p]), int(steps.layers[p])) for p in on})
        for index in on
        if (int(steps.kinds[index]), int(steps.layers[index])) == (kind, layer)
    ]


def _behind(run: FrozenRun, readers: Reader, steps: _Steps, on: Sequence[int]) -> Reader:
    """What the new last nodes read, in units of the root."""
    readers_behind = []
    ordered = _order(steps, on)
    for kind, layer in sorted({(int(steps.kinds[p]), int(steps.layers[p])) for p in on}):
        rows = torch.tensor([p for p in ordered if (int(steps.kinds[p]), int(steps.layers[p])) == (kind, layer)])
        paths = steps.paths[rows]
        directions, tokens = readers.directions[paths], readers.tokens[paths]
        if kind == 0:
            indices = steps.indices[rows]
            wired = (run.active[layer].decoder[indices] * directions).sum(1, keepdim=True)  # (1): <d_i, u>
            reader = run.feature_reader(layer, indices, tokens)
            readers_behind.append(Reader(wired * reader.directions, reader.tokens, reader.attentions, reader.mlps))
        else:
            readers_behind.append(
                run.through_heads(directions, layer, steps.indices[rows], tokens, steps.sources[rows])
            )
    return Reader(
        *(
            torch.cat([getattr(each, name) for each in readers_behind])
            for name in ("directions", "tokens", "attentions", "mlps")
        )
    )
