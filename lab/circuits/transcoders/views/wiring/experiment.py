r"""How one unit is wired, as an experiment: what its weights say would make it fire, and what does on a given input.

By its weights alone, for every input alike (Section 4.1): heads by ``||W_V W_O f||``, tokens by de-embedding, directly or
through a head, and earlier features by the pullback ``W_dec f``. On an input, an earlier feature adds its activation times
that weight, and most of the best wired ones are silent: the two rankings are put side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from lab.circuits.transcoders.models.languages import Language, LanguageName, as_typed, language, quoted
from lab.circuits.transcoders.units.activations import Activations, Units, hook_name
from lab.circuits.transcoders.units.weight_readings import encoder_direction, mean_strength, ov_norms, pullback, strong
from lab.circuits.transcoders.views import browse
from lab.circuits.transcoders.views.features.experiment import LAYER, LAYERS, NUMBERS, UNIT
from lab.circuits.transcoders.views.wiring import frames as frames
from lab.experiment import Config, Progress, experiment, knob, no_progress

if TYPE_CHECKING:
    import numpy as np
SAMPLED = 2000  # tokens at most that a mean strength is taken over
EXAMPLES, WINDOW = 10, 12  # of a unit's firings, from the strongest to the weakest; tokens shown around one
OWN = "def size(text):↵    try:↵        return int(text)↵    except"  # of stdlib-gpt; left as it is, the model's own example
SILENT = "It never fires on the held-out texts, so there is no input to hold its weights against."
SILENT_HERE = "It does not fire on this text: nothing adds up to it here. Take a text from its examples, or all texts."
LOWEST = "Nothing but tokens, positions and heads comes before layer 0: there are no earlier features."


class WiringConfig(Config):
    """Which unit, and on what input its weights are held against what really adds to it."""

    primary: ClassVar[tuple[str, ...]] = ("kind", "layer", "unit", "over")

    kind: Literal["transcoder", "neuron"] = knob(
        "transcoder",
        "a feature of the transcoder or a neuron; an autoencoder reads the MLP's output, which no fixed weight "
        "leads to from below",
    )
    layer: int = knob(LAYER, "which of the model's layers, from 0", ge=0, le=LAYERS - 1)
    unit: int = knob(UNIT, "the number of the feature or neuron, from 0", ge=0, le=NUMBERS - 1, label="number")
    over: Literal["all texts", "example", "own text"] = knob(
        "all texts", "what its weights are held against: what adds to it where it fires", label="this input"
    )
    example: int = knob(0, "example: 0 is where it fires most, the last where least", ge=0, le=EXAMPLES - 1)
    text: str = knob(
        OWN,
        "own text: ↵ or \\n is a new line. Left as it is: an example that the model can read",
        max_length=300,
        label="own text",
    )
    model: LanguageName = knob("stdlib-gpt", "stdlib-gpt: four layers, reads Python. spans-1l: one layer, knows years")
    seed: int = knob(0, "all texts: which tokens count, where there are more than 2,000", ge=0, le=999)


@dataclass(frozen=True)
class WiringResult:
    """How one unit is wired, in plain data.

    model, kind, layer, unit   which
    heads [l + 1, h]    ``||W_V W_O f||`` of each head up to its own layer
    reads               way ("direct", "extended", "head 1.3" ...), token, piece, value: the tokens found most, each way
    earlier             layer, feature, weight (pullback), strength (on this input; NaN where there is none), writes (tokens
                        that it makes likelier, of the leading ones only): every feature of every earlier layer
    through             head ("1.3"), layer, feature, weight, writes: the features best wired through each head
    agreement           "10" and "50": the share of so many best wired features that also add most on this input
    over                what this input is, in words; empty where the unit does not fire
    context             piece, value, mark: the tokens around the place that was looked at; none for all texts
    note                what a reader must know; empty mostly
    """

    model: LanguageName
    kind: str
    layer: int
    unit: int
    heads: np.ndarray
    reads: pd.DataFrame
    earlier: pd.DataFrame
    through: pd.DataFrame
    agreement: dict[str, float]
    over: str
    context: pd.DataFrame
    note: str

    @property
    def best_head(self) -> str:
        """The head with the largest norm, as "layer.head"."""
        layer, head = divmod(int(self.heads.argmax()), self.heads.shape[1])
        return f"{layer}.{head}"


@dataclass(frozen=True)
class Input:
    """Where the unit is looked at: texts, the tokens of them that count, in words, and what stands around the one."""

    texts: Activations
    where: Bool[Tensor, "n t"]
    words: str
    context: pd.DataFrame


@experiment("wiring", "How one feature is wired", cost="live", small={"model": "spans-1l", "layer": 0})
def run_wiring(config: WiringConfig, *, progress: Progress = no_progress) -> WiringResult:
    """The wiring of the configured unit. Raises CircuitError for one that there is not, HookedError for no text."""
    progress(0.0, "loading model and coders")
    of, units = language(config.model), browse.units_of(config.model, config.kind, config.layer)
    coders = {layer: coder for layer, coder in browse.coders(config.model).items() if layer < config.layer}
    target = encoder_direction(units, config.unit)
    texts = browse.held_out(config.model)
    here = _input(config, of, units, texts)
    weights = {layer: pullback(target, coder) for layer, coder in coders.items()}
    strengths = {
        layer: mean_strength(here.texts, layer, coder, target, here.where)
        for layer, coder in coders.items()
        if here.words
    }
    progress(0.9, "ranking")
    notes = {LOWEST: not coders, SILENT_HERE if config.over == "own text" else SILENT: not here.words}
    return WiringResult(
        model=config.model,
        kind=config.kind,
        layer=config.layer,
        unit=config.unit,
        heads=ov_norms(of.model, target)[: config.layer + 1].numpy(),
        reads=frames.tokens_read(texts, target, config.layer, of.pieces),
        earlier=frames.earlier(of, coders, weights, strengths),
        through=frames.through_heads(of, coders, target),
        agreement=frames.agreements(weights, strengths),
        over=here.words,
        context=here.context,
        note=" ".join(note for note, holds in notes.items() if holds),
    )


def _input(config: WiringConfig, of: Language, units: Units, texts: Activations) -> Input:
    """This input; without words where the unit does not fire on it."""
    if config.over == "own text":
        texts = _own(config, of, units)
    z = texts.of(config.layer, units, config.unit).clamp_min(0) * texts.counted
    nowhere = torch.zeros_like(texts.counted)
    whole = config.over == "own text"
    if not bool((z > 0).any()):
        context = frames.context(texts.tokens, z, (0, -1), of.pieces) if whole else frames.no_context()
        return Input(texts, nowhere, "", context)
    if config.over == "all texts":
        where, count = _some(strong(z, texts.counted), config.seed)
        return Input(texts, where, f"on {count:,} tokens where it fires strongly", frames.no_context())
    order = z.flatten().argsort(descending=True, stable=True)
    last = int((z > 0).sum()) - 1
    rank = 0 if whole else round(config.example / (EXAMPLES - 1) * last)
    text, position = divmod(int(order[rank]), z.shape[1])
    where = nowhere.clone()
    where[text, position] = True
    context = frames.context(texts.tokens, z, (text, position), of.pieces, None if whole else WINDOW)
    piece = quoted(of.pieces([int(texts.tokens[text, position])])[0])
    return Input(texts, where, f"at {piece}, where it fires with {float(z[text, position]):.2g}", context)


def _own(config: WiringConfig, of: Language, units: Units) -> Activations:
    """What stands in the reader's own text."""
    left = config.text == OWN and config.model != "stdlib-gpt"
    tokens = of.encode(as_typed(of.example if left else config.text), True)
    places = {f"blocks.{layer}.ln2.hook_normalized" for layer in range(config.layer)}
    wanted = sorted({*places, hook_name(of.model, config.layer, units)})
    return Activations.collect(of.model, tokens[None], wanted, dtype=torch.float32)


def _some(where: Bool[Tensor, "n t"], seed: int) -> tuple[Bool[Tensor, "n t"], int]:
    """At most `SAMPLED` of the marked tokens, drawn uniformly, and how many those are."""
    places = where.flatten().nonzero()[:, 0]
    if len(places) <= SAMPLED:
        return where, len(places)
    chosen = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))[:SAMPLED]]
    return torch.zeros_like(where.flatten()).index_fill_(0, chosen, True).view(where.shape), SAMPLED
