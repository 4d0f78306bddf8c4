"""What one unit does over many texts: a feature of a transcoder or autoencoder, or a neuron of the MLP, all alike.

The language model runs once and what the units of a layer read is kept, in half precision; after that the activations
of any unit are one product of a matrix with a vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.coders.evaluation import check_fit
from lab.circuits.transcoders.errors import CircuitError, HookedError
from lab.circuits.transcoders.hooked import ACTIVATIONS, HookedGPT, embedding
from lab.experiment import Progress, no_progress

UnitKind = Literal["transcoder", "sae", "neuron"]
FORWARD = 32  # texts a forward pass
ROWS = 8192  # tokens converted to full precision at a time


@dataclass(frozen=True, eq=False)
class Neurons:
    """The neurons of one layer's MLP by a coder's names, so that they stand beside features: ``gelu(x W_enc + b_enc)``.

    >>> Neurons(HookedGPT.tiny(), layer=0).W_dec.shape
    torch.Size([16, 8])
    """

    model: HookedGPT
    layer: int
    kind: UnitKind = field(default="neuron", init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.layer < self.model.cfg.n_layers:
            raise CircuitError(f"layer {self.layer} does not exist; the model has {self.model.cfg.n_layers}, from 0")

    @property
    def W_enc(self) -> Float[Tensor, "d m"]:
        """What each neuron reads, a column each."""
        return self.model.W_in[self.layer]

    @property
    def b_enc(self) -> Float[Tensor, " m"]:
        """Their biases."""
        return self.model.b_in[self.layer]

    @property
    def W_dec(self) -> Float[Tensor, "m d"]:
        """What each neuron writes, a row each."""
        return self.model.W_out[self.layer]


Units = Transcoder | Neurons


def check_unit(units: Units, unit: int) -> None:
    """Raise CircuitError for a feature or neuron that is not there."""
    count = units.W_enc.shape[1]
    if not 0 <= unit < count:
        what = "neuron" if isinstance(units, Neurons) else "feature"
        owner = "MLP" if isinstance(units, Neurons) else "coder"
        raise CircuitError(f"{what} {unit} does not exist; the {owner} has {count}, from 0")


def reads_stream(model: HookedGPT, layer: int, units: Units) -> bool:
    """Whether the units read the residual stream (behind a LayerNorm), and not the MLP's output, as most SAEs do.

    Raises CircuitError for units that do not fit this layer of the model.
    """
    stream = f"blocks.{layer}.ln2.hook_normalized"
    if isinstance(units, Neurons):
        if (units.model, units.layer) != (model, layer):
            raise CircuitError(
                f"the neurons are of layer {units.layer} of a model; layer {layer} of this one was asked for"
            )
        return True
    if units.kind == "sae" and units.cfg.hook_name == stream and 0 <= layer < model.cfg.n_layers:
        if units.cfg.d_in != model.cfg.d_model:
            raise CircuitError(f"the coder reads width {units.cfg.d_in}, the model's stream has {model.cfg.d_model}")
        return True
    check_fit(model, layer, units)
    return units.kind == "transcoder"


def hook_name(model: HookedGPT, layer: int, units: Units) -> str:
    """The name of the activation that the units read: the MLP's normalised input, or its output."""
    return (
        f"blocks.{layer}.ln2.hook_normalized" if reads_stream(model, layer, units) else f"blocks.{layer}.hook_mlp_out"
    )


