r"""Cutting parts of a circuit and running the model again: what the root and the logits answer.

A cut feature i at token t is subtracted from its MLP's true output, with what it fires in the new run, and the error stays:

$$ y'_t = y_t - z_i(x_t)\,d_i . \tag{1} $$

A cut edge of weight w into a feature j is taken off its pre-activation, and the MLP's output changes by what that does:

$$ y'_t = y_t + \big(\phi(\mathrm{pre}_j-w)-\phi(\mathrm{pre}_j)\big)\,d_j . \tag{2} $$

Two ways to run: `live`, the model itself, attention and LayerNorm answering too; `frozen`, the linear stand-in that the
circuit was read from (patterns, scales and errors as they were; features answer). Where the two agree, the circuit is
faithful to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lab.circuits.transcoders.attribution.frozen_run import FrozenRun, Node, Root
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.hooked import MLP, replaced_mlps

Edge = tuple[Node, Node, float]  # from, to, and what flows along it
CUTTABLE = ("feature", "head", "embedding", "position", "error", "mlp", "skip")


@dataclass(frozen=True)
class Ablation:
    """The root before and after a cut, and the logits at the prompt's end.

    Parameters
    ----------
    before, after : float
        The root: a pre-activation, or a difference of logits.
    logits_before, logits_after : Float[Tensor, "v"]
        Of the next token behind the prompt's last one.

    Examples
    --------
    >>> Ablation(2.0, 0.5, torch.zeros(3), torch.ones(3)).effect
    -1.5
    """

    before: float
    after: float
    logits_before: Float[Tensor, " v"]
    logits_after: Float[Tensor, " v"]

    @property
    def effect(self) -> float:
        """By how much the root moved."""
        return self.after - self.before


@torch.no_grad()
def ablate(
    run: FrozenRun, root: Root, nodes: Iterable[Node] = (), edges: Iterable[Edge] = (), *, frozen: bool = False
) -> Ablation:
    """Run the prompt again without some nodes and edges, see equations (1) and (2) of the module.

    Parameters
    ----------
    run : FrozenRun
        The prompt that the circuit was read from.
    root : Feature, Neuron or LogitDiff
        What is measured before and after.
    nodes : iterable of Node
        Features, heads (one source's attention is set to 0), embeddings, positions, errors, whole MLPs, skips.
    edges : iterable of (source, target, weight)
        What flowed along each is taken off the target's pre-activation, or off the root itself.
    frozen : bool
        Keep patterns, scales and errors as they were, with transcoders in place: the circuit's own prediction.

    Returns
    -------
    Ablation
        ``effect`` is after - before, in units of the root.

    Raises
    ------
    CircuitError
        For a bias, a root, a node of a layer without a transcoder, and an edge into anything but a feature or the root.
    HookedError
        For a node beyond the prompt.

    References
    ----------
    Dunefsky, Chlenski and Nanda, "Transcoders Find Interpretable LLM Feature Circuits", 2024, Section 4.

    Examples
    --------
    >>> from lab.circuits.transcoders.attribution.frozen_run import LogitDiff
    >>> from lab.circuits.transcoders.hooked import HookedGPT
    >>> run = FrozenRun(HookedGPT.tiny(), {}, torch.tensor([0, 3, 1]))
    >>> abs(ablate(run, LogitDiff((2,), (4,)), [Node("mlp", 0, 2)]).effect) > 0
    True
    """
    plan = _Plan(run, tuple(nodes), tuple(edges))
    node, reader, constant = run.root(root)
    token = int(reader.tokens[0])
    place = "ln_final" if node.layer == run.model.cfg.n_layers else f"blocks.{node.layer}.ln2"
    with replaced_mlps(run.model, plan.mlps(frozen)):
        logits, cache = run.model.run_with_cache(
            run.tokens[None],
            names=frozenset({f"{place}.hook_normalized"}),
            edits=plan.edits(),
            frozen=run.cache if frozen else None,
        )
    scale = run.at(f"{place}.hook_scale")[token]
    direction = reader.directions[0] * scale  # what reads the normalised stream
    before, after = (
        float(normalised[token] @ direction) + constant
        for normalised in (run.at(f"{place}.hook_normalized"), cache[f"{place}.hook_normalized"][0])
    )
    return Ablation(before, after - plan.off_root, run.logits[-1], logits[0, -1])


class _Plan:
    """What has to be cut where."""

    def __init__(self, run: FrozenRun, nodes: tuple[Node, ...], edges: tuple[Edge, ...]) -> None:
        self.run, self.nodes, self.off_root = run, nodes, 0.0
        self.cuts: dict[int, list[Node]] = {}
        self.owed: dict[int, list[tuple[Node, float]]] = {}  # by layer: what is taken off a feature's pre-activation
        for node in nodes:
            self._check(node)
            if node.kind in ("feature", "error", "mlp", "skip"):
                self.cuts.setdefault(node.layer, []).append(node)
        for _, target, weight in edges:
            if target.kind == "root":
                self.off_root += weight
            elif target.kind == "feature":
                self._check(target)
                self.owed.setdefault(target.layer, []).append((target, weight))
            else:
                raise CircuitError(f"an edge can be cut into a feature or the root, not into a {target.kind}")

    def _check(self, node: Node) -> None:
        if node.kind not in CUTTABLE:
            raise CircuitError(f"a {node.kind} cannot be cut; what can are {', '.join(CUTTABLE)}")
        self.run.position(node.token)
        if node.kind in ("feature", "error", "skip") and node.layer not in self.run.coders:
            raise CircuitError(f"layer {node.layer} has no transcoder, so it has no {node.kind} to cut")

    def mlps(self, frozen: bool) -> Mapping[int, MLP]:
        """By layer, the MLP with its cuts; in a frozen run of all layers."""
        layers = set(range(self.run.model.cfg.n_layers)) if frozen else set(self.cuts) | set(self.owed)
        return {layer: self._mlp(layer, frozen) for layer in layers}

    def _mlp(self, layer: int, frozen: bool) -> MLP:
        run, cuts, owed = self.run, self.cuts.get(layer, []), self.owed.get(layer, [])
        coder = run.coders.get(layer)

        def mlp(x: Tensor, y: Tensor) -> Tensor:
            if coder is None:
                y = run.outputs(layer)[None].clone() if frozen else y.clone()
            else:
                pre = coder.pre(x)
                z = coder.activate(pre)
                y = coder(x) + run.errors[layer] if frozen else y.clone()
                lowered = pre.clone()
                for target, weight in owed:
                    lowered[0, target.token, target.index] -= weight
                left = coder.activate(lowered)
                for node in cuts:
                    if node.kind == "feature":
                        left[0, node.token, node.index] = 0
                y = y + (left - z) @ coder.W_dec  # (1) and (2): minus z_i d_i, plus what lowered features lose
            for node in cuts:
                if node.kind == "mlp":
                    y[0, node.token] = 0
                elif node.kind == "error":
                    y[0, node.token] -= run.errors[layer][node.token]
                elif node.kind == "skip" and coder is not None and coder.W_skip is not None:
                    y[0, node.token] -= coder.W_skip @ x[0, node.token]
            return y

        return mlp

    def edits(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Embeddings and attention weights that are set to zero."""
        by_place: dict[str, list[tuple[int, ...]]] = {}
        for node in self.nodes:
            if node.kind in ("embedding", "position"):
                name = "hook_embed" if node.kind == "embedding" else "hook_pos_embed"
                by_place.setdefault(name, []).append((0, node.token))
            elif node.kind == "head":
                by_place.setdefault(f"blocks.{node.layer}.attn.hook_pattern", []).append(
                    (0, node.index, node.token, node.source)
                )
        return {name: _zeroed(places) for name, places in by_place.items()}


def _zeroed(places: list[tuple[int, ...]]) -> Callable[[Tensor], Tensor]:
    def edit(value: Tensor) -> Tensor:
        value = value.clone()
        for place in places:
            value[place] = 0
        return value

    return edit
