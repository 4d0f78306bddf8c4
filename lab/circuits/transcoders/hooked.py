r"""The one language model that circuits are read in: a GPT whose LayerNorms only normalise, in plain tensors.

Every decoder of GPT-2's family can be written this way, exactly: a LayerNorm's gain and bias go into the weights that
read it, and the mean of all that is written to the residual stream, which every reader subtracts, is taken off at once.
Names of weights and hooks are TransformerLens'. Per block, with $P x=x-\bar x$,

$$ \mathrm{LN}(x)=\frac{Px}{\sigma},\qquad \sigma^2=\tfrac1D\lVert Px\rVert^2+\epsilon \tag{1} $$
$$ A^h=\mathrm{softmax}\Big(\tfrac{1}{\sqrt{d_h}}\,q^h k^{h\top}+\text{causal mask}\Big),\qquad
   x\leftarrow x+\sum_h A^h\,(\mathrm{LN}(x) W_V^h+b_V^h) W_O^h + b_O \tag{2} $$
$$ x\leftarrow x+\phi\big(\mathrm{LN}(x)W_{in}+b_{in}\big)W_{out}+b_{out},\qquad
   \mathrm{logits}=\mathrm{LN}(x)W_U+b_U . \tag{3} $$
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lab.circuits.transcoders.errors import HookedError

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Cache = dict[str, Tensor]
MLP = Callable[[Tensor, Tensor], Tensor]  # (normalised input, the model's own output) -> the output that is used
Edits = Mapping[str, Callable[[Tensor], Tensor]]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}
PROMPTS = 4096  # of one token, a forward pass
_REPLACED: ContextVar[Mapping[int, Mapping[int, MLP]] | None] = ContextVar(
    "replaced MLPs, by the model's id", default=None
)


@dataclass(frozen=True)
class HookedConfig:
    """Sizes of a `HookedGPT`.

    Parameters
    ----------
    n_layers, d_model, n_heads, d_head, d_mlp, n_ctx, d_vocab : int, at least 1
        Blocks; width of the residual stream; heads per block and their width; neurons per MLP; tokens of context; vocabulary.
    activation : str
        One of `ACTIVATIONS`.
    eps : float
        Added to the variance in every LayerNorm.
    model_name : str
        Goes into the files of coders that are trained on it.

    Raises
    ------
    HookedError
        For a size below one and an unknown activation.

    Examples
    --------
    >>> HookedConfig(n_layers=1, d_model=8, n_heads=2, d_head=4, d_mlp=16, n_ctx=10, d_vocab=5).activation
    'gelu_new'
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    n_ctx: int
    d_vocab: int
    activation: str = "gelu_new"
    eps: float = 1e-5
    model_name: str = ""

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "n_heads", "d_head", "d_mlp", "n_ctx", "d_vocab"):
            if getattr(self, name) < 1:
                raise HookedError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.activation not in ACTIVATIONS:
            raise HookedError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")


