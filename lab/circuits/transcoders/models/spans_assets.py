"""What the lab ships of the spans corpus: the language model `spans-1l`, and eight coders of its MLP, `spans-1l-coders`.

Trained longer than what the ledger measures, from a seed that tuning used; no claim rests on them.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from lab import assets
from lab.cache import cached
from lab.circuits.transcoders.coders.bundle import load_bundle, save_bundle
from lab.circuits.transcoders.coders.coder import Kind, Transcoder
from lab.circuits.transcoders.coders.training import CoderTraining, Task, asset_recipe, finished
from lab.circuits.transcoders.hooked import HookedGPT
from lab.circuits.transcoders.models import spans_1l
from lab.circuits.transcoders.models.spans_sweep import LAMBDAS, place_of, repeats, sites, sweep_scores

SEED = 0
STEPS = 6000  # of the language model
NAME = "spans-1l-coders"
TRAINING = CoderTraining(steps=3000)
CONTEXTS, MEASURED = 100_000, 1000
LICENCE = "synthetic text by the lab, MIT"


@cached(maxsize=None)
def spans_coders() -> dict[tuple[Kind, float], Transcoder]:
    """The shipped coders by kind and lambda, loaded once; read only.

    Raises AssetError naming the file and the repair when they are missing or damaged.

    >>> sorted({lam for kind, lam in spans_coders()}), spans_coders()["transcoder", 8e-4].cfg.d_sae
    ([0.0004, 0.0008, 0.0016, 0.0032], 1024)
    """
    found = load_bundle(assets.folder(NAME))
    return {(coder.kind, LAMBDAS[place_of(name)]): coder for name, coder in found.items()}


def _write_model(model: nn.Module, folder: Path) -> dict[str, Any]:
    from safetensors.torch import save_file

    assert isinstance(model, HookedGPT)
    shipped = spans_1l.rescaled(model.cpu())
    save_file({name: weight.contiguous() for name, weight in shipped.state_dict().items()}, folder / assets.WEIGHTS)
    return {"metrics": spans_1l.quality(shipped)}


def _write_coders(parts: nn.Module, folder: Path) -> dict[str, Any]:
    save_bundle(finished(parts), folder)
    scores = sweep_scores(spans_1l.load(), load_bundle(folder), spans_1l.texts(SEED, "measure", MEASURED))
    metrics = {name: round(value, 5) for name, value in scores.items() if name.startswith(("transcoder", "sae"))}
    return {"metrics": metrics}


def _task() -> Task:
    windows = spans_1l.texts(SEED, "coders", CONTEXTS)
    return Task(spans_1l.load(), windows, sites(), TRAINING, SEED, repeats)


MODEL = spans_1l.recipe(
    SEED,
    STEPS,
    write=_write_model,
    evaluate=spans_1l.quality,
    evaluate_every=500,
    config=asdict(spans_1l.CONFIG)
    | {
        "rate": spans_1l.RATE,
        "betas": list(spans_1l.BETAS),
        "warm_up": spans_1l.WARM_UP,
        "schedule": "cosine to 0",
        "clip": 1.0,
    },
    data=f"{STEPS * spans_1l.BATCH:,} contexts of the spans corpus, each once",
    licence=LICENCE,
)
CODERS = asset_recipe(
    NAME,
    _task,
    sites(),
    TRAINING,
    seed=SEED,
    write=_write_coders,
    data=f"activations of spans-1l on {CONTEXTS:,} contexts of the spans corpus, positions before a second year four times",
    licence=LICENCE,
)
