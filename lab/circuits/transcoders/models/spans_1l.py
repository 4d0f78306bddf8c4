r"""`spans-1l`: a language model of one layer on the spans corpus, the bench on which circuits have a known truth (Section 4).

Two modes and one layer leave the interaction of mode and year to the MLP or to attention; which of them does it is
measured, not provable: with patterns fixed the residual stream is a sum a(mode) + b(YY), and even such logits can have
the true distribution, for example with b(YY) a tent that falls as steeply as a(mode) rises.

Every reader of the residual stream normalises it, so the stream's scale means nothing; training lets it grow to hundreds.
Adam's steps do have a scale, and coders of such outputs come out dense and unfinished. So the stream is scaled, once and
exactly, to where the MLP's output is as long as its input, see `rescaled`.
"""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lab.circuits.transcoders.hooked import HookedConfig, HookedGPT
from lab.circuits.transcoders.models import greater_than
from lab.datasets import spans
from lab.experiment import Progress, no_progress
from lab.train import Recipe, train

NAME = "spans-1l"
CONFIG = HookedConfig(
    n_layers=1,
    d_model=128,
    n_heads=4,
    d_head=16,
    d_mlp=512,
    n_ctx=spans.CONTEXT,
    d_vocab=len(spans.VOCABULARY),
    eps=1e-12,
    model_name=NAME,  # an eps that no scale of the stream makes felt
)
STEPS, BATCH, RATE, WARM_UP, BETAS = 1500, 64, 5e-3, 100, (0.9, 0.98)
HELD_OUT, HELD_OUT_SEED = 500, 2**40  # contexts; a seed that no training draws its texts with
PARTS = ("language model", "coders", "measure")


def texts(seed: int, part: str, n: int) -> Int[Tensor, "n 28"]:
    """Contexts that a seed draws for one of `PARTS`; the parts share no random numbers.

    >>> texts(0, "coders", 3).shape
    torch.Size([3, 28])
    """
    if part not in PARTS:
        raise spans.SpansError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    mixed = np.random.SeedSequence([seed, PARTS.index(part)]).generate_state(1, np.uint64)[0] >> 1
    return spans.sample(n, int(mixed))


def next_token_loss(model: nn.Module, tokens: Int[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Cross-entropy of each token given those before it, in nats, averaged."""
    logits = model(tokens)
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def recipe(seed: int, steps: int = STEPS, rate: float = RATE, **more: Any) -> Recipe:
    """How a model is trained: each context once, Adam, a linear warm-up and a cosine down to 0.

    ``more`` are further fields of the recipe.
    """

    def schedule(step: int) -> float:
        return min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2

    return Recipe(
        name=NAME,
        model=lambda: HookedGPT(CONFIG),
        examples=lambda: texts(seed, "language model", steps * BATCH),
        loss=next_token_loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=rate, betas=BETAS, fused=True),
        schedule=schedule,
        clip=1.0,
        steps=steps,
        batch=BATCH,
        seed=seed,
        **more,
    )


def train_lm(seed: int, *, steps: int = STEPS, rate: float = RATE, progress: Progress = no_progress) -> HookedGPT:
    """A model trained from a seed, ready to be read: in evaluation mode, without gradients; about a minute on one core."""

    def told(fraction: float, note: str = "", partial: Any | None = None) -> None:
        progress(fraction, note, None)

    model = train(recipe(seed, steps, rate), progress=told).model
    assert isinstance(model, HookedGPT)
    return rescaled(model)


def load() -> HookedGPT:
    """The shipped model, ready to be read. Raises AssetError naming the file and the repair when it is missing or damaged.

    >>> load().cfg.n_layers
    1
    """
    from lab import assets

    return restored(assets.tensors(NAME))


def restored(weights: dict[str, Tensor]) -> HookedGPT:
    """A model from its weights; torch's random numbers are left alone."""
    with torch.device("meta"):
        model = HookedGPT(CONFIG)
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def rescaled(model: HookedGPT) -> HookedGPT:
    """The same function with all that is written to the stream times a constant, so that the MLP's output has the mean norm
    ``sqrt(d_model)`` of what the MLP reads.

    >>> with torch.random.fork_rng():
    ...     model = rescaled(HookedGPT(CONFIG))
    >>> cache = model.run_with_cache(texts(0, "measure", 50))[1]
    >>> abs(cache["blocks.0.hook_mlp_out"].norm(dim=-1).mean().item() / CONFIG.d_model**0.5 - 1) < 0.05
    True
    """
    place = "blocks.0.hook_mlp_out"
    out = model.run_with_cache(_held_out(), names=frozenset({place}), stop_at=1)[1][place]
    factor = CONFIG.d_model**0.5 / out.norm(dim=-1).mean()
    weights = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    for name in ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out"):
        weights[name] *= factor
    return restored(weights)


def _held_out() -> Int[Tensor, "n 28"]:
    return spans.sample(HELD_OUT, HELD_OUT_SEED)


@torch.no_grad()
def quality(model: nn.Module) -> dict[str, float]:
    """Held-out loss in nats a token; probability difference and divergence from the truth at END, in both modes."""
    assert isinstance(model, HookedGPT)
    found = {"held_out_loss": float(next_token_loss(model, _held_out()))}
    for mode in get_args(spans.Mode):
        scores = greater_than.measure(model, greater_than.prompts(mode))
        found |= {f"pd_{mode}": scores.pd, f"kl_{mode}": scores.kl}
    return {name: round(value, 4) for name, value in found.items()}