class HookedGPT(nn.Module):
    """A GPT-2 without gains, its weights by TransformerLens' names and shapes; see equations (1) to (3) of the module.

    W_E [V, D], W_pos [C, D], W_Q, W_K, W_V [L, H, D, d_h] with b_Q, b_K, b_V [L, H, d_h], W_O [L, H, d_h, D], b_O [L, D],
    W_in [L, D, M], b_in [L, M], W_out [L, M, D], b_out [L, D], W_U [D, V], b_U [V].

    Parameters
    ----------
    cfg : HookedConfig
        Sizes. A fresh model has random weights; `from_transformers` and `from_transformer_lens` read trained ones.

    Raises
    ------
    HookedError
        When it is run on Apple's MPS, where some versions of torch compute GPT-2 wrongly, and for tokens it cannot read.

    References
    ----------
    Nanda and Bloom, TransformerLens, 2022, for the names; Radford et al., "Language Models are Unsupervised Multitask
    Learners", 2019, for the architecture.

    Examples
    --------
    >>> logits, cache = HookedGPT.tiny().run_with_cache(torch.tensor([[0, 3, 1]]))
    >>> logits.shape, cache["blocks.0.attn.hook_pattern"].shape
    (torch.Size([1, 3, 5]), torch.Size([1, 2, 3, 3]))
    """

    def __init__(self, cfg: HookedConfig) -> None:
        super().__init__()
        self.cfg = cfg
        layers, width, heads, head, mlp = cfg.n_layers, cfg.d_model, cfg.n_heads, cfg.d_head, cfg.d_mlp

        def weight(*shape: int, fan: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape) / fan**0.5)

        def bias(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape))

        deep = 2 * layers  # what is added to the stream starts smaller, the more there is of it
        self.W_E = nn.Parameter(0.02 * torch.randn(cfg.d_vocab, width))
        self.W_pos = nn.Parameter(0.02 * torch.randn(cfg.n_ctx, width))
        self.W_Q, self.W_K, self.W_V = (weight(layers, heads, width, head, fan=width) for _ in range(3))
        self.b_Q, self.b_K, self.b_V = (bias(layers, heads, head) for _ in range(3))
        self.W_O = weight(layers, heads, head, width, fan=heads * head * deep)
        self.b_O = bias(layers, width)
        self.W_in, self.b_in = weight(layers, width, mlp, fan=width), bias(layers, mlp)
        self.W_out, self.b_out = weight(layers, mlp, width, fan=mlp * deep), bias(layers, width)
        self.W_U, self.b_U = weight(width, cfg.d_vocab, fan=width), bias(cfg.d_vocab)

    @classmethod
    def tiny(cls, n_layers: int = 1, d_vocab: int = 5) -> HookedGPT:
        """A random model of width 8 with two heads and 16 neurons, of ten tokens: to try things on.

        >>> HookedGPT.tiny()(torch.tensor([[0, 3, 1]])).shape
        torch.Size([1, 3, 5])
        """
        return cls(HookedConfig(n_layers, d_model=8, n_heads=2, d_head=4, d_mlp=16, n_ctx=10, d_vocab=d_vocab))

    def forward(
        self, tokens: Int[Tensor, "b t"], *, frozen: Cache | None = None, edits: Edits | None = None
    ) -> Float[Tensor, "b t v"]:
        """Logits of the next token, one row per position.

        Parameters
        ----------
        tokens : Int[Tensor, "b t"]
            Prompts of one length.
        frozen : dict, optional
            A cache whose attention patterns and LayerNorm scales are used instead of this run's own; the residual stream is then
            linear in all that is written to it, but for the MLPs.
        edits : mapping of hook name to function, optional
            What a function makes of the activation there, as TransformerLens' hooks.

        Raises
        ------
        HookedError
            For tokens outside the vocabulary, none, more than the context, and on Apple's MPS.
        """
        return self._run(tokens, lambda name: False, frozen, edits, None)[0]

    def run_with_cache(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        names: frozenset[str] | None = None,
        frozen: Cache | None = None,
        edits: Edits | None = None,
        stop_at: int | None = None,
    ) -> tuple[Tensor, Cache]:
        """Logits and the activations at the hooks in `names` (all of them if left out), as in TransformerLens.

        With `stop_at` the run ends before that block and gives the residual stream there instead of logits.
        """
        if names is not None and (unknown := sorted(names - set(self.hook_names()))):
            raise HookedError(f"the model has no hook {unknown[0]!r}; its hooks are those of `hook_names()`")
        keep = (lambda name: True) if names is None else names.__contains__
        return self._run(tokens, keep, frozen, edits, stop_at)

    def hook_names(self) -> Iterator[str]:
        """The names of all hooks, in the order in which a run passes them."""
        yield from ("hook_embed", "hook_pos_embed")
        inside = (
            "hook_resid_pre",
            "ln1.hook_scale",
            "ln1.hook_normalized",
            "attn.hook_q",
            "attn.hook_k",
            "attn.hook_v",
            "attn.hook_pattern",
            "attn.hook_z",
            "hook_attn_out",
            "hook_resid_mid",
            "ln2.hook_scale",
            "ln2.hook_normalized",
            "mlp.hook_pre",
            "mlp.hook_post",
            "hook_mlp_out",
            "hook_resid_post",
        )
        for layer in range(self.cfg.n_layers):
            yield from (f"blocks.{layer}.{name}" for name in inside)
        yield from ("ln_final.hook_scale", "ln_final.hook_normalized")

    def mlp(self, layer: int, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """The dense MLP of a layer on its normalised input."""
        post = ACTIVATIONS[self.cfg.activation](x @ self.W_in[layer] + self.b_in[layer])
        return post @ self.W_out[layer] + self.b_out[layer]

    def check_tokens(self, tokens: Int[Tensor, "b t"]) -> None:
        """Raise HookedError for tokens that this model cannot read."""
        if tokens.ndim != 2 or tokens.is_floating_point():
            raise HookedError(f"tokens must be whole numbers of shape (batch, tokens), got shape {tuple(tokens.shape)}")
        if tokens.shape[1] < 1:
            raise HookedError("tokens: the prompt is empty; it needs at least one token")
        if tokens.shape[1] > self.cfg.n_ctx:
            raise HookedError(
                f"tokens: the prompt has {tokens.shape[1]} tokens, the model reads {self.cfg.n_ctx} at most"
            )
        if tokens.numel() and not (int(tokens.min()) >= 0 and int(tokens.max()) < self.cfg.d_vocab):
            raise HookedError(f"tokens must lie in 0 ... {self.cfg.d_vocab - 1}, the model's vocabulary")

    def _run(
        self,
        tokens: Tensor,
        keep: Callable[[str], bool],
        frozen: Cache | None,
        edits: Edits | None,
        stop_at: int | None,
    ) -> tuple[Tensor, Cache]:
        refuse_mps(self.W_E.device)
        self.check_tokens(tokens)
        edits = {} if edits is None else edits
        if unknown := sorted(set(edits) - set(self.hook_names())):
            raise HookedError(f"the model has no hook {unknown[0]!r} to edit; its hooks are those of `hook_names()`")
        cache: Cache = {}
        replaced = (_REPLACED.get() or {}).get(id(self), {})

        def at(name: str, value: Tensor) -> Tensor:
            value = edits[name](value) if name in edits else value
            if keep(name):
                cache[name] = value
            return value

        def normalised(name: str, x: Tensor) -> Tensor:
            # (1): LN(x) = P x / sigma
            x = x - x.mean(-1, keepdim=True)
            scale = (
                (x.square().mean(-1, keepdim=True) + self.cfg.eps).sqrt()
                if frozen is None
                else frozen[f"{name}.hook_scale"]
            )
            return at(f"{name}.hook_normalized", x / at(f"{name}.hook_scale", scale))

        x = at("hook_embed", self.W_E[tokens]) + at(
            "hook_pos_embed", self.W_pos[: tokens.shape[1]].expand(*tokens.shape, -1)
        )
        causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).triu(1)
        for layer in range(self.cfg.n_layers if stop_at is None else stop_at):
            name = f"blocks.{layer}"
            x = at(f"{name}.hook_resid_pre", x)
            read = normalised(f"{name}.ln1", x)
            v = at(f"{name}.attn.hook_v", _heads(read, self.W_V[layer], self.b_V[layer]))
            if frozen is None:
                q = at(f"{name}.attn.hook_q", _heads(read, self.W_Q[layer], self.b_Q[layer]))
                k = at(f"{name}.attn.hook_k", _heads(read, self.W_K[layer], self.b_K[layer]))
                # (2): q k^T / sqrt(d_h) [b, H, T, T]; row t attends to columns s <= t
                scores = torch.einsum("bthd,bshd->bhts", q, k) / self.cfg.d_head**0.5
                pattern = scores.masked_fill(causal, -torch.inf).softmax(-1)  # (2): A [b, H, T, T]
            else:
                pattern = frozen[f"{name}.attn.hook_pattern"]
            pattern = at(f"{name}.attn.hook_pattern", pattern)
            # (2): what the heads write, concatenated [b, T, H d_h], then mapped back to the stream [b, T, D]
            z = at(f"{name}.attn.hook_z", torch.einsum("bhts,bshd->bthd", pattern, v))
            out = z.flatten(2) @ self.W_O[layer].flatten(0, 1) + self.b_O[layer]
            x = at(f"{name}.hook_resid_mid", x + at(f"{name}.hook_attn_out", out))
            read = normalised(f"{name}.ln2", x)
            # (3): the MLP [b, T, D] -> [b, T, M] -> [b, T, D], or what stands in for it
            pre = at(f"{name}.mlp.hook_pre", read @ self.W_in[layer] + self.b_in[layer])
            post = at(f"{name}.mlp.hook_post", ACTIVATIONS[self.cfg.activation](pre))
            out = post @ self.W_out[layer] + self.b_out[layer]
            if layer in replaced:
                out = replaced[layer](read, out)
            x = at(f"{name}.hook_resid_post", x + at(f"{name}.hook_mlp_out", out))
        if stop_at is not None and stop_at < self.cfg.n_layers:
            return x, cache
        return normalised("ln_final", x) @ self.W_U + self.b_U, cache

    @classmethod
    def from_transformers(cls, model: GPT2LMHeadModel, *, center: bool = True) -> HookedGPT:
        """The same function as a GPT-2 of transformers; its logits are equal up to a constant per position.

        Parameters
        ----------
        model : transformers.GPT2LMHeadModel
            Any size; only read.
        center : bool
            Take the mean off all that is written to the residual stream, and off the unembedding: what no reader and no softmax
            sees. Without it the logits themselves are equal.

        Raises
        ------
        HookedError
            For another architecture, and for GPT-2 options that change the formula.
        """
        config = model.config
        if config.model_type != "gpt2":
            raise HookedError(f"model must be a GPT-2 of transformers, not {config.model_type!r}")
        for option, required in (
            ("scale_attn_weights", True),
            ("scale_attn_by_inverse_layer_idx", False),
            ("add_cross_attention", False),
        ):
            if getattr(config, option) != required:
                raise HookedError(f"a GPT-2 with {option}={getattr(config, option)} is another function than this one")
        width, heads = config.n_embd, config.n_head
        cfg = HookedConfig(
            config.n_layer,
            width,
            heads,
            width // heads,
            config.n_inner or 4 * width,
            config.n_positions,
            config.vocab_size,
            config.activation_function,
            config.layer_norm_epsilon,
            _called(config.name_or_path or ""),
        )
        state = {name: tensor.detach().double() for name, tensor in model.state_dict().items()}
        stacked: dict[str, list[Tensor]] = {}
        for layer in range(cfg.n_layers):
            for name, tensor in _block(state, f"transformer.h.{layer}.", heads).items():
                stacked.setdefault(name, []).append(tensor)
        weights = {name: torch.stack(tensors) for name, tensors in stacked.items()}
        gain, bias = state["transformer.ln_f.weight"], state["transformer.ln_f.bias"]
        unembed = state["lm_head.weight"].T
        weights |= {
            "W_E": state["transformer.wte.weight"],
            "W_pos": state["transformer.wpe.weight"],
            "W_U": gain[:, None] * unembed,
            "b_U": bias @ unembed,
        }
        return cls._of(cfg, weights, center, next(model.parameters()))

    @classmethod
    def from_transformer_lens(cls, model: Any, *, center: bool = True) -> HookedGPT:
        """The same function as a HookedTransformer of TransformerLens, whose LayerNorms it must have folded already.

        Raises HookedError for a model with gains of its own, rotary positions, parallel blocks or gated MLPs.
        """
        theirs = model.cfg
        if theirs.normalization_type != "LNPre":
            raise HookedError(
                f"the model's normalization_type is {theirs.normalization_type!r}; load it with fold_ln=True to get 'LNPre'"
            )
        for option, required in (
            ("positional_embedding_type", "standard"),
            ("parallel_attn_mlp", False),
            ("gated_mlp", False),
        ):
            if getattr(theirs, option, required) != required:
                raise HookedError(f"a model with {option}={getattr(theirs, option)!r} is no GPT-2")
        cfg = HookedConfig(
            theirs.n_layers,
            theirs.d_model,
            theirs.n_heads,
            theirs.d_head,
            theirs.d_mlp,
            theirs.n_ctx,
            theirs.d_vocab,
            theirs.act_fn,
            theirs.eps,
            theirs.model_name,
        )
        names = ("W_E", "W_pos", "W_U", "b_U", *_STACKED)
        return cls._of(cfg, {name: getattr(model, name).detach().double() for name in names}, center, model.W_E)

    @classmethod
    def _of(cls, cfg: HookedConfig, weights: dict[str, Tensor], center: bool, like: Tensor) -> HookedGPT:
        if center:
            for name in ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out", "W_U", "b_U"):
                weights[name] = weights[name] - weights[name].mean(-1, keepdim=True)
        model = cls(cfg).to(like.device, like.dtype)
        model.load_state_dict(weights)
        return model.requires_grad_(False).eval()


