"""Sparsity against faithfulness, live: train a small coder and watch where it comes to stand among others (Section 4).

Beside it stand the lab's shipped coders, the MLP's own neurons, and the MLP at its mean or at zero, all measured on the same
held-out texts. Neurons are kept by the rule that a topk coder has: on each token the n with the largest |activation|, the
others at zero, so their L0 is n.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional

from lab.cache import cached
from lab.circuits.transcoders.coders.buffer import Repeats
from lab.circuits.transcoders.coders.coder import Kind, Transcoder
from lab.circuits.transcoders.coders.evaluation import LIVE, constant, replacement_loss, stand_in, zeros
from lab.circuits.transcoders.coders.training import CoderTraining, Site, Task, finished
from lab.circuits.transcoders.hooked import ACTIVATIONS, MLP, HookedGPT, replaced_mlps
from lab.circuits.transcoders.models.languages import LanguageName
from lab.experiment import Config, Progress, experiment, knob, no_progress
from lab.train import Training, train

CoderName = Literal["transcoder", "sae", "topk", "skip"]
Reference = tuple[Kind, float] | int | Literal["zero", "mean"]
BATCH, POOL, BUFFER = 1024, 2**15, 2**13  # pairs a step, of a pool that is computed once, and mixed at a time
SPANS_TEXTS, SPANS_HELD, STDLIB_HELD = 2000, 300, 48  # contexts of 28 tokens twice, texts of 128
TEXTS = 16  # a forward pass
LOOKS = 5  # times at which the coder is measured on its way
KEPT = (4, 8, 16, 32, 64, 128, 256)  # neurons a token
DEAD_AFTER = 0.2  # of the steps: a feature silent for so long is dead
OPENING = 0.15  # of the progress: references and activations


class ParetoConfig(Config):
    """Which coder is trained, of which MLP, for how long."""

    primary: ClassVar[tuple[str, ...]] = ("model", "kind", "lam", "steps")

    model: LanguageName = knob(
        "spans-1l", "spans-1l: its only MLP, seconds. stdlib-gpt: the MLP of layer 2 of 4, a minute", label="MLP of"
    )
    kind: CoderName = knob(
        "transcoder",
        "sae: an autoencoder of the MLP's output. topk: a transcoder with a fixed number of active features. "
        "skip: one with a linear path beside the features",
        label="coder",
    )
    lam: float = knob(
        8e-4,
        "the sparsity coefficient: more makes fewer features fire. topk has none",
        ge=5e-5,
        le=2e-2,
        scale="log",
        label="λ",
    )
    steps: int = knob(600, "of training, 1,024 activations each", ge=100, le=1500, step=100)
    d_sae: Literal[256, 512, 1024] = knob(512, "features of the coder", label="features")
    k: int = knob(16, "topk alone: features active on a token", ge=1, le=128, label="active features")
    rate: float = knob(
        5e-3,
        "Adam's; the lab's own coders took 2e-3, and many more steps",
        ge=1e-4,
        le=2e-2,
        scale="log",
        label="learning rate",
    )
    seed: int = knob(0, "draws the texts and the first weights", ge=0, le=999)


@dataclass(frozen=True)
class ParetoResult:
    """Where a coder stands, on its way or at its end; losses in nats a token, on the same held-out tokens throughout.

    done      the last point of `path` is the trained coder
    path      step, l0, added (loss), error (of `added`: one standard error, over texts), kl, recovered, fvu, dead: the coder
              as it was measured on its way; empty at first
    loss      step, loss: what it was trained down
    shipped   kind, lam, d_sae and the columns of `path`: the lab's own coders of this MLP
    neurons   l0, added, error, kl: keeping the neurons with the largest |activation| on each token, the others at zero
    levels    original: the model's loss; mean, zero: what is added with the MLP at its mean, or at zero, with mean_kl, zero_kl
    """

    model: str
    kind: str
    name: str
    steps: int
    done: bool
    tokens: int
    path: pd.DataFrame
    loss: pd.DataFrame
    shipped: pd.DataFrame
    neurons: pd.DataFrame
    levels: dict[str, float]


@dataclass(frozen=True, eq=False)
class ImitatedMlp:
    """An MLP to be imitated: its model and layer, texts to train on by seed, held-out texts, the lab's coders of it.

    repeats  how often each position enters training, as for the lab's own coders
    """

    model: HookedGPT
    layer: int
    texts: Callable[[int], Any]
    held_out: Int[Tensor, "n t"]
    coders: Mapping[tuple[Kind, float], Transcoder]
    repeats: Repeats | None = None

    @functools.cached_property
    def as_it_is(self) -> tuple[list[Tensor], Tensor, Tensor]:
        """Log-probabilities in parts, and what the MLP reads and writes, in the run that nothing was replaced in."""
        names = [f"blocks.{self.layer}.ln2.hook_normalized", f"blocks.{self.layer}.hook_mlp_out"]
        parts, reads, writes = [], [], []
        with torch.no_grad():
            for some in self.held_out.split(TEXTS):
                logits, cache = self.model.run_with_cache(some, names=frozenset(names))
                parts.append(logits.log_softmax(-1))
                reads.append(cache[names[0]])
                writes.append(cache[names[1]])
        return parts, torch.cat(reads), torch.cat(writes)

    @functools.cached_property
    def loss(self) -> float:
        """The model's own, in nats a token."""
        return replacement_loss(self.model, self.held_out, {})

    @functools.cached_property
    def zero(self) -> float:
        """What is added with the MLP at zero."""
        return self.faithful(zeros)["added"]

    @torch.no_grad()
    def faithful(self, mlp: MLP) -> dict[str, float]:
        """Added loss with its standard error, and divergence, with a function in the MLP's place."""
        added, divergence = [], 0.0
        for some, before in zip(self.held_out.split(TEXTS), self.as_it_is[0], strict=True):
            with replaced_mlps(self.model, {self.layer: mlp}):
                after = self.model(some).log_softmax(-1)
            lost = (before - after)[:, :-1].gather(-1, some[:, 1:, None])[..., 0]
            added.append(lost.mean(1))
            divergence += float(functional.kl_div(after, before, log_target=True, reduction="sum"))
        each = torch.cat(added)
        return {
            "added": float(each.mean()),
            "error": float(each.std() / len(each) ** 0.5),
            "kl": divergence / self.held_out.numel(),
        }

    @torch.no_grad()
    def point(self, coder: Transcoder) -> dict[str, float]:
        """A coder's point, as `evaluation.evaluate` has it, with a standard error; the original run is done only once."""
        _, x, y = self.as_it_is
        z = coder.encode(x if coder.kind == "transcoder" else y).flatten(0, -2)
        fires = (z > 0).float().mean(0)
        left = (stand_in(coder)(x, y) - y).square().sum()
        found = self.faithful(stand_in(coder))
        return found | {
            "l0": float(fires.sum()),
            "recovered": 1 - found["added"] / self.zero,
            "dead": float((fires <= LIVE).float().mean()),
            "fvu": float(left / (y - y.mean((0, 1))).square().sum()),
        }


