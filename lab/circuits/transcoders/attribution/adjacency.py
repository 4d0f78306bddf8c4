r"""Every edge between the features of a prompt, attention folded away: the full attribution graph (Ameisen et al., 2025).

With attention patterns and LayerNorm scales frozen, feature j at token t of layer l' reads the stream by a vector v, and

$$ \mathrm{pre}_{j}=\sum_{l<l'}\sum_{s}\Big[\sum_i z_{i,s}\langle d_i,c^l_s\rangle+\langle e^l_s,c^l_s\rangle\Big]
   +\sum_s\langle W_E[x_s]+W_{pos}[s],c^0_s\rangle+\mathrm{bias} \tag{1} $$

where the cotangent $c^l_s$ says what a unit written at token s by the MLP of layer l does to j. It begins as v at t and is
carried down, layer by layer, past all heads at once:

$$ c^{l}_{s}\leftarrow c^{l}_{s}+\frac1{\sigma_s}\,P\sum_{h,t}A^h_{ts}\,W^h_VW^h_O\,c^{l}_{t},\qquad Px=x-\bar x . \tag{2} $$

One row of the adjacency is one target; its entries are the terms of (1) and sum to the target's pre-activation, as the
contributions of `attribute` do. For many features only the rows that matter most to the root are computed.
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

AT_ONCE = 64  # targets carried down together


@dataclass(frozen=True)
class Adjacency:
    r"""Direct effects between the nodes of a prompt, one row per target.

    Problem: ``weights[r, n]`` is the term of source n in equation (1) of the module for target r, so that
    ``weights.sum(1) == values``.

    Parameters
    ----------
    run : FrozenRun
        The prompt that was traced.
    root : Node
        What row 0 explains.
    sources : tuple of Node, n of them
        Features, errors, MLPs without a transcoder, embeddings (token and position together), and last one bias.
    targets : Int[Tensor, "r"]
        Indices into `sources` of the features whose rows are known: row ``k + 1`` belongs to ``targets[k]``.
    weights : Float[Tensor, "rows n"]
        Direct effects, in units of the target's pre-activation (logits for a `LogitDiff`); rows = 1 + r.
    values : Float[Tensor, "rows"]
        Pre-activations of the targets, computed from the stream itself.
    fires : Float[Tensor, "n"]
        Activation of a feature; 1 for others.

    References
    ----------
    Ameisen et al., "Circuit Tracing: Revealing Computational Graphs in Language Models", 2025.

    Examples
    --------
    >>> from lab.circuits.transcoders.attribution.frozen_run import LogitDiff
    >>> from lab.circuits.transcoders.hooked import HookedGPT
    >>> run = FrozenRun(HookedGPT.tiny().double(), {}, torch.tensor([0, 3, 1]))
    >>> full = adjacency(run, LogitDiff((2,), (4,)))
    >>> full.weights.shape, full.gap < 1e-12  # one MLP node and one embedding per token, and the bias
    (torch.Size([1, 7]), True)
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
        r"""Each source's influence on the root: ``p (I + A + A^2 + ...)`` with ``A = |weights|``, rows summing to one.

        The series ends, as edges only go up; biases take no part. Targets without a row pass nothing on.
        """
        return influence(self.shares(), self.targets)

    def shares(self) -> Float[Tensor, "rows n"]:
        """|weights| without the bias, each row summing to one."""
        size = self.weights.abs().double()
        size[:, -1] = 0
        return size / size.sum(1, keepdim=True).clamp_min(1e-300)


def influence(shares: Float[Tensor, "rows n"], targets: Int[Tensor, " r"]) -> Float[Tensor, " n"]:
    r"""How much of the root passes through each node: $p\,(I+A+A^2+\dots)$ for the root's row p and the other rows A.

    Parameters
    ----------
    shares : Float[Tensor, "rows n"]
        Non-negative, each row summing to one or zero; the root's row first, then those of `targets`.
    targets : Int[Tensor, "r"]
        Which nodes the further rows belong to. The graph must have no circle, or the series does not end.

    Examples
    --------
    >>> influence(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0]))  # root <- node 0 <- node 1
    tensor([1., 1.])
    """
    total = flow = shares[0]  # p
    for _ in range(len(targets)):
        flow = flow[targets] @ shares[1:]  # p A^k: only nodes with a row pass anything on
        if not bool(flow.any()):
            break
        total = total + flow
    return total