_STACKED = ("W_Q", "b_Q", "W_K", "b_K", "W_V", "b_V", "W_O", "b_O", "W_in", "b_in", "W_out", "b_out")


def refuse_mps(device: torch.device) -> None:
    """Raise HookedError on Apple's MPS.

    >>> refuse_mps(torch.device("mps"))
    Traceback (most recent call last):
    lab.circuits.transcoders.errors.HookedError: on MPS some torch versions compute GPT-2 wrongly without an error ...
    """
    if device.type == "mps":
        raise HookedError(
            "on MPS some torch versions compute GPT-2 wrongly without an error (TransformerLens issue 1178); move the model "
            "to the CPU"
        )


@contextmanager
def replaced_mlps(model: HookedGPT, mlps: Mapping[int, MLP]) -> Iterator[None]:
    """While it lasts, and in this thread alone, the MLPs of the given layers are these functions.

    mlps  by layer, (normalised input, the model's own output) -> the output that is used

    No weight is touched, so nothing has to be put back, after an exception neither; inner replacements go before outer. Raises
    HookedError for a layer that does not exist.
    """
    for layer in mlps:
        if not 0 <= layer < model.cfg.n_layers:
            raise HookedError(f"layer {layer} does not exist; the model has {model.cfg.n_layers} layers, from 0")
    before = _REPLACED.get() or {}
    mark = _REPLACED.set({**before, id(model): {**before.get(id(model), {}), **mlps}})
    try:
        yield
    finally:
        _REPLACED.reset(mark)


