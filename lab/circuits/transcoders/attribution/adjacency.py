r"""Every edge between the features of a prompt, attention folded away: the full attribution graph (Ameisen et al., 2025).

One row a target: the direction it reads is carried backwards through the frozen, linear residual stream, past all heads at
once, and meets the writing direction of every active feature, error and embedding. Rows close like `attribution`'s: they
sum to the target's pre-activation. For many features only the rows that matter most to the root are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.circuits.transcoders.attribution.contributions import read_stream
from lab.circuits.transcoders.attribution.frozen_run import FrozenRun, Node, Reader, Root
from lab.circuits.transcoders.errors import CircuitError
from lab.experiment import Progress, no_progress

AT_ONCE = 64  # targets carried backwards together


@dataclass(frozen=True)
class Adjacency:
    """Direct effects between the nodes of a prompt.

    sources   features, errors, MLPs without a transcoder, embeddings (token and position), and last one bias
    targets   places in `sources` of the features whose rows are known; row 0 is the root's own
    weights   [1 + targets, sources]; row r sums to values[r], the pre-activation of that target
    fires     [sources] activation of a feature, 1 for others
    """

    run: FrozenRun
    root: Node
    sources: tuple[Node, ...]
    targets: Int[Tensor, " r"]
    weights: Float[Tensor, "rows n"]
    values: Float[Tensor, " rows"]
    fires: Float[Tensor, " n"]

    @property
    def gap(self) -> float:
        """The largest relative miss of a row's sum."""
        missed = (self.weights.double().sum(1) - self.values.double()).abs()
        return float((missed / self.weights.double().abs().sum(1).clamp_min(1e-300)).max())

    def influence(self) -> Float[Tensor, " n"]:
        r"""Each source's influence on the root: ``p (A + A^2 + ...)`` with ``A = |weights|``, rows summing to one.

        The series ends, as edges only go up; biases take no part. Targets without a row pass nothing on.
        """
        return influence(self.shares(), self.targets)

    def shares(self) -> Float[Tensor, "rows n"]:
        """|weights| without the bias, each row summing to one."""
        size = self.weights.abs().double()
        size[:, -1] = 0
        return size / size.sum(1, keepdim=True).clamp_min(1e-300)


def influence(shares: Float[Tensor, "rows n"], targets: Int[Tensor, " r"]) -> Float[Tensor, " n"]:
    """``p (A + A^2 + ...)`` from the rows that are known: the root's, then those of ``targets``; the series must end.

    >>> influence(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0]))  # root <- node 0 <- node 1
    tensor([1., 1.])
    """
    total = flow = shares[0]
    for _ in range(len(targets)):
        flow = flow[targets] @ shares[1:]
        if not bool(flow.any()):
            break
        total = total + flow
    return total


def adjacency(run: FrozenRun, root: Root, *, max_targets: int = 400, progress: Progress = no_progress) -> Adjacency:
    """The root's row and those of the up to `max_targets` features that matter most to it.

    Features are taken in the order of their influence by the rows known so far, `AT_ONCE` at a time. Time grows as
    ``targets L T D (D + T)``, memory as ``targets n``.

    Raises CircuitError for fewer than no targets, and what `FrozenRun.root` raises.
    """
    if max_targets < 0:
        raise CircuitError(f"max_targets must be at least 0, got {max_targets}")
    layout = _Layout(run)
    node, first, constant = run.root(root)
    rows = [layout.rows(first, torch.tensor([constant], dtype=torch.float64))]
    targets = torch.empty(0, dtype=torch.int64)
    limit = min(max_targets, layout.features)
    while True:
        weights = torch.cat(rows)
        graph = Adjacency(run, node, layout.nodes, targets, weights, weights.sum(1), layout.fires)
        left = graph.influence()[: layout.features].clone()
        left[targets] = 0
        count = min(AT_ONCE, limit - len(targets), int((left > 0).sum()))
        if count == 0:
            break
        progress(len(targets) / max(1, limit), f"{len(targets)} of {limit} features traced")
        new = left.topk(count).indices
        reader, biases = layout.readers(new)
        rows.append(layout.rows(reader, biases))
        targets = torch.cat([targets, new])
    values = torch.cat([read_stream(run, first) + constant, layout.pre[targets]])
    return Adjacency(run, node, layout.nodes, targets, weights, values, layout.fires)


