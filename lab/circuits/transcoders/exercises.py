"""The notebook's "your turn": a width, a contribution with its books, and a bias that folds away."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lab.exercise import close, exercise

_READS = np.array([1.0, 0.0, -1.0, 2.0])
_WRITES = np.array([0.5, 0.5, -1.5, 0.5])
_SIGMA, _FIRES = 2.0, 3.0


@exercise(
    "transcoders:lambda",
    question="λ = 1.4e-4 gave a good sparsity at D = 768. Which λ do you try first at D = 256?",
    hint="The error is a mean over D, the price of activation is not: what stays the same is λ · D.",
    right=4.2e-4,
    wrong=1.4e-4,
)
def price(answer: float) -> str | None:
    """lambda D is what carries over."""
    if close(answer, 4.2e-4, 0.02):
        return None
    if close(answer, 1.4e-4):
        return "The same λ: but the error is averaged over a third as many dimensions, so it weighs three times as much each."
    return "Neither the width nor its square root alone does it; write down how the error depends on D."


def _contribution(fires: float, writes: np.ndarray, reads: np.ndarray, sigma: float) -> float:
    return float(fires * writes @ (reads - reads.mean()) / sigma)


def _uncentred(fires: float, writes: np.ndarray, reads: np.ndarray, sigma: float) -> float:
    return float(fires * writes @ reads / sigma)


@exercise(
    "transcoders:contribution",
    question="Write f(fires, writes, reads, sigma): what a feature that fires contributes to another's pre-activation, where "
    "the reader stands behind a LayerNorm of scale sigma.",
    hint="LayerNorm takes the stream's mean off before it divides. The mean can be taken off the reader instead.",
    right=lambda: _contribution,
    wrong=lambda: _uncentred,
)
def contribution(answer: Callable[[float, np.ndarray, np.ndarray, float], float]) -> str | None:
    """z <d, f - mean(f)> / sigma."""
    found = float(answer(_FIRES, _WRITES.copy(), _READS.copy(), _SIGMA))
    off = _WRITES + 1.0  # a writer whose mean is not zero
    shifted = float(answer(_FIRES, off, _READS.copy(), _SIGMA))
    if not close(found, _contribution(_FIRES, _WRITES, _READS, _SIGMA)):
        return "It should be how strongly it fires, times how its writing and the other's reading direction agree, over sigma."
    if not close(shifted, _contribution(_FIRES, off, _READS, _SIGMA)):
        return "Add the same number to all entries of `writes`: LayerNorm does not notice, your f does."
    return None


@exercise(
    "transcoders:cut",
    question="A feature fires with 2.0 and is wired to a logit with 0.5; its bias is 0.4. You cut the feature. By how much does "
    "the logit move in the frozen stand-in (with its sign)?",
    hint="What is taken away is what it wrote, all of it: the activation, wherever that came from.",
    right=-1.0,
    wrong=-0.8,
)
def cut(answer: float) -> str | None:
    """- fires * wired; the bias is part of what fires."""
    if close(answer, -1.0):
        return None
    if close(answer, 1.0):
        return "The size is right. Which way does the logit move when something that raised it is gone?"
    if close(answer, -0.8):
        return "You left the bias out; but a cut feature writes nothing at all."
    return "Only two of the three numbers matter."
