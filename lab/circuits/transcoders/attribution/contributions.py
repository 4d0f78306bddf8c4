r"""What a number read from the residual stream is made of, with books that close (Section 4.1 and the official code).

For a feature j at token t of layer l', attention patterns and LayerNorm scales frozen,

$$ \mathrm{pre}_j=\sum_{\text{heads},s}A_{ts}\langle \mathrm{LN}(x_s)W_VW_O,v\rangle
   +\sum_{l<l'}\Big[\sum_i z_i\langle d_i,v\rangle+\langle b_{dec},v\rangle+\langle\mathrm{error},v\rangle\Big]
   +\langle \mathrm{embedding},v\rangle+\mathrm{bias},\qquad v=\frac{f_j-\overline{f_j}}{\sigma} . $$

Each contribution is what fires (input-dependent) times how it is wired (input-invariant but for the constant sigma). The
official code leaves out the biases b_dec, b_O and b_V, the errors, and, on request, the first token; here all stand in
the books, so the contributions sum to the root.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.circuits.transcoders.attribution.frozen_run import FrozenRun, Node, Reader, Root
from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.hooked import HookedGPT


@dataclass(frozen=True)
class Attribution:
    """All contributions to a root: ``values.sum() == value`` up to rounding.

    nodes    what contributes; features and heads only where they fire
    values   contributions in units of the root, ``fires * wired``
    fires    activation of a feature, attention of a head, 1 for others
    wired    what one unit of it does to the root
    value    the root itself: a pre-activation, or a difference of logits
    run      the frozen prompt it was read from
    reader   how the root reads the residual stream
    """

    root: Node
    value: float
    nodes: tuple[Node, ...]
    values: np.ndarray
    fires: np.ndarray
    wired: np.ndarray
    run: FrozenRun
    reader: Reader

    @property
    def gap(self) -> float:
        """By how much the contributions miss the root, relative to the sum of their sizes."""
        return abs(float(self.values.sum()) - self.value) / max(float(np.abs(self.values).sum()), 1e-300)

    def top(self, count: int) -> list[tuple[Node, float]]:
        """The largest contributions by magnitude."""
        order = np.argsort(-np.abs(self.values), kind="stable")[:count]
        return [(self.nodes[place], float(self.values[place])) for place in order]

    def by_kind(self) -> dict[str, float]:
        """Contributions summed by kind of node: the waterfall from zero to the root."""
        found: dict[str, float] = {}
        for node, value in zip(self.nodes, self.values, strict=True):
            found[node.kind] = found.get(node.kind, 0.0) + float(value)
        return found


def attribute(
    model: HookedGPT,
    coders: Mapping[int, Transcoder],
    tokens: Int[Tensor, " t"],
    root: Root,
    *,
    bos: int | None = None,
) -> Attribution:
    """All direct contributions to a root on one prompt; they sum to it.

    coders   by layer; a layer without one contributes its whole MLP as one node
    tokens   the prompt; `bos` warns when it does not begin with this token
    root     `Feature`, `Neuron` or `LogitDiff`

    Raises CircuitError and HookedError for coders, prompts and roots that do not fit.

    >>> from lab.circuits.transcoders.attribution.frozen_run import LogitDiff
    >>> from lab.circuits.transcoders.hooked import HookedConfig
    >>> model = HookedGPT(HookedConfig(1, 8, 2, 4, 16, 10, 5)).double()
    >>> attribute(model, {}, torch.tensor([0, 3, 1]), LogitDiff((2,), (4,))).gap < 1e-12
    True
    """
    return attribute_run(FrozenRun(model, coders, tokens, bos=bos), root)


@torch.no_grad()
def attribute_run(run: FrozenRun, root: Root) -> Attribution:
    """`attribute` on a prompt that was run already."""
    node, reader, constant = run.root(root)
    token = int(reader.tokens[0])
    rows: list[tuple[Node, float, float]] = [
        (Node("embedding", -1, token), 1.0, float(run.model.W_E[run.tokens[token]] @ reader.directions[0])),
        (Node("position", -1, token), 1.0, float(run.model.W_pos[token] @ reader.directions[0])),
    ]
    for layer in range(int(reader.attentions[0])):
        rows += _head_rows(run, reader, layer, token)
    for layer in range(int(reader.mlps[0])):
        rows += _mlp_rows(run, reader, layer, token)
    rows += [(bias, 1.0, value) for bias, value in _biases(run, reader, token, node, constant)]
    fires, wired = (np.array([row[place] for row in rows], dtype=np.float64) for place in (1, 2))
    value = float(read_stream(run, reader)[0]) + constant
    return Attribution(node, value, tuple(row[0] for row in rows), fires * wired, fires, wired, run, reader)


def _head_rows(run: FrozenRun, reader: Reader, layer: int, token: int) -> list[tuple[Node, float, float]]:
    scores = head_scores(run, reader, layer)[0]
    attention = run.pattern(layer)[:, token]
    return [
        (Node("head", layer, token, head, source), float(attention[head, source]), float(scores[head, source]))
        for head in range(run.model.cfg.n_heads)
        for source in range(token + 1)
    ]


def _mlp_rows(run: FrozenRun, reader: Reader, layer: int, token: int) -> list[tuple[Node, float, float]]:
    direction = reader.directions[0]
    if layer not in run.coders:
        return [(Node("mlp", layer, token), 1.0, float(run.outputs(layer)[token] @ direction))]
    active = run.active[layer]
    wired = active.decoder @ direction
    here = active.z[token].nonzero()[:, 0].tolist()
    rows = [
        (Node("feature", layer, token, int(active.features[place])), float(active.z[token, place]), float(wired[place]))
        for place in here
    ]
    if layer in run.skips:
        rows.append((Node("skip", layer, token), 1.0, float(run.skips[layer][token] @ direction)))
    return [*rows, (Node("error", layer, token), 1.0, float(run.errors[layer][token] @ direction))]


def _biases(run: FrozenRun, reader: Reader, token: int, root: Node, constant: float) -> list[tuple[Node, float]]:
    """One bias row a layer that wrote: the heads' and the coder's; and the root's own."""
    model, direction = run.model, reader.directions[0]
    rows = []
    for layer in range(int(reader.attentions[0])):
        bias = model.b_O[layer] + torch.einsum("hk,hkd->d", model.b_V[layer], model.W_O[layer])
        if layer < int(reader.mlps[0]) and layer in run.coders:
            bias = bias + run.coders[layer].b_dec
        rows.append((Node("bias", layer, token), float(bias @ direction)))
    return [*rows, (Node("bias", root.layer, token, 0), constant)]


def head_scores(run: FrozenRun, reader: Reader, layer: int) -> Float[Tensor, "p h s"]:
    """``<LN(x_s) W_V W_O, v>`` of every head and source: the direction is pulled back first, so no [H, T, T, D] appears."""
    at_value = torch.einsum("pd,hkd->phk", reader.directions, run.model.W_O[layer])
    return torch.einsum("phk,shk->phs", at_value, run.values[layer])


def read_stream(run: FrozenRun, reader: Reader) -> Float[Tensor, " p"]:
    """The stream itself, read by the readers' directions: what all contributions but the root's own bias sum to."""
    cfg = run.model.cfg
    found = []
    for direction, token, attentions, mlps in zip(
        reader.directions, reader.tokens.tolist(), reader.attentions.tolist(), reader.mlps.tolist(), strict=True
    ):
        if mlps == cfg.n_layers:
            stream = run.at(f"blocks.{mlps - 1}.hook_resid_post")
        else:
            stream = run.at(f"blocks.{mlps}.hook_resid_{'mid' if attentions > mlps else 'pre'}")
        found.append(stream[token] @ direction)
    return torch.stack(found)