def adjacency(run: FrozenRun, root: Root, *, max_targets: int = 400, progress: Progress = no_progress) -> Adjacency:
    """The root's row of the attribution graph, and those of the features that matter most to it.

    Rows are computed in the order of their features' influence by the rows known so far, `AT_ONCE` at a time. Time grows
    as ``targets L T D (D + T)``, memory as ``targets n``.

    Parameters
    ----------
    run : FrozenRun
        A prompt of T tokens that was run, with transcoders beside some layers.
    root : Feature, Neuron or LogitDiff
        What is explained.
    max_targets : int, at least 0
        How many features get a row of their own; all that have any influence where this is more.
    progress : Progress
        Told how many rows are known.

    Returns
    -------
    Adjacency
        Direct effects; each row sums to its target's pre-activation up to rounding, see `Adjacency.gap`.

    Raises
    ------
    CircuitError
        For a negative `max_targets`, and for roots that do not exist.
    HookedError
        For tokens and layers outside the model.

    References
    ----------
    Ameisen et al., "Circuit Tracing", 2025, with transcoders of single layers in place of cross-layer ones.

    Examples
    --------
    >>> from lab.circuits.transcoders.attribution.frozen_run import LogitDiff
    >>> from lab.circuits.transcoders.hooked import HookedGPT
    >>> run = FrozenRun(HookedGPT.tiny(), {}, torch.tensor([0, 3, 1]))
    >>> adjacency(run, LogitDiff((2,))).sources[-1].kind
    'bias'
    """
    if max_targets < 0:
        raise CircuitError(f"max_targets must be at least 0, got {max_targets}")
    layout = _Layout(run)
    node, root_reader, constant = run.root(root)
    rows = [layout.rows(root_reader, torch.tensor([constant], dtype=torch.float64))]
    targets = torch.empty(0, dtype=torch.int64)
    limit = min(max_targets, layout.features)
    while True:
        weights = torch.cat(rows)
        graph = Adjacency(run, node, layout.nodes, targets, weights, weights.sum(1), layout.fires)
        candidates = graph.influence()[: layout.features].clone()
        candidates[targets] = 0  # have a row already
        count = min(AT_ONCE, limit - len(targets), int((candidates > 0).sum()))
        if count == 0:
            break
        progress(len(targets) / max(1, limit), f"{len(targets)} of {limit} features traced")
        new = candidates.topk(count).indices
        reader, biases = layout.readers(new)
        rows.append(layout.rows(reader, biases))
        targets = torch.cat([targets, new])
    values = torch.cat([read_stream(run, root_reader) + constant, layout.pre[targets]])
    return Adjacency(run, node, layout.nodes, targets, weights, values, layout.fires)


