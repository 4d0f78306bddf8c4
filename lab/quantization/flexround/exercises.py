"""The notebook's "your turn": three questions about dividing before rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lab.exercise import close, exercise

_WEIGHTS = np.array([1.2, -0.6, 0.3, 0.0, 9.0])
_FACTORS = np.array([0.8, 1.0, 2.5, 0.3, 1.0])
_STEP, _LOW, _HIGH = 0.5, -8, 7


def _quantize(w: np.ndarray, s1: float, s2: np.ndarray, low: int, high: int) -> np.ndarray:
    return s1 * np.clip(np.round(w / (s1 * s2)), low, high)


def _quantize_wrongly(w: np.ndarray, s1: float, s2: np.ndarray, low: int, high: int) -> np.ndarray:
    return s1 * s2 * np.clip(np.round(w / (s1 * s2)), low, high)


@exercise(
    "flexround:just-enough",
    question="A grid has the step 0.5. Which factors S₂ just take 1.2 from point 2 to 3, and 0.3 from point 1 to 2?",
    hint="A weight changes its point where W / (s₁ S₂) is half-way between two.",
    right=(0.96, 0.4),
    wrong=(0.8, 0.3),
)
def just_enough(answer: tuple[float, float]) -> str | None:
    """1.2 / (0.5 * 2.5) and 0.3 / (0.5 * 1.5): the large weight needs 4 %, the small one 60 %."""
    if close(answer, (0.96, 0.4)):
        return None
    if close(answer, (0.8, 0.3)):
        return "These factors put W / (s₁ S₂) right on the next point; less is enough."
    large, small = np.asarray(answer, dtype=float)
    if not (large > 0 and small > 0):
        return "Factors are positive."
    return f"With yours, W / (s₁ S₂) is {1.2 / (0.5 * large):.3g} and {0.3 / (0.5 * small):.3g}."


@exercise(
    "flexround:reciprocal",
    question="W = 1.2, s₁ = 0.5, S₂ = 0.8, and the loss has the slope G = 1 in Ŵ. What is its slope in S₂?",
    hint="Leave the rounding out, as the gradient does: Ŵ = s₁ · W / (s₁ S₂). Then differentiate.",
    right=-1.875,
    wrong=-1.5,
)
def reciprocal(answer: float) -> str | None:
    """-W / S2^2 * G."""
    if close(answer, -1.875):
        return None
    if close(answer, 1.875):
        return "The size is right; a larger factor makes the weight smaller."
    if close(answer, -1.5):
        return "That is the slope in log S₂."
    return "That is not the slope of W / S₂ there."


@exercise(
    "flexround:quantizer",
    question="Write f(w, s1, s2, low, high): FlexRound's weight, with codes from low to high.",
    hint="What is divided by is learned, and forgotten; what is stored is a code and s₁.",
    right=lambda: _quantize,
    wrong=lambda: _quantize_wrongly,
)
def quantizer(answer: Callable[[np.ndarray, float, np.ndarray, int, int], np.ndarray]) -> str | None:
    """s1 clip(round(w / (s1 s2)))."""
    found = np.asarray(answer(_WEIGHTS.copy(), _STEP, _FACTORS.copy(), _LOW, _HIGH), dtype=float)
    if close(found, _quantize(_WEIGHTS, _STEP, _FACTORS, _LOW, _HIGH)):
        return None
    if close(found, _quantize_wrongly(_WEIGHTS, _STEP, _FACTORS, _LOW, _HIGH)):
        return "You multiply by the factor again: then it would have to be stored, and the weights are on no grid."
    if close(found[:-1], _quantize(_WEIGHTS, _STEP, _FACTORS, _LOW, _HIGH)[:-1]):
        return "Right but for the weight that lies beyond the grid."
    return "These are not points of the grid that the weights are divided onto."
