r"""What a number read from the residual stream is made of, so that the parts sum to it (Section 4.1, official code).

For a feature j with encoder column f at token t of layer l', attention patterns and LayerNorm scales frozen,

$$ \mathrm{pre}_j=\sum_{l\le l',h,s}A^h_{ts}\langle \mathrm{LN}(x_s)W^h_VW^h_O,v\rangle
   +\sum_{l<l'}\Big[\sum_i z_i\langle d_i,v\rangle+\langle b_{dec},v\rangle+\langle e,v\rangle\Big]
   +\langle W_E[x_t]+W_{pos}[t],v\rangle+b_j,\qquad v=\frac{f-\bar f}{\sigma} . \tag{1} $$

Each contribution is what fires (input-dependent) times how it is wired (input-invariant but for the constant sigma). The
official code leaves out the biases b_dec, b_O and b_V, the errors e, and, on request, the first token; here all are
accounted for, so the contributions sum to the root.
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
    """All direct contributions to a root: ``values.sum() == value`` up to rounding.

    Parameters
    ----------
    root : Node
        What is explained.
    value : float
        The root itself: a pre-activation, or a difference of logits.
    nodes : tuple of Node, n of them
        What contributes; features and heads only where they fire.
    values : array (n,)
        Contributions in units of the root, ``fires * wired``: the terms of equation (1) of the module.
    fires : array (n,)
        Activation of a feature, attention of a head, 1 for others.
    wired : array (n,)
        What one unit of it does to the root.
    run : FrozenRun
        The prompt it was read from.
    reader : Reader
        How the root reads the residual stream.

    Examples
    --------
    >>> from lab.circuits.transcoders.attribution.frozen_run import LogitDiff
    >>> from lab.circuits.transcoders.hooked import HookedGPT
    >>> run = FrozenRun(HookedGPT.tiny().double(), {}, torch.tensor([0, 3, 1]))
    >>> found = attribute_run(run, LogitDiff((2,), (4,)))
    >>> bool(abs(found.values.sum() - found.value) < 1e-12)
    True
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
        return [(self.nodes[row], float(self.values[row])) for row in order]

    def by_kind(self) -> dict[str, float]:
        """Contributions summed by kind of node: the waterfall from zero to the root."""
        totals: dict[str, float] = {}
        for node, value in zip(self.nodes, self.values, strict=True):
            totals[node.kind] = totals.get(node.kind, 0.0) + float(value)
        return totals


def attribute(
    model: HookedGPT,
    coders: Mapping[int, Transcoder],
    tokens: Int[Tensor, " t"],
    root: Root,
    *,
    bos: int | None = None,
) -> Attribution:
    """All direct contributions to a root on one prompt, as in equation (1) of the module; they sum to it.

    Parameters
    ----------
    model : HookedGPT
        The language model; only read.
    coders : mapping of layer to Transcoder
        A layer without one contributes its whole MLP as one node.
    tokens : Int[Tensor, "t"]
        The prompt.
    root : Feature, Neuron or LogitDiff
        What is explained.
    bos : int, optional
        Warn when the prompt does not begin with this token.

    Returns
    -------
    Attribution
        One node per feature that fires, per head and source, per error, bias and embedding.

    Raises
    ------
    CircuitError
        For coders that do not fit, and features that do not exist.
    HookedError
        For prompts, layers and tokens that the model does not have.

    References
    ----------
    Dunefsky, Chlenski and Nanda, "Transcoders Find Interpretable LLM Feature Circuits", 2024, Section 4.1.

    Examples
    --------
    >>> from lab.circuits.transcoders.attribution.frozen_run import LogitDiff
    >>> model = HookedGPT.tiny().double()
    >>> attribute(model, {}, torch.tensor([0, 3, 1]), LogitDiff((2,), (4,))).gap < 1e-12
    True
    """
    return attribute_run(FrozenRun(model, coders, tokens, bos=bos), root)


