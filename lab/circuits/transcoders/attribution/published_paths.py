r"""The published path search written plainly, as the race's peer: what `greedy` must equal and be faster than.

It follows the official algorithm's shape: for each path and step every earlier transcoder is run again, and every attention
layer is spread out as one tensor [heads, destinations, sources, width] before it is read. Memory grows as ``H T^2 D``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lab.circuits.transcoders.attribution.frozen_run import FrozenRun, Node, Root


@torch.no_grad()
def published_paths(
    run: FrozenRun, root: Root, num_iters: int, num_branches: int
) -> list[tuple[tuple[Node, ...], float]]:
    """The paths of `greedy_paths` and their values, one node at a time.

    >>> from lab.circuits.transcoders.attribution.frozen_run import LogitDiff
    >>> from lab.circuits.transcoders.hooked import HookedGPT
    >>> run = FrozenRun(HookedGPT.tiny(), {}, torch.tensor([0, 3, 1]))
    >>> len(published_paths(run, LogitDiff((2,), (4,)), 1, 3))
    3
    """
    node, reader, _ = run.root(root)
    layers = run.model.cfg.n_layers
    kept = [((node,), reader.directions[0], int(reader.tokens[0]), int(reader.attentions[0]), int(reader.mlps[0]))]
    found: list[tuple[tuple[Node, ...], float]] = []
    for _ in range(num_iters):
        longer = []
        for nodes, vector, token, heads, mlps in kept:
            for layer in range(min(mlps, layers)):
                longer += _features(run, nodes, vector, layer, token, num_branches)
            for layer in range(min(heads, layers)):
                longer += _heads(run, nodes, vector, layer, token, num_branches)
            stream = run.model.W_E[run.tokens[token]] + run.model.W_pos[token]
            longer.append((float(stream @ vector), (*nodes, Node("embedding", -1, token)), None, token, 0, 0))
        longer.sort(key=lambda entry: -entry[0])
        best = longer[:num_branches]
        found += [(entry[1], entry[0]) for entry in best]
        kept = [(nodes, vector, *rest) for _, nodes, vector, *rest in best if vector is not None]
    return found


def _features(run: FrozenRun, nodes: tuple[Node, ...], vector: Tensor, layer: int, token: int, count: int) -> list:
    if layer not in run.coders:
        return []
    coder = run.coders[layer]
    z = coder.encode(run.inputs(layer))[token]
    wired = coder.W_dec @ vector
    value = torch.where(z > 0, z * wired, -torch.inf)
    best, places = value.topk(min(count, len(value)))
    found = []
    for flow, index in zip(best.tolist(), places.tolist(), strict=True):
        if flow == -torch.inf:
            continue
        back = wired[index] * coder.W_enc[:, index]
        back = (back - back.mean()) / run.at(f"blocks.{layer}.ln2.hook_scale")[token]
        found.append((flow, (*nodes, Node("feature", layer, token, index)), back, token, layer + 1, layer))
    return found


def _heads(run: FrozenRun, nodes: tuple[Node, ...], vector: Tensor, layer: int, token: int, count: int) -> list:
    written: Float[Tensor, "h t s d"] = _spread(run, layer)
    flows = written[:, token] @ vector
    flows[:, token + 1 :] = -torch.inf
    best, places = flows.flatten().topk(min(count, (token + 1) * len(flows)))
    found = []
    for flow, place in zip(best.tolist(), places.tolist(), strict=True):
        head, source = divmod(place, len(run))
        back = run.model.W_V[layer, head] @ (run.model.W_O[layer, head] @ vector)
        back = (back - back.mean()) / run.at(f"blocks.{layer}.ln1.hook_scale")[source]
        back = run.pattern(layer)[head, token, source] * back
        node = Node("head", layer, token, head, source)
        found.append((flow, (*nodes, node), back if layer else None, source, layer, layer))
    return found


def _spread(run: FrozenRun, layer: int) -> Float[Tensor, "h t s d"]:
    """What each head writes to each destination from each source."""
    written = torch.einsum("shk,hkd->shd", run.values[layer], run.model.W_O[layer])
    return run.pattern(layer)[..., None] * written.transpose(0, 1)[:, None]