class _Layout:
    """Where each source stands in a row, and how rows are computed."""

    def __init__(self, run: FrozenRun) -> None:
        self.run, cfg = run, run.model.cfg
        nodes: list[Node] = []
        fires, pre = [], []
        self.feature_tokens: dict[int, Tensor] = {}
        self.feature_places: dict[int, Tensor] = {}
        self.starts: dict[int, int] = {}
        for layer, active in run.active.items():
            tokens, places = active.z.nonzero(as_tuple=True)
            self.starts[layer] = len(nodes)
            self.feature_tokens[layer], self.feature_places[layer] = tokens, places
            numbers = active.features[places].tolist()
            nodes += [
                Node("feature", layer, token, index) for token, index in zip(tokens.tolist(), numbers, strict=True)
            ]
            fires.append(active.z[tokens, places])
            read = run.inputs(layer)
            pre.append((read[tokens] * active.encoder[places]).sum(1) + active.bias[places])
        self.features = len(nodes)
        self.others = len(nodes)
        for layer in range(cfg.n_layers):
            kind = "error" if layer in run.coders else "mlp"
            nodes += [Node(kind, layer, token) for token in range(len(run))]  # type: ignore[arg-type]
        nodes += [Node("embedding", -1, token) for token in range(len(run))]
        nodes.append(Node("bias", -1, 0))
        self.nodes = tuple(nodes)
        rest = torch.ones(len(nodes) - self.features, dtype=run.model.W_E.dtype)
        self.fires = torch.cat([*fires, rest])
        self.pre = torch.cat([*pre, torch.empty(0, dtype=rest.dtype)])
        ends = [*self.starts.values(), self.features][1:]
        self.layer_of = torch.cat(
            [torch.full((end - start,), layer) for (layer, start), end in zip(self.starts.items(), ends, strict=True)]
            or [torch.empty(0, dtype=torch.int64)]
        )

    def readers(self, targets: Int[Tensor, " r"]) -> tuple[Reader, Tensor]:
        """Readers of some features, given by their places in a row, in this order; and their biases."""
        directions = torch.empty(len(targets), self.run.model.cfg.d_model, dtype=self.run.model.W_E.dtype)
        tokens, biases = torch.empty_like(targets), torch.empty(len(targets), dtype=directions.dtype)
        layers = self.layer_of[targets]
        for layer in layers.unique().tolist():
            mine = layers == layer
            where = targets[mine] - self.starts[layer]
            places, at = self.feature_places[layer][where], self.feature_tokens[layer][where]
            reader = self.run.feature_reader(layer, places, at)
            directions[mine], tokens[mine], biases[mine] = reader.directions, at, self.run.active[layer].bias[places]
        return Reader(directions, tokens, layers + 1, layers), biases

    @torch.no_grad()
    def rows(self, reader: Reader, biases: Float[Tensor, " p"]) -> Float[Tensor, "p n"]:
        """Contributions of all sources to some readers: their directions are carried down through the frozen stream."""
        run, model = self.run, self.run.model
        cfg, time = model.cfg, len(run)
        found = torch.zeros(len(reader), len(self.nodes), dtype=model.W_E.dtype)
        bias = biases.to(found.dtype).clone()
        carried = torch.zeros(len(reader), time, cfg.d_model, dtype=found.dtype)
        everyone = torch.arange(len(reader))
        at_end = reader.mlps == cfg.n_layers
        carried[everyone[at_end], reader.tokens[at_end]] += reader.directions[at_end]
        for layer in reversed(range(cfg.n_layers)):
            place = self.others + layer * time
            if layer in run.coders:
                active, tokens = run.active[layer], self.feature_tokens[layer]
                places, start = self.feature_places[layer], self.starts[layer]
                z = active.z[tokens, places]
                found[:, start : start + len(tokens)] = z * (carried @ active.decoder.T)[:, tokens, places]
                found[:, place : place + time] = (carried * run.errors[layer]).sum(-1)
                bias += carried.sum(1) @ run.coders[layer].b_dec
                skip = run.coders[layer].W_skip
                if skip is not None:
                    read = carried @ skip
                    carried = carried + self._centred(read, f"blocks.{layer}.ln2")
            else:
                found[:, place : place + time] = (carried * run.outputs(layer)).sum(-1)
            joins = (reader.mlps == layer) & (reader.attentions == layer + 1)
            carried[everyone[joins], reader.tokens[joins]] += reader.directions[joins]
            at_value = torch.einsum("ptd,hkd->pthk", carried, model.W_O[layer])
            moved = torch.einsum("hts,pthk->pshk", run.pattern(layer), at_value)
            bias += carried.sum(1) @ model.b_O[layer] + torch.einsum("pthk,hk->p", at_value, model.b_V[layer])
            read = torch.einsum("pshk,hdk->psd", moved, model.W_V[layer])
            carried = carried + self._centred(read, f"blocks.{layer}.ln1")
        stream = model.W_E[run.tokens] + model.W_pos[:time]
        found[:, -1 - time : -1] = (carried * stream).sum(-1)
        found[:, -1] = bias
        return found

    def _centred(self, read: Tensor, norm: str) -> Tensor:
        return (read - read.mean(-1, keepdim=True)) / self.run.at(f"{norm}.hook_scale")