@dataclass(frozen=True, eq=False)
class Activations:
    """What some places of a model hold over texts, computed once and kept: 2 bytes a number in half precision.

    tokens   [n, t]; bos: their first position is a boundary, the same in all of them, that is shown but never counted
    held     by place, [n, t, width]; 100,000 tokens of width 256 take 51 MB a place

    >>> model = HookedGPT.tiny()
    >>> texts = Activations.collect(model, torch.randint(0, 5, (20, 6)), ["blocks.0.ln2.hook_normalized"])
    >>> texts.of(0, Neurons(model, 0), 3).shape, texts.bytes
    (torch.Size([20, 6]), 1920)
    """

    model: HookedGPT
    tokens: Int[Tensor, "n t"]
    bos: bool
    held: dict[str, Tensor]
    _topk: WeakKeyDictionary[Transcoder, dict[str, tuple[Tensor, Tensor]]] = field(
        default_factory=WeakKeyDictionary, repr=False
    )

    @classmethod
    @torch.no_grad()
    def collect(
        cls,
        model: HookedGPT,
        tokens: Int[Tensor, "n t"],
        hook_names: Sequence[str],
        *,
        bos: bool = True,
        dtype: torch.dtype = torch.float16,
        progress: Progress = no_progress,
    ) -> Activations:
        """Run the model over the texts, up to the last layer needed, and keep what stands at the places.

        Raises HookedError for texts or places that the model does not have, and CircuitError where activations are too
        large for half precision (`dtype=torch.float32` holds them).
        """
        if not (hook_names and len(tokens)):
            raise HookedError("tokens and hook_names: there must be at least one text and one hook to look at")
        if unknown := [
            name for name in hook_names if name not in set(model.hook_names()) or not name.startswith("blocks.")
        ]:
            raise HookedError(f"no block of the model has a hook {unknown[0]!r}; it has {model.cfg.n_layers}, from 0")
        names, last = frozenset(hook_names), max(int(name.split(".")[1]) for name in hook_names)
        collected: dict[str, list[Tensor]] = {name: [] for name in names}
        batches = tokens.split(FORWARD)
        for number, some in enumerate(batches):
            cache = model.run_with_cache(some, names=names, stop_at=last + 1)[1]
            for name in names:
                collected[name].append(cache[name].to(dtype))
            progress((number + 1) / len(batches), "reading the texts")
        held = {name: torch.cat(some) for name, some in collected.items()}
        if too_large := [name for name, some in held.items() if not bool(some.isfinite().all())]:
            raise CircuitError(
                f"dtype {dtype} is too narrow for what {too_large[0]} holds; torch.float32 is wide enough"
            )
        return cls(model, tokens, bos, held)

    @property
    def bytes(self) -> int:
        """Memory of what is held."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.held.values())

    @cached_property
    def extended(self) -> Float[Tensor, "v d"]:
        """The model's extended embedding, see `hooked.embedding`: for a large vocabulary worth computing once only."""
        return embedding(self.model, extended=True)

    @property
    def counted(self) -> Bool[Tensor, "n t"]:
        """The positions that shares and bands are about: all but the boundaries."""
        mask = torch.ones_like(self.tokens, dtype=torch.bool)
        mask[:, : int(self.bos)] = False
        return mask

    def rows(self, name: str, where: Bool[Tensor, "n t"] | None = None) -> Sequence[Tensor]:
        """What a place holds at the chosen positions (all if left out), in parts of [rows, width]."""
        if name not in self.held:
            raise CircuitError(f"{name!r} was not collected over these texts; held are {', '.join(sorted(self.held))}")
        kept = self.held[name].flatten(0, 1) if where is None else self.held[name][where]
        return kept.split(ROWS)

    @torch.no_grad()
    def of(self, layer: int, units: Units, unit: int) -> Float[Tensor, "n t"]:
        """One unit's activations over all texts. Raises CircuitError for a unit that is not there or does not fit."""
        check_unit(units, unit)
        name = hook_name(self.model, layer, units)
        if not isinstance(units, Neurons) and units.cfg.activation == "topk":
            values, places = self._kept(name, units)
            return (values * (places == unit)).sum(-1).view(self.tokens.shape)
        weight, bias = units.W_enc[:, unit], units.b_enc[unit]
        pre = torch.cat([some.to(weight.dtype) @ weight for some in self.rows(name)]) + bias
        if isinstance(units, Neurons):
            z = ACTIVATIONS[self.model.cfg.activation](pre)
        elif units.threshold is not None:
            z = pre * (pre > units.threshold[unit])
        else:
            z = torch.relu(pre)
        return z.view(self.tokens.shape)

    def encoded(self, layer: int, coder: Transcoder, where: Bool[Tensor, "n t"]) -> Iterator[Float[Tensor, "r f"]]:
        """All features of a coder at the chosen positions, in parts of [rows, features]."""
        for some in self.rows(hook_name(self.model, layer, coder), where):
            with torch.no_grad():
                yield coder.encode(some.to(coder.W_enc.dtype))

    def _kept(self, name: str, coder: Transcoder) -> tuple[Tensor, Tensor]:
        """A topk coder's activations and features on each token: which are kept takes all pre-activations, once."""
        known = self._topk.setdefault(coder, {})
        if name not in known:
            found = [coder.active(coder.pre(some.to(coder.W_enc.dtype))) for some in self.rows(name)]
            known[name] = torch.cat([values for values, _ in found]), torch.cat([places for _, places in found])
        return known[name]
