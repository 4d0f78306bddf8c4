"""The coders of `stdlib-gpt` that the lab ships: for each layer a transcoder and, beside it, an autoencoder.

All four of a kind are trained together on one stream of activations; each ends as it would have alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lab import assets
from lab.cache import cached
from lab.circuits.transcoders.coders.bundle import load_bundle, save_bundle
from lab.circuits.transcoders.coders.coder import Kind, Transcoder
from lab.circuits.transcoders.coders.evaluation import evaluate, replacement_loss, stand_in, zeros
from lab.circuits.transcoders.coders.training import CoderTraining, Site, Task, asset_recipe, finished
from lab.circuits.transcoders.models.stdlib import StdlibTexts, hooked

WIDTH, LAYERS = 1920, 4  # features a coder: four of them stay below the size of an asset
NAMES: dict[Kind, str] = {"transcoder": "stdlib-gpt-transcoders", "sae": "stdlib-gpt-saes"}
LAMBDAS: dict[Kind, float] = {"transcoder": 2e-4, "sae": 6e-4}  # autoencoders come out sparser, see the cards
TRAINING = CoderTraining(steps=8000, warm_up=300)
LAYER = 2  # of the sweep: in the middle, where the MLP's whole effect is .28 nats
MEASURED = 64  # held-out texts that the card's figures are measured on


def sites(kind: Kind) -> dict[str, Site]:
    """One coder a layer."""
    return {f"layer-{layer}": Site(layer, kind, WIDTH, LAMBDAS[kind]) for layer in range(LAYERS)}


@cached(maxsize=None)
def stdlib_coders(kind: Kind = "transcoder") -> dict[int, Transcoder]:
    """The shipped coders by layer, loaded once; read only.

    Raises AssetError naming the file and the repair when they are missing or damaged.

    >>> {layer: coder.cfg.d_sae for layer, coder in stdlib_coders().items()}
    {0: 1920, 1: 1920, 2: 1920, 3: 1920}
    """
    found = load_bundle(assets.folder(NAMES[kind]))
    return {int(name.removeprefix("layer-")): coder for name, coder in found.items()}


@torch.no_grad()
def measured(coders: dict[int, Transcoder]) -> dict[str, float]:
    """What the coders do on modules that neither they nor the model saw: each alone, and all layers replaced at once."""
    model, texts = hooked(), StdlibTexts("held_out").spaced(MEASURED)
    found: dict[str, float] = {}
    for layer, coder in coders.items():
        one = evaluate(model, layer, coder, texts)
        numbers = {
            "l0": one.l0,
            "added_ce": one.ce - one.ce_original,
            "recovered": one.recovered,
            "kl": one.kl,
            "fvu": one.fvu,
        }
        found |= {f"layer_{layer}_{name}": round(value, 4) for name, value in (numbers | {"dead": one.dead}).items()}
    own, none = replacement_loss(model, texts, {}), replacement_loss(model, texts, dict.fromkeys(coders, zeros))
    every = replacement_loss(model, texts, {layer: stand_in(coder) for layer, coder in coders.items()})
    names = ("ce", "ce_all_replaced", "ce_all_zero", "recovered_all")
    return found | {
        name: round(value, 4)
        for name, value in zip(names, (own, every, none, (none - every) / (none - own)), strict=True)
    }


def _write(parts: nn.Module, folder: Path) -> dict[str, Any]:
    coders = finished(parts)
    save_bundle(coders, folder)
    shipped = load_bundle(folder)
    return {"metrics": measured({int(name.removeprefix("layer-")): coder for name, coder in shipped.items()})}


def _task(kind: Kind) -> Task:
    return Task(hooked(), StdlibTexts("seen"), sites(kind), TRAINING)


def _recipe(kind: Kind) -> Any:
    return asset_recipe(
        NAMES[kind],
        lambda: _task(kind),
        sites(kind),
        TRAINING,
        write=_write,
        data="activations of stdlib-gpt on the frozen source of Python's standard library, 19 modules in 20",
        licence="trained on text under PSF-2.0",
    )


TRANSCODERS, SAES = _recipe("transcoder"), _recipe("sae")
