r"""What a coder is (section 2 of the paper, and its official code): a wide, sparse stand-in for an MLP, or a copy of it.

A transcoder maps an MLP's input to its output, a sparse autoencoder an activation to itself. Both are one formula,

$$ z(x)=\phi(x W_{enc}+b_{enc}) \tag{1} $$
$$ \hat y(x)=z(x)W_{dec}+b_{dec}\;(+\,x W_{skip}^\top) . \tag{2} $$

The official input bias does not appear: ``(x - b_in) W_enc + b_enc`` is ``x W_enc + (b_enc - b_in W_enc)``, exactly.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lab.circuits.transcoders.errors import CircuitError

Activation = Literal["relu", "topk", "jumprelu"]
Kind = Literal["transcoder", "sae"]


@dataclass(frozen=True)
class CoderConfig:
    """What a coder is made for.

    Parameters
    ----------
    d_in, d_sae, d_out : int, at least 1
        Widths of what it reads, of its features, of what it writes.
    activation : str
        "relu", "topk" (the `k` largest positive pre-activations), "jumprelu" (those above a threshold).
    k : int, optional
        Active features per token; for "topk" and for no other.
    hook_name : str
        What it reads, by TransformerLens' name: "blocks.2.ln2.hook_normalized".
    hook_name_out : str
        What it imitates: "blocks.2.hook_mlp_out".
    model_name : str
        Of the language model it was trained on.
    bos : bool
        Its training saw a beginning-of-text token at the start of each text.

    Raises
    ------
    CircuitError
        For widths below one, an unknown activation, and a k that does not belong to it.

    Examples
    --------
    >>> CoderConfig(8, 32, 8, hook_name="blocks.2.ln2.hook_normalized").layer
    2
    """

    d_in: int
    d_sae: int
    d_out: int
    activation: Activation = "relu"
    k: int | None = None
    hook_name: str = ""
    hook_name_out: str = ""
    model_name: str = ""
    bos: bool = True

    def __post_init__(self) -> None:
        for name in ("d_in", "d_sae", "d_out"):
            if getattr(self, name) < 1:
                raise CircuitError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.activation not in get_args(Activation):
            raise CircuitError(f"activation must be one of {', '.join(get_args(Activation))}, got {self.activation!r}")
        if (self.activation == "topk") != (self.k is not None):
            raise CircuitError(
                f'k belongs to activation="topk" and to no other; got k={self.k} with {self.activation!r}'
            )
        if self.k is not None and not 1 <= self.k <= self.d_sae:
            raise CircuitError(f"k must lie in 1 ... d_sae = {self.d_sae}, got {self.k}")

    @property
    def layer(self) -> int | None:
        """The block it stands in, read from `hook_name`; None when the name does not say."""
        parts = self.hook_name.split(".")
        return int(parts[1]) if len(parts) > 1 and parts[0] == "blocks" and parts[1].isdigit() else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CoderConfig:
        """The inverse of `to_dict`; names it does not know are refused.

        >>> CoderConfig.from_dict({"d_in": 8, "d_sae": 32, "d_out": 8}).activation
        'relu'
        """
        names = {entry.name for entry in fields(cls)}
        if unknown := sorted(set(values) - names):
            raise CircuitError(f"a coder's config has no {', '.join(unknown)}; it has {', '.join(sorted(names))}")
        return cls(**values)


class Transcoder(nn.Module):
    """A transcoder: ``z = phi(x W_enc + b_enc)``, ``y_hat = z W_dec + b_dec`` (+ ``x W_skip^T``), (1) and (2) of the module.

    Names and shapes are SAELens': W_enc [d_in, d_sae], b_enc [d_sae], W_dec [d_sae, d_out], b_dec [d_out] (the bias of
    the output), optional W_skip [d_out, d_in], and for "jumprelu" threshold [d_sae]. A fresh one has random weights.

    Parameters
    ----------
    cfg : CoderConfig
        Widths, activation, and what it stands in for.
    skip : bool
        Give it a linear path beside the features.
    generator : torch.Generator, optional
        Draws the weights; torch's global one if left out.

    Raises
    ------
    CircuitError
        For inputs of another width than the config's.

    References
    ----------
    Dunefsky, Chlenski and Nanda, "Transcoders Find Interpretable LLM Feature Circuits", 2024, Section 2.

    Examples
    --------
    >>> coder = Transcoder(CoderConfig(d_in=8, d_sae=32, d_out=8))
    >>> coder(torch.zeros(5, 8)).shape, coder.encode(torch.ones(2, 3, 8)).shape
    (torch.Size([5, 8]), torch.Size([2, 3, 32]))
    """

    kind: Kind = "transcoder"
    W_skip: nn.Parameter | None
    threshold: nn.Parameter | None

    def __init__(self, cfg: CoderConfig, *, skip: bool = False, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.cfg = cfg
        # The official start: torch's kaiming_uniform_ on these shapes, which takes the second axis for the fan.
        self.W_enc = nn.Parameter(_uniform((cfg.d_in, cfg.d_sae), cfg.d_sae, generator))
        self.W_dec = nn.Parameter(_unit_rows(_uniform((cfg.d_sae, cfg.d_out), cfg.d_out, generator)))
        self.b_enc = nn.Parameter(torch.zeros(cfg.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(cfg.d_out))
        self.W_skip = nn.Parameter(torch.zeros(cfg.d_out, cfg.d_in)) if skip else None
        self.threshold = nn.Parameter(torch.zeros(cfg.d_sae)) if cfg.activation == "jumprelu" else None

    def pre(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        """Pre-activations ``x W_enc + b_enc``."""
        if x.shape[-1] != self.cfg.d_in:
            raise CircuitError(f"x must have width {self.cfg.d_in}, this coder's d_in; it has {x.shape[-1]}")
        return functional.linear(x, self.W_enc.T, self.b_enc)  # (1) before phi

    def activate(self, pre: Float[Tensor, "... d_sae"]) -> Float[Tensor, "... d_sae"]:
        """``phi`` of equation (1): what is left of the pre-activations."""
        if self.cfg.activation == "jumprelu":
            assert self.threshold is not None
            return pre * (pre > self.threshold)
        if self.cfg.activation == "topk":
            values, features = self.active(pre)
            return torch.zeros_like(pre).scatter(-1, features, values)
        return torch.relu(pre)

    def active(self, pre: Float[Tensor, "... d_sae"]) -> tuple[Float[Tensor, "... k"], Int[Tensor, "... k"]]:
        """The `k` largest pre-activations of a "topk" coder, negative ones as zero, and their features' numbers."""
        if self.cfg.k is None:
            raise CircuitError(
                f"only a topk coder has a fixed number of active features, not a {self.cfg.activation} one"
            )
        values, features = pre.topk(self.cfg.k, dim=-1, sorted=False)
        return torch.relu(values), features

    def encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        """Features' activations ``z``, equation (1): none is negative, most are zero."""
        return self.activate(self.pre(x))

    def decode(self, z: Float[Tensor, "... d_sae"]) -> Float[Tensor, "... d_out"]:
        """``z W_dec + b_dec`` of equation (2): what the features write."""
        if z.shape[-1] != self.cfg.d_sae:
            raise CircuitError(f"z must have width {self.cfg.d_sae}, this coder's d_sae; it has {z.shape[-1]}")
        return functional.linear(z, self.W_dec.T, self.b_dec)  # (2)

    def forward(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """The whole coder, ``y_hat(x)`` of equation (2)."""
        if self.cfg.activation == "topk":
            values, features = self.active(self.pre(x.flatten(0, -2)))
            # (2) from the k active rows of W_dec alone
            written = (sparse_decode(values, features, self.W_dec) + self.b_dec).unflatten(0, x.shape[:-1])
        else:
            written = self.decode(self.encode(x))
        return written if self.W_skip is None else written + functional.linear(x, self.W_skip)

    @torch.no_grad()
    def fold_decoder_norm(self) -> None:
        """Give every decoder row unit length without changing ``y_hat``: the norm goes into the encoder's column.

        Exact for ReLU and thresholds, which scale along. Rows of length zero write nothing and are left as they are.
        Raises CircuitError for "topk", where a feature's rank depends on its scale.
        """
        if self.cfg.activation == "topk":
            raise CircuitError(
                "a topk coder's features compete by their scale; its decoder norms cannot be folded away"
            )
        norm = self.W_dec.norm(dim=1)  # n_i = ||d_i||: z_i d_i = (n_i z_i)(d_i / n_i), and phi(n a) = n phi(a)
        norm = torch.where(norm > 0, norm, torch.ones_like(norm))
        self.W_dec.div_(norm[:, None])
        self.W_enc.mul_(norm)
        self.b_enc.mul_(norm)
        if self.threshold is not None:
            self.threshold.mul_(norm)


class SparseAutoencoder(Transcoder):
    """A sparse autoencoder: the same formula with ``y := x``, the baseline of Section 4.

    Parameters
    ----------
    cfg : CoderConfig
        With d_in = d_out.
    skip : bool
        Must be False.
    generator : torch.Generator, optional
        Draws the weights.

    Raises
    ------
    CircuitError
        For d_in != d_out, and for a skip connection, which would only have to learn the identity.

    References
    ----------
    Dunefsky, Chlenski and Nanda, "Transcoders Find Interpretable LLM Feature Circuits", 2024, Section 4.

    Examples
    --------
    >>> SparseAutoencoder(CoderConfig(d_in=8, d_sae=32, d_out=8)).kind
    'sae'
    """

    kind: Kind = "sae"

    def __init__(self, cfg: CoderConfig, *, skip: bool = False, generator: torch.Generator | None = None) -> None:
        if cfg.d_in != cfg.d_out:
            raise CircuitError(f"an autoencoder writes what it reads: d_in = {cfg.d_in} but d_out = {cfg.d_out}")
        if skip:
            raise CircuitError("skip: an autoencoder with a skip connection would only have to learn the identity")
        super().__init__(cfg, generator=generator)


CODERS: dict[Kind, type[Transcoder]] = {"transcoder": Transcoder, "sae": SparseAutoencoder}


def sparse_decode(
    values: Float[Tensor, "b k"], features: Int[Tensor, "b k"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "b d_out"]:
    """``sum_k values[b, k] W_dec[features[b, k]]``: decoding from active features alone, ``2 b k d_out`` operations.

    >>> sparse_decode(torch.tensor([[2.0]]), torch.tensor([[1]]), torch.eye(3))
    tensor([[0., 2., 0.]])
    """
    return functional.embedding_bag(features, W_dec, per_sample_weights=values, mode="sum")


def _uniform(shape: tuple[int, int], fan: int, generator: torch.Generator | None) -> Tensor:
    bound = (6.0 / fan) ** 0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _unit_rows(weight: Tensor) -> Tensor:
    return weight / weight.norm(dim=1, keepdim=True)