@cached(maxsize=None)
def imitated_mlp(name: LanguageName) -> ImitatedMlp:
    """One of the lab's two MLPs for this; loaded once. Raises AssetError naming the repair when something is missing."""
    if name == "spans-1l":
        from lab.circuits.transcoders.models import spans_1l
        from lab.circuits.transcoders.models.spans_assets import spans_coders
        from lab.circuits.transcoders.models.spans_sweep import repeats

        return ImitatedMlp(
            spans_1l.load(),
            0,
            lambda seed: spans_1l.texts(seed, "coders", SPANS_TEXTS),
            spans_1l.texts(0, "measure", SPANS_HELD),
            spans_coders(),
            repeats,
        )
    from lab import assets
    from lab.circuits.transcoders.models import stdlib_assets
    from lab.circuits.transcoders.models.stdlib import StdlibTexts, hooked
    from lab.circuits.transcoders.models.stdlib_assets import LAYER

    kinds = [kind for kind, name in stdlib_assets.NAMES.items() if name in assets.register()]
    coders = {(kind, stdlib_assets.LAMBDAS[kind]): stdlib_assets.stdlib_coders(kind)[LAYER] for kind in kinds}
    return ImitatedMlp(
        hooked(), LAYER, lambda seed: StdlibTexts("seen"), StdlibTexts("held_out").spaced(STDLIB_HELD), coders
    )


def site(config: ParetoConfig, layer: int) -> Site:
    """What is trained.

    >>> site(ParetoConfig(kind="topk", k=8), 0).k, site(ParetoConfig(kind="sae"), 0).names[0]
    (8, 'blocks.0.hook_mlp_out')
    """
    if config.kind == "topk":
        return Site(layer, "transcoder", config.d_sae, activation="topk", k=config.k)
    kind: Kind = "sae" if config.kind == "sae" else "transcoder"
    return Site(layer, kind, config.d_sae, config.lam, skip=config.kind == "skip")


def top_neurons(model: HookedGPT, layer: int, kept: int) -> MLP:
    """The MLP with only its ``kept`` neurons of the largest |activation| on each token, the others at zero."""
    act = ACTIVATIONS[model.cfg.activation]

    def mlp(x: Tensor, y: Tensor) -> Tensor:
        post = act(x @ model.W_in[layer] + model.b_in[layer])
        places = post.abs().topk(kept, dim=-1).indices
        left = torch.zeros_like(post).scatter(-1, places, post.gather(-1, places))
        return left @ model.W_out[layer] + model.b_out[layer]

    return mlp