@torch.no_grad()
def attribute_run(run: FrozenRun, root: Root) -> Attribution:
    """`attribute` on a prompt that was run already.

    Parameters
    ----------
    run : FrozenRun
        The prompt, run with transcoders beside some layers.
    root : Feature, Neuron or LogitDiff
        What is explained.

    Returns
    -------
    Attribution
        See `attribute`.

    Raises
    ------
    CircuitError, HookedError
        For roots that do not exist.

    Examples
    --------
    >>> from lab.circuits.transcoders.attribution.frozen_run import Neuron
    >>> run = FrozenRun(HookedGPT.tiny(), {}, torch.tensor([0, 3, 1]))
    >>> sorted(attribute_run(run, Neuron(0, 7)).by_kind())
    ['bias', 'embedding', 'head', 'position']
    """
    node, reader, constant = run.root(root)
    token = int(reader.tokens[0])
    rows: list[tuple[Node, float, float]] = [  # (node, fires, wired)
        (Node("embedding", -1, token), 1.0, float(run.model.W_E[run.tokens[token]] @ reader.directions[0])),
        (Node("position", -1, token), 1.0, float(run.model.W_pos[token] @ reader.directions[0])),
    ]
    for layer in range(int(reader.attentions[0])):
        rows += _head_rows(run, reader, layer, token)
    for layer in range(int(reader.mlps[0])):
        rows += _mlp_rows(run, reader, layer, token)
    rows += [(bias, 1.0, value) for bias, value in _biases(run, reader, token, node, constant)]
    fires, wired = (np.array([row[column] for row in rows], dtype=np.float64) for column in (1, 2))
    value = float(read_stream(run, reader)[0]) + constant
    return Attribution(node, value, tuple(row[0] for row in rows), fires * wired, fires, wired, run, reader)


def _head_rows(run: FrozenRun, reader: Reader, layer: int, token: int) -> list[tuple[Node, float, float]]:
    """A_ts (fires) and <LN(x_s) W_V W_O, v> (wired) of each head and source s."""
    scores = head_scores(run, reader, layer)[0]  # [H, T]
    attention = run.pattern(layer)[:, token]  # [H, T]
    return [
        (Node("head", layer, token, head, source), float(attention[head, source]), float(scores[head, source]))
        for head in range(run.model.cfg.n_heads)
        for source in range(token + 1)
    ]


def _mlp_rows(run: FrozenRun, reader: Reader, layer: int, token: int) -> list[tuple[Node, float, float]]:
    """z_i (fires) and <d_i, v> (wired) of each active feature, then the skip's part and the error."""
    direction = reader.directions[0]  # v [D]
    if layer not in run.coders:
        return [(Node("mlp", layer, token), 1.0, float(run.outputs(layer)[token] @ direction))]
    active = run.active[layer]
    wired = active.decoder @ direction  # <d_i, v> [k]
    rows = [
        (Node("feature", layer, token, int(active.features[each])), float(active.z[token, each]), float(wired[each]))
        for each in active.z[token].nonzero()[:, 0].tolist()
    ]
    if layer in run.skips:
        rows.append((Node("skip", layer, token), 1.0, float(run.skips[layer][token] @ direction)))
    return [*rows, (Node("error", layer, token), 1.0, float(run.errors[layer][token] @ direction))]


def _biases(run: FrozenRun, reader: Reader, token: int, root: Node, constant: float) -> list[tuple[Node, float]]:
    """One bias row per layer that wrote: the heads' and the coder's; and the root's own."""
    model, direction = run.model, reader.directions[0]
    rows = []
    for layer in range(int(reader.attentions[0])):
        # Attention weights sum to one, so the value biases pass the heads whole: b_O + sum_h b_V W_O
        bias = model.b_O[layer] + torch.einsum("hk,hkd->d", model.b_V[layer], model.W_O[layer])
        if layer < int(reader.mlps[0]) and layer in run.coders:
            bias = bias + run.coders[layer].b_dec
        rows.append((Node("bias", layer, token), float(bias @ direction)))
    return [*rows, (Node("bias", root.layer, token, 0), constant)]


def head_scores(run: FrozenRun, reader: Reader, layer: int) -> Float[Tensor, "p h s"]:
    """``<LN(x_s) W_V W_O, v>`` of every head and source: the direction is pulled back first, so no [H, T, T, D] appears."""
    at_value = torch.einsum("pd,hkd->phk", reader.directions, run.model.W_O[layer])  # W_O v [p, H, d_h]
    return torch.einsum("phk,shk->phs", at_value, run.values[layer])


def read_stream(run: FrozenRun, reader: Reader) -> Float[Tensor, " p"]:
    """The stream itself, read by the readers' directions: what all contributions but the root's own bias sum to."""
    cfg = run.model.cfg
    values = []
    for direction, token, attentions, mlps in zip(
        reader.directions, reader.tokens.tolist(), reader.attentions.tolist(), reader.mlps.tolist(), strict=True
    ):
        if mlps == cfg.n_layers:
            stream = run.at(f"blocks.{mlps - 1}.hook_resid_post")
        else:
            stream = run.at(f"blocks.{mlps}.hook_resid_{'mid' if attentions > mlps else 'pre'}")
        values.append(stream[token] @ direction)
    return torch.stack(values)
