r"""A prompt with everything frozen that is not linear: attention patterns, LayerNorm scales, which features are active.

With these held at their values on the prompt the residual stream is a sum of what was written to it, and a number read
from it is a sum of contributions. A LayerNorm is then linear, so reading a direction f behind it is reading another
direction in front of it,

$$ \langle f,\mathrm{LN}(x)\rangle=\Big\langle f,\frac{x-\bar x}{\sigma}\Big\rangle=\langle v,x\rangle,
   \qquad v=\frac{f-\bar f}{\sigma}, \tag{1} $$

and reading v behind head h's move from token s to token t is reading, at s,

$$ v'=\frac{A^h_{ts}}{\sigma_s}\,\big(u-\bar u\big),\qquad u=W^h_VW^h_O\,v . \tag{2} $$

(1) is exact for any stream and never divides by a small number, as the official ratio ``<v, LN(x)> / <v, x>`` may.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.coders.evaluation import check_fit
from lab.circuits.transcoders.errors import CircuitError, HookedError
from lab.circuits.transcoders.hooked import Cache, HookedGPT

NodeKind = Literal["root", "feature", "head", "embedding", "position", "error", "mlp", "skip", "bias", "rest"]


@dataclass(frozen=True, order=True)
class Node:
    """One part of a circuit.

    Parameters
    ----------
    kind : str
        "feature" of a transcoder, "head" (what one attention head moves from `source` to `token`), "embedding" and "position"
        of a token, "error" (what a transcoder misses), "mlp" (of a layer without a transcoder), "skip" (a skip transcoder's
        linear part), "bias", "root", and "rest" (everything pruned away).
    layer : int
        Block; -1 for embeddings, the number of layers for logits.
    token : int
        Position where it writes.
    index : int
        Feature or head; -1 for others.
    source : int
        Position that a head reads; -1 for others.

    Examples
    --------
    >>> Node("feature", layer=2, token=5, index=17).source
    -1
    """

    kind: NodeKind
    layer: int
    token: int
    index: int = -1
    source: int = -1


@dataclass(frozen=True)
class Feature:
    """Root: the pre-activation of a transcoder's feature at a position.

    Parameters
    ----------
    layer, index : int
        Which feature, both from 0.
    token : int
        Position; negative ones count from the end.

    Examples
    --------
    >>> Feature(2, 17)
    Feature(layer=2, index=17, token=-1)
    """

    layer: int
    index: int
    token: int = -1


@dataclass(frozen=True)
class Neuron:
    """Root: the pre-activation of an MLP's neuron at a position.

    Parameters
    ----------
    layer, index : int
        Which neuron, both from 0.
    token : int
        Position; negative ones count from the end.

    Examples
    --------
    >>> Neuron(2, 17).token
    -1
    """

    layer: int
    index: int
    token: int = -1


@dataclass(frozen=True)
class LogitDiff:
    """Root: the mean logit of some tokens minus that of others, in logits.

    Parameters
    ----------
    plus : tuple of int
        Tokens whose mean logit is raised; at least one.
    minus : tuple of int
        Tokens whose mean logit is subtracted; all of the vocabulary when empty.
    token : int
        Position whose next token is predicted; negative ones count from the end.

    Examples
    --------
    >>> LogitDiff((2,), (4,)).minus
    (4,)
    """

    plus: tuple[int, ...]
    minus: tuple[int, ...] = ()
    token: int = -1


Root = Feature | Neuron | LogitDiff


@dataclass(frozen=True)
class Reader:
    """Directions in the residual stream that are read, one per row, and where.

    directions         [p, D]; the mean is off and the LayerNorm's scale is in them already
    tokens             [p] positions that are read
    attentions, mlps   [p] how many attention layers and MLPs have written before
    """

    directions: Float[Tensor, "p d"]
    tokens: Int[Tensor, " p"]
    attentions: Int[Tensor, " p"]
    mlps: Int[Tensor, " p"]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Active:
    """A layer's features that fire somewhere on the prompt, and their activations there: what circuits need of a coder.

    features  [k] their numbers; z [T, k]; decoder [k, D]; encoder [k, D] (rows are the encoder's columns); bias [k]
    """

    features: Int[Tensor, " k"]
    z: Float[Tensor, "t k"]
    decoder: Float[Tensor, "k d"]
    encoder: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]


class FrozenRun:
    """A prompt run once, with transcoders beside some layers' MLPs; all attributions are read from it.

    The model itself is run, not the one with coders in place: what a coder misses is an error node.

    Parameters
    ----------
    model : HookedGPT
        The language model; only read.
    coders : mapping of layer to Transcoder
        Beside which layers.
    tokens : Int[Tensor, "t"]
        The prompt.
    bos : int, optional
        Warn when the prompt does not begin with this token, which the coders' training texts began with.

    Attributes
    ----------
    logits : Float[Tensor, "t v"]
        The model's.
    cache : dict
        Every activation by its hook's name; `at` gives one without the batch axis.

    Raises
    ------
    CircuitError
        For autoencoders (their features read the MLP's output: between it and the residual stream lie all neurons) and for
        coders that do not fit.
    HookedError
        For prompts that the model cannot read.

    References
    ----------
    Dunefsky, Chlenski and Nanda, "Transcoders Find Interpretable LLM Feature Circuits", 2024, Section 4.1.

    Examples
    --------
    >>> run = FrozenRun(HookedGPT.tiny(), {}, torch.tensor([0, 3, 1]))
    >>> run.logits.shape, run.pattern(0).shape
    (torch.Size([3, 5]), torch.Size([2, 3, 3]))
    """

    def __init__(
        self,
        model: HookedGPT,
        coders: Mapping[int, Transcoder],
        tokens: Int[Tensor, " t"],
        *,
        bos: int | None = None,
    ) -> None:
        if tokens.ndim != 1:
            raise HookedError(f"tokens must be one prompt of shape (tokens,), got shape {tuple(tokens.shape)}")
        for layer, coder in coders.items():
            if coder.kind != "transcoder":
                raise CircuitError(
                    f"layer {layer} has an autoencoder, which reads the MLP's output; between the residual stream and its "
                    "features lie all neurons, so no fixed weight links two of them: circuits need transcoders"
                )
            check_fit(model, layer, coder)
        model.check_tokens(tokens[None])
        if bos is not None and int(tokens[0]) != bos and any(coder.cfg.bos for coder in coders.values()):
            warnings.warn(
                f"the prompt does not begin with the token {bos} that all training texts began with: attention has nowhere to "
                "rest, the first word takes that part, and features fire that would not",
                stacklevel=2,
            )
        self.model, self.coders, self.tokens = model, dict(sorted(coders.items())), tokens
        with torch.no_grad():
            logits, cache = model.run_with_cache(tokens[None])
        self.logits: Float[Tensor, "t v"] = logits[0]
        self.cache: Cache = cache

    def __len__(self) -> int:
        return len(self.tokens)

    def at(self, name: str) -> Tensor:
        """An activation of this prompt by its hook's name, without the batch axis."""
        return self.cache[name][0]

    def inputs(self, layer: int) -> Float[Tensor, "t d"]:
        """What the MLP of a layer reads."""
        return self.at(f"blocks.{layer}.ln2.hook_normalized")

    def outputs(self, layer: int) -> Float[Tensor, "t d"]:
        """What the MLP of a layer writes."""
        return self.at(f"blocks.{layer}.hook_mlp_out")

    @cached_property
    @torch.no_grad()
    def active(self) -> dict[int, Active]:
        """By layer, the features that fire on this prompt."""
        found = {}
        for layer, coder in self.coders.items():
            z = coder.encode(self.inputs(layer))
            features = (z > 0).any(0).nonzero()[:, 0]
            found[layer] = Active(
                features,
                z[:, features],
                coder.W_dec[features],
                coder.W_enc[:, features].T.contiguous(),
                coder.b_enc[features],
            )
        return found

    @cached_property
    @torch.no_grad()
    def errors(self) -> dict[int, Float[Tensor, "t d"]]:
        """By layer, what the transcoder misses of the MLP's output."""
        return {layer: self.outputs(layer) - coder(self.inputs(layer)) for layer, coder in self.coders.items()}

    @cached_property
    @torch.no_grad()
    def skips(self) -> dict[int, Float[Tensor, "t d"]]:
        """By layer, the linear part of a skip transcoder."""
        return {
            layer: self.inputs(layer) @ coder.W_skip.T
            for layer, coder in self.coders.items()
            if coder.W_skip is not None
        }

    @cached_property
    @torch.no_grad()
    def values(self) -> Float[Tensor, "l t h d"]:
        """What each head would move from each position, without the value bias (which sums to a constant)."""
        model = self.model
        return torch.stack(
            [self.at(f"blocks.{layer}.attn.hook_v") - model.b_V[layer] for layer in range(model.cfg.n_layers)]
        )

    def pattern(self, layer: int) -> Float[Tensor, "h t s"]:
        """Attention of each head: from row (destination) to column (source)."""
        return self.at(f"blocks.{layer}.attn.hook_pattern")

    def position(self, token: int) -> int:
        """A position counted from the front; raises HookedError for one beyond the prompt."""
        if not -len(self) <= token < len(self):
            raise HookedError(f"token {token} lies beyond the prompt, which has positions 0 ... {len(self) - 1}")
        return token % len(self)

    # --- what is read ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def root(self, root: Root) -> tuple[Node, Reader, float]:
        """A root as a node, its reader, and the constant that is added to what it reads."""
        cfg, token = self.model.cfg, self.position(root.token)
        if isinstance(root, LogitDiff):
            for name, chosen in (("plus", root.plus), ("minus", root.minus)):
                if any(not 0 <= one < cfg.d_vocab for one in chosen):
                    raise HookedError(
                        f"{name} has a token outside 0 ... {cfg.d_vocab - 1}, the model's vocabulary: {chosen}"
                    )
            if not root.plus:
                raise HookedError("plus: a logit difference needs at least one token on its plus side")
            weights = torch.zeros(cfg.d_vocab, dtype=self.model.W_U.dtype)
            weights[list(root.plus)] += 1 / len(root.plus)
            weights[list(root.minus) or slice(None)] -= 1 / (len(root.minus) or cfg.d_vocab)
            reader = self._reader(self.model.W_U @ weights, "ln_final", token, cfg.n_layers, cfg.n_layers)
            return Node("root", cfg.n_layers, token), reader, float(self.model.b_U @ weights)
        if not 0 <= root.layer < cfg.n_layers:
            raise HookedError(f"layer {root.layer} does not exist; the model has {cfg.n_layers} layers, from 0")
        if isinstance(root, Neuron):
            if not 0 <= root.index < cfg.d_mlp:
                raise HookedError(f"neuron {root.index} does not exist; each MLP has {cfg.d_mlp}, from 0")
            direction, bias = self.model.W_in[root.layer, :, root.index], self.model.b_in[root.layer, root.index]
        else:
            if root.layer not in self.coders:
                raise CircuitError(
                    f"layer {root.layer} has no transcoder; there are some for {', '.join(map(str, self.coders))}"
                )
            coder = self.coders[root.layer]
            if not 0 <= root.index < coder.cfg.d_sae:
                raise CircuitError(
                    f"feature {root.index} does not exist; the coder of layer {root.layer} has {coder.cfg.d_sae}, from 0"
                )
            direction, bias = coder.W_enc[:, root.index], coder.b_enc[root.index]
        reader = self._reader(direction, f"blocks.{root.layer}.ln2", token, root.layer + 1, root.layer)
        return Node("root", root.layer, token, root.index), reader, float(bias)

    def _reader(self, direction: Tensor, norm: str, token: int, attentions: int, mlps: int) -> Reader:
        scaled = (direction - direction.mean()) / self.at(f"{norm}.hook_scale")[token]  # (1): v [D]
        return Reader(scaled[None], *(torch.tensor([value]) for value in (token, attentions, mlps)))

    def feature_reader(self, layer: int, places: Int[Tensor, " p"], tokens: Int[Tensor, " p"]) -> Reader:
        """Readers of active features, given by their indices in ``active[layer]``."""
        directions = self.active[layer].encoder[places]
        # (1), one v per row [p, D]
        scaled = (directions - directions.mean(1, keepdim=True)) / self.at(f"blocks.{layer}.ln2.hook_scale")[tokens]
        return Reader(scaled, tokens, torch.full_like(tokens, layer + 1), torch.full_like(tokens, layer))

    def through_heads(
        self,
        directions: Float[Tensor, "p d"],
        layer: int,
        heads: Int[Tensor, " p"],
        tokens: Int[Tensor, " p"],
        sources: Int[Tensor, " p"],
    ) -> Reader:
        """Readers behind heads, equation (2) of the module: at the source's stream, in front of the layer."""
        model = self.model
        # (2): u = W_V W_O v, its mean off, times A_ts / sigma_s
        at_value = torch.einsum("pd,pkd->pk", directions, model.W_O[layer, heads])  # [p, d_h]
        at_stream = torch.einsum("pk,pdk->pd", at_value, model.W_V[layer, heads])  # [p, D]
        at_stream = at_stream - at_stream.mean(1, keepdim=True)
        attention = self.pattern(layer)[heads, tokens, sources]
        scaled = attention[:, None] * at_stream / self.at(f"blocks.{layer}.ln1.hook_scale")[sources]
        return Reader(scaled, sources, torch.full_like(sources, layer), torch.full_like(sources, layer))