class _Layout:
    """Which column each source has in a row, and how rows are computed."""

    def __init__(self, run: FrozenRun) -> None:
        self.run, cfg = run, run.model.cfg
        nodes: list[Node] = []
        fires, pre = [], []
        self.tokens: dict[int, Tensor] = {}  # by layer, of each of its feature columns: the token ...
        self.active_index: dict[int, Tensor] = {}  # ... and the feature's index in `run.active[layer]`
        self.starts: dict[int, int] = {}  # the layer's first feature column
        for layer, active in run.active.items():
            tokens, index = active.z.nonzero(as_tuple=True)
            self.starts[layer] = len(nodes)
            self.tokens[layer], self.active_index[layer] = tokens, index
            numbers = active.features[index].tolist()
            nodes += [
                Node("feature", layer, token, number) for token, number in zip(tokens.tolist(), numbers, strict=True)
            ]
            fires.append(active.z[tokens, index])
            inputs = run.inputs(layer)
            pre.append((inputs[tokens] * active.encoder[index]).sum(1) + active.bias[index])
        self.features = len(nodes)
        for layer in range(cfg.n_layers):
            kind = "error" if layer in run.coders else "mlp"
            nodes += [Node(kind, layer, token) for token in range(len(run))]  # type: ignore[arg-type]
        nodes += [Node("embedding", -1, token) for token in range(len(run))]
        nodes.append(Node("bias", -1, 0))
        self.nodes = tuple(nodes)
        ones = torch.ones(len(nodes) - self.features, dtype=run.model.W_E.dtype)
        self.fires = torch.cat([*fires, ones])
        self.pre = torch.cat([*pre, torch.empty(0, dtype=ones.dtype)])
        ends = [*self.starts.values(), self.features][1:]
        self.layer_of = torch.cat(
            [torch.full((end - start,), layer) for (layer, start), end in zip(self.starts.items(), ends, strict=True)]
            or [torch.empty(0, dtype=torch.int64)]
        )

    def readers(self, targets: Int[Tensor, " r"]) -> tuple[Reader, Tensor]:
        """Readers of some features, given by their columns, in this order; and their biases."""
        directions = torch.empty(len(targets), self.run.model.cfg.d_model, dtype=self.run.model.W_E.dtype)
        tokens, biases = torch.empty_like(targets), torch.empty(len(targets), dtype=directions.dtype)
        layers = self.layer_of[targets]
        for layer in layers.unique().tolist():
            in_layer = layers == layer
            offsets = targets[in_layer] - self.starts[layer]
            index, at = self.active_index[layer][offsets], self.tokens[layer][offsets]
            reader = self.run.feature_reader(layer, index, at)
            directions[in_layer], tokens[in_layer] = reader.directions, at
            biases[in_layer] = self.run.active[layer].bias[index]
        return Reader(directions, tokens, layers + 1, layers), biases

    @torch.no_grad()
    def rows(self, reader: Reader, biases: Float[Tensor, " p"]) -> Float[Tensor, "p n"]:
        """The terms of equation (1) for p readers: their directions are carried down through the frozen stream."""
        run, model = self.run, self.run.model
        cfg, time = model.cfg, len(run)
        row = torch.zeros(len(reader), len(self.nodes), dtype=model.W_E.dtype)
        bias = biases.to(row.dtype).clone()
        carried = torch.zeros(len(reader), time, cfg.d_model, dtype=row.dtype)  # c [p, T, D]
        every = torch.arange(len(reader))
        of_logits = reader.mlps == cfg.n_layers
        carried[every[of_logits], reader.tokens[of_logits]] += reader.directions[of_logits]  # c_t = v
        for layer in reversed(range(cfg.n_layers)):
            # (1): what the layer's MLP wrote: z_i <d_i, c_s> of each active feature, <e_s, c_s> of the error
            first = self.features + layer * time
            if layer in run.coders:
                active, tokens = run.active[layer], self.tokens[layer]
                index, start = self.active_index[layer], self.starts[layer]
                z = active.z[tokens, index]  # [features of the layer]
                wired = (carried @ active.decoder.T)[:, tokens, index]  # [p, T, k] -> [p, features of the layer]
                row[:, start : start + len(tokens)] = z * wired
                row[:, first : first + time] = (carried * run.errors[layer]).sum(-1)
                bias += carried.sum(1) @ run.coders[layer].b_dec
                skip = run.coders[layer].W_skip
                if skip is not None:  # the skip is linear: c passes through it and the LayerNorm in front
                    carried = carried + self._through_norm(carried @ skip, f"blocks.{layer}.ln2")
            else:
                row[:, first : first + time] = (carried * run.outputs(layer)).sum(-1)
            # Readers of this layer's MLP input join here, below its MLP and above its attention.
            joins = (reader.mlps == layer) & (reader.attentions == layer + 1)
            carried[every[joins], reader.tokens[joins]] += reader.directions[joins]
            # (2): past all heads at once, W_O c, then A^T, then W_V, then the LayerNorm
            at_value = torch.einsum("ptd,hkd->pthk", carried, model.W_O[layer])  # [p, T, H, d_h]
            moved = torch.einsum("hts,pthk->pshk", run.pattern(layer), at_value)
            bias += carried.sum(1) @ model.b_O[layer] + torch.einsum("pthk,hk->p", at_value, model.b_V[layer])
            at_stream = torch.einsum("pshk,hdk->psd", moved, model.W_V[layer])
            carried = carried + self._through_norm(at_stream, f"blocks.{layer}.ln1")
        # (1): the embeddings, <W_E[x_s] + W_pos[s], c_s>
        stream = model.W_E[run.tokens] + model.W_pos[:time]
        row[:, -1 - time : -1] = (carried * stream).sum(-1)
        row[:, -1] = bias
        return row

    def _through_norm(self, vectors: Float[Tensor, "p t d"], norm: str) -> Float[Tensor, "p t d"]:
        """Behind a frozen LayerNorm: ``P v / sigma``, one scale per token."""
        return (vectors - vectors.mean(-1, keepdim=True)) / self.run.at(f"{norm}.hook_scale")
