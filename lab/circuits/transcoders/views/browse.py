"""Which units a reader can browse, and the texts they are looked at over: loaded once, kept for all who ask.

The texts are held out: neither the model nor its coders were trained on them. What the units read there takes seconds to
compute and about 130 MB to keep; after that a unit takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from lab.cache import cached
from lab.circuits.transcoders.coders.coder import Kind, Transcoder
from lab.circuits.transcoders.coders.evaluation import LIVE
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.hooked import ACTIVATIONS
from lab.circuits.transcoders.models.languages import LanguageName, language
from lab.circuits.transcoders.units.activations import Activations, Neurons, UnitKind, Units, hook_name

CARRIED = 0.99  # of a layer's activation


@dataclass(frozen=True, eq=False)
class Survey:
    """All units of a layer over the held-out texts, as arrays [f].

    frequency   the share of tokens on which each fires; mean: of its activations there, 0 where it never fires; maximum

    >>> found = Survey(10_000, np.array([0.0, 0.5]), np.array([0.0, 2.0]), np.array([0.0, 3.0]))
    >>> found.live.tolist(), found.next_live(1), found.next_live(0, -1)
    ([False, True], 1, 1)
    >>> Survey(10_000, np.array([0.3, 0.5, 0.5]), np.array([9.0, 2.0, 1e-4]), np.zeros(3)).carrying.tolist()
    [True, True, False]
    """

    tokens: int
    frequency: np.ndarray
    mean: np.ndarray
    maximum: np.ndarray

    @property
    def live(self) -> np.ndarray:
        """Those that fire on more than one token in ten thousand."""
        return self.frequency > LIVE

    @property
    def carrying(self) -> np.ndarray:
        """The fewest live ones that carry `CARRIED` of all activation: others fire now and then, but next to nothing."""
        carried = np.where(self.live, self.frequency * self.mean, 0.0)
        order = np.argsort(-carried, kind="stable")
        before = carried[order].cumsum() - carried[order]
        found = np.zeros(len(carried), bool)
        found[order] = (before < CARRIED * carried.sum()) & (carried[order] > 0)
        return found

    def next_live(self, unit: int, step: int = 1) -> int:
        """The nearest live unit behind `unit`, or before it with ``step=-1``, around the ends; itself if there is none."""
        count = len(self.frequency)
        places = (unit + step * np.arange(1, count + 1)) % count
        found = places[self.live[places]]
        return int(found[0]) if len(found) else unit

    def any_live(self, generator: np.random.Generator) -> int:
        """One of those that carry the layer's activation, drawn uniformly; the one that fires most where none does."""
        found = np.flatnonzero(self.carrying)
        return int(generator.choice(found)) if len(found) else int(self.frequency.argmax())


@cached(maxsize=32)
def units_of(model: LanguageName, kind: UnitKind, layer: int) -> Units:
    """The shipped coder of a layer, or its neurons; read only.

    Raises CircuitError for a layer without them, and AssetError naming the repair when the coders are missing.

    >>> units_of("stdlib-gpt", "neuron", 2).W_dec.shape
    torch.Size([1024, 256])
    """
    of = language(model).model
    if not 0 <= layer < of.cfg.n_layers:
        raise CircuitError(f"layer: {model} has the layers 0 ... {of.cfg.n_layers - 1}, not {layer}")
    if kind == "neuron":
        return Neurons(of, layer)
    found = coders(model, kind)
    if layer not in found:
        raise CircuitError(f"kind: {model} has no {kind} of layer {layer}")
    return found[layer]


def coders(model: LanguageName, kind: Kind = "transcoder") -> Mapping[int, Transcoder]:
    """The shipped coders by layer; empty for a kind that a model has none of. Raises AssetError when they are missing."""
    if model == "stdlib-gpt":
        from lab.circuits.transcoders.models.stdlib_assets import stdlib_coders

        return stdlib_coders(kind)
    return language(model).coders if kind == "transcoder" else {}


@cached(maxsize=None)
def held_out(model: LanguageName) -> Activations:
    """What every layer's units read of the held-out texts; some seconds for the first who asks."""
    of = language(model)
    names = [
        f"blocks.{layer}.{name}"
        for layer in range(of.model.cfg.n_layers)
        for name in ("ln2.hook_normalized", "hook_mlp_out")
    ]
    return Activations.collect(of.model, of.texts(), names)


@cached(maxsize=32)
@torch.no_grad()
def survey(model: LanguageName, kind: UnitKind, layer: int) -> Survey:
    """How often and how strongly each unit of a layer fires; a second the first time. Raises as `units_of` does."""
    of, texts = units_of(model, kind, layer), held_out(model)
    width = of.W_enc.shape[1]
    fires, total, maximum = (torch.zeros(width, dtype=torch.float64) for _ in range(3))
    for some in texts.rows(hook_name(texts.model, layer, of), texts.counted):
        x = some.to(of.W_enc.dtype)
        if isinstance(of, Neurons):
            z = ACTIVATIONS[of.model.cfg.activation](torch.addmm(of.b_enc, x, of.W_enc)).clamp_min_(0)
        else:
            z = of.encode(x)
        fires += (z > 0).sum(0)
        total += z.sum(0)
        maximum = torch.maximum(maximum, z.amax(0).double())
    count = int(texts.counted.sum())
    return Survey(count, (fires / count).numpy(), (total / fires.clamp_min(1)).numpy(), maximum.numpy())
