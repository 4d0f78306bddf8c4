"""One unit's dashboard as an experiment: a transcoder's feature, an autoencoder's, or a neuron, over held-out texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lab.circuits.transcoders.models.languages import LanguageName, language
from lab.circuits.transcoders.units.activations import UnitKind
from lab.circuits.transcoders.units.dashboard import Dashboard, dashboard
from lab.circuits.transcoders.views import browse
from lab.experiment import Config, Progress, experiment, knob, no_progress

LAYER, UNIT = 3, 567  # what the page begins with: a line ends inside of try, so "except" comes next
LAYERS, NUMBERS = 4, 131_072  # that can be asked for; how many there are depends on model and kind


class FeatureConfig(Config):
    """Which unit, and how its examples are drawn."""

    primary: ClassVar[tuple[str, ...]] = ("kind", "layer", "unit", "bands")

    kind: UnitKind = knob(
        "transcoder", "a feature of the transcoder, of the autoencoder beside it, or a neuron of the MLP"
    )
    layer: int = knob(LAYER, "which of the model's layers, from 0", ge=0, le=LAYERS - 1)
    unit: int = knob(UNIT, "the number of the feature or neuron, from 0", ge=0, le=NUMBERS - 1, label="number")
    bands: int = knob(5, "bands of equal width, from its largest activation down to 0", ge=2, le=8)
    model: LanguageName = knob("stdlib-gpt", "stdlib-gpt: four layers, reads Python. spans-1l: one layer, knows years")
    examples: int = knob(3, "drawn from each band", ge=1, le=8)
    window: int = knob(8, "tokens shown on both sides of the one on which it fires", ge=2, le=12)
    seed: int = knob(0, "draws the examples", ge=0, le=999)


@dataclass(frozen=True)
class FeatureResult(Dashboard):
    """A dashboard, and whose unit it shows: the language model's name."""

    model: LanguageName


@experiment("features", "One feature", cost="live", small={"model": "spans-1l", "layer": 0})
def run_features(config: FeatureConfig, *, progress: Progress = no_progress) -> FeatureResult:
    """The dashboard of the configured unit. Raises CircuitError for one that there is not."""
    progress(0.0, "loading model and coders")
    units = browse.units_of(config.model, config.kind, config.layer)
    texts = browse.held_out(config.model)
    found = dashboard(
        texts.model,
        units,
        config.layer,
        texts,
        config.unit,
        bands=config.bands,
        examples=config.examples,
        window=config.window,
        seed=config.seed,
        pieces=language(config.model).pieces,
    )
    progress(1.0, "done")
    return FeatureResult(**vars(found), model=config.model)