def references(
    name: LanguageName, *, progress: Progress = no_progress
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """What a coder is compared with, see `ParetoResult`: shipped coders, neurons, levels; each is measured once."""
    of = imitated_mlp(name)
    kept = [number for number in KEPT if number <= of.model.cfg.d_mlp]
    wanted: list[Reference] = [*of.coders, *kept, "zero", "mean"]
    found = {}
    for place, what in enumerate(wanted):
        progress(place / len(wanted), "measuring what it is compared with")
        found[what] = _reference(name, what)
    shipped = [
        {"kind": kind, "lam": lam, "d_sae": coder.cfg.d_sae, **found[kind, lam]}
        for (kind, lam), coder in of.coders.items()
    ]
    neurons = [{"l0": float(number), **found[number]} for number in kept]
    levels = {"original": of.loss, "zero": found["zero"]["added"], "mean": found["mean"]["added"]}
    levels |= {"zero_kl": found["zero"]["kl"], "mean_kl": found["mean"]["kl"]}
    return pd.DataFrame(shipped), pd.DataFrame(neurons), levels


@cached(maxsize=None)
def _reference(name: LanguageName, what: Reference) -> dict[str, float]:
    """One of them: a shipped coder, a number of neurons, or an ablation."""
    of = imitated_mlp(name)
    if isinstance(what, tuple):
        return of.point(of.coders[what])
    if isinstance(what, int):
        return of.faithful(top_neurons(of.model, of.layer, what))
    return of.faithful(zeros if what == "zero" else constant(of.as_it_is[2].mean((0, 1))))


@experiment("pareto", "Sparsity against faithfulness", cost="run", small={"steps": 100, "d_sae": 256})
def run_pareto(config: ParetoConfig, *, progress: Progress) -> ParetoResult:
    """Train the configured coder; the standing so far goes to ``progress`` as a Result."""
    progress(0.0, "loading the model and the lab's coders")
    of = imitated_mlp(config.model)
    compared = references(config.model, progress=lambda part, note="", partial=None: progress(OPENING * part, note))
    progress(OPENING, "computing the activations to train on")

    def measured(parts: nn.Module) -> Mapping[str, float]:
        return of.point(finished(parts)["coder"])

    def told(fraction: float, note: str = "", partial: Training | None = None) -> None:
        so_far = None if partial is None else _result(config, of, partial, compared)
        progress(OPENING + (1 - OPENING) * fraction, note, so_far)

    training = CoderTraining(
        config.steps,
        BATCH,
        config.rate,
        warm_up=config.steps // 10,
        pool=POOL,
        buffer=BUFFER,
        dead_after=max(1, round(DEAD_AFTER * config.steps)),
    )
    task = Task(of.model, of.texts(config.seed), {"coder": site(config, of.layer)}, training, config.seed, of.repeats)
    recipe = task.recipe(evaluate=measured, evaluate_every=-(-config.steps // LOOKS))
    done = train(recipe, progress=told)
    progress(1.0, "done")
    return _result(config, of, done, compared)


def _result(
    config: ParetoConfig,
    of: ImitatedMlp,
    training: Training,
    compared: tuple[pd.DataFrame, pd.DataFrame, dict[str, float]],
) -> ParetoResult:
    columns = ["step", "l0", "added", "error", "kl", "recovered", "fvu", "dead"]
    rows = [{"step": step, **numbers} for step, numbers in training.evaluations]
    shipped, neurons, levels = compared
    return ParetoResult(
        model=config.model,
        kind=config.kind,
        name=_name(config),
        steps=config.steps,
        done=bool(rows) and rows[-1]["step"] == config.steps,
        tokens=of.held_out.numel(),
        path=pd.DataFrame(rows, columns=columns),
        loss=pd.DataFrame(list(training.curve), columns=["step", "loss"]),
        shipped=shipped,
        neurons=neurons,
        levels=levels,
    )


def _name(config: ParetoConfig) -> str:
    """The coder in words.

    >>> _name(ParetoConfig()), _name(ParetoConfig(kind="topk", d_sae=1024))
    ('transcoder, 512 features, λ = 0.0008', 'topk transcoder, 1024 features, 16 active')
    """
    kinds = {"transcoder": "transcoder", "sae": "autoencoder", "topk": "topk transcoder", "skip": "skip transcoder"}
    how = f"{config.k} active" if config.kind == "topk" else f"λ = {config.lam:g}"
    return f"{kinds[config.kind]}, {config.d_sae} features, {how}"
