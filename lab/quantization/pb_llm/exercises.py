"""The notebook's "your turn": three questions about one bit a weight and what it really costs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lab.exercise import close, exercise

_ROWS = (np.array([1.0, -2.0, 3.0, -4.0]), np.array([0.5, 2.5, 3.0, -1.0, 7.0]))


@exercise(
    "pb-llm:true-bits",
    question="5 % of a layer's weights are salient and keep 8 bits, all others get one. A bitmap says which are which. "
    "How many bits a weight is that, scales left out?",
    hint="Three parts: the signs, the salient weights, and one bit for every weight of the layer.",
    right=2.35,
    wrong=1.35,
)
def true_bits(answer: float) -> str | None:
    """0.95 + 0.05 * 8 + 1."""
    if close(answer, 1.35):
        return "That is what the weights take; nobody could tell yet which bits are signs."
    if close(answer, 1.95):
        return "Every weight has an entry in the bitmap, but the 8 bits of the salient ones are still to be counted."
    return None if close(answer, 2.35) else "That is not the sum of signs, salient weights and bitmap."


def _binarized(w: np.ndarray) -> np.ndarray:
    mu = w.mean()
    return mu + np.abs(w - mu).mean() * np.where(w >= mu, 1.0, -1.0)


def _spread(w: np.ndarray) -> np.ndarray:
    mu = w.mean()
    return mu + w.std() * np.where(w >= mu, 1.0, -1.0)


@exercise(
    "pb-llm:binarize",
    question="Write f(w) that takes a row w (n,) and returns the row of two values, mean ± scale, with the scale that makes "
    "the squared error least.",
    hint="With the signs fixed, the squared error is a parabola in the scale: where is its bottom?",
    right=lambda: _binarized,
    wrong=lambda: _spread,
)
def binarize(answer: Callable[[np.ndarray], np.ndarray]) -> str | None:
    """mu + mean|w - mu| * sign(w - mu)."""
    for w in _ROWS:
        given = np.asarray(answer(w.copy()), dtype=float)
        if given.shape != w.shape:
            return f"For a row of {len(w)} weights it returns the shape {given.shape}."
        if close(given, _binarized(w)):
            continue
        if not close(given.max() + given.min(), 2 * w.mean()):
            return f"For {w.tolist()} the two values do not lie around the row's mean, {w.mean():g}."
        lost, least = (float(np.square(each - w).sum()) for each in (given, _binarized(w)))
        return f"For {w.tolist()} the squared error is {lost:.4g}; another scale comes to {least:.4g}."
    return None


@exercise(
    "pb-llm:cheapest-mask",
    question="A layer has 1,024 inputs. Below which share of salient weights does it cost less to list their columns than to "
    "store a bitmap? Leave the row pointers out.",
    hint="How many bits does a number between 0 and 1,023 take?",
    right=0.1,
    wrong=0.125,
)
def cheapest_mask(answer: float) -> str | None:
    """1 / log2(1024)."""
    if close(answer, 0.125):
        return "That would be right for indices of 8 bits, and 8 bits can name no more than 256 columns."
    if close(answer, 10.0):
        return "Give the share as a number between 0 and 1."
    return None if close(answer, 0.1) else "At that share the two do not cost the same."