@torch.no_grad()
def embedding(model: HookedGPT, *, extended: bool = False) -> Float[Tensor, "v d"]:
    """``W_E``, one row per token; extended, the stream behind layer 0 when a token stands alone and without a position.

    Alone, a token attends to itself only, and MLP 0 acts on it: in many models these are part of the embedding.
    """
    if not extended:
        return model.W_E.detach()
    alone = torch.arange(model.cfg.d_vocab, device=model.W_E.device)[:, None]
    hook_name = "blocks.0.hook_resid_post"
    edits = {"hook_pos_embed": torch.zeros_like}
    caches = (
        model.run_with_cache(batch, names=frozenset({hook_name}), edits=edits, stop_at=1)[1]
        for batch in alone.split(PROMPTS)
    )
    return torch.cat([cache[hook_name][:, 0] for cache in caches])


def _called(source: str) -> str:
    """A model's name, which goes into files that leave this machine: of a folder only its last component.

    >>> _called("owner/model"), _called("/home/me/models/mine")
    ('owner/model', 'mine')
    """
    if not source:
        return "gpt2"
    return Path(source).name if Path(source).is_absolute() or Path(source).is_dir() else source


def _heads(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W + b for all heads at once: [b, t, D], [H, D, d_h], [H, d_h] -> [b, t, H, d_h]."""
    heads, width, head = weight.shape
    joined = weight.transpose(0, 1).reshape(width, heads * head)
    return torch.addmm(bias.flatten(), x.flatten(0, 1), joined).view(*x.shape[:2], heads, head)


def _block(state: Mapping[str, Tensor], prefix: str, heads: int) -> dict[str, Tensor]:
    """One block's weights, gains and biases of its LayerNorms folded into what reads them."""
    # LN with gain g and bias c, then W and b, is LN without them, then diag(g) W and b + c W.
    gain, bias = state[f"{prefix}ln_1.weight"], state[f"{prefix}ln_1.bias"]
    joined = gain[:, None] * state[f"{prefix}attn.c_attn.weight"]
    joined_bias = state[f"{prefix}attn.c_attn.bias"] + bias @ state[f"{prefix}attn.c_attn.weight"]
    weights = {}
    for letter, weight, b in zip("QKV", joined.chunk(3, dim=1), joined_bias.chunk(3), strict=True):
        weights[f"W_{letter}"] = weight.unflatten(1, (heads, -1)).transpose(0, 1)
        weights[f"b_{letter}"] = b.unflatten(0, (heads, -1))
    out = state[f"{prefix}attn.c_proj.weight"].unflatten(0, (heads, -1))
    gain, bias = state[f"{prefix}ln_2.weight"], state[f"{prefix}ln_2.bias"]
    into = state[f"{prefix}mlp.c_fc.weight"]
    return weights | {
        "W_O": out,
        "b_O": state[f"{prefix}attn.c_proj.bias"],
        "W_in": gain[:, None] * into,
        "b_in": state[f"{prefix}mlp.c_fc.bias"] + bias @ into,
        "W_out": state[f"{prefix}mlp.c_proj.weight"],
        "b_out": state[f"{prefix}mlp.c_proj.bias"],
    }
