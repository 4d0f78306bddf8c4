"""The notebook's "your turn": three questions about the partial plan."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lab.exercise import close, exercise

_CONFIDENCE = (0.9, 0.5, 0.1, 0.3)
_COST = np.array([[0.1, 2.4, 3.0], [1.2, 0.9, 1.1], [2.9, 0.2, 2.2], [0.4, 1.5, 2.6]])
_RHO = 0.4


@exercise(
    "sp2ot:real-mass",
    question="Four samples; the rows of N·Q sum to 0.9, 0.5, 0.1 and 0.3. Which mass ρ was handed out?",
    hint="Each sample weighs 1/N, and all samples together weigh 1.",
    right=0.45,
    wrong=1.8,
)
def real_mass(answer: float) -> str | None:
    """rho = mean of the rows' sums of N Q."""
    if close(answer, sum(_CONFIDENCE)):
        return "That is the sum of the four; the mass of all samples together is 1, not 4."
    return None if close(answer, np.mean(_CONFIDENCE)) else "That is not the mass of this plan."


def _extend(cost: np.ndarray, rho: float) -> tuple[np.ndarray, np.ndarray]:
    n, k = cost.shape
    return np.column_stack([cost, np.zeros(n)]), np.append(np.full(k, rho / k), 1 - rho)


def _extend_wrongly(cost: np.ndarray, rho: float) -> tuple[np.ndarray, np.ndarray]:
    n, k = cost.shape
    return np.column_stack([cost, np.zeros(n)]), np.full(k + 1, 1 / (k + 1))


@exercise(
    "sp2ot:virtual-column",
    question="Write f(cost, rho) that returns the cost with its virtual column (N, K+1) and the column targets (K+1,).",
    hint="Keeping a sample back costs nothing, and exactly what is not handed out is kept back.",
    right=lambda: _extend,
    wrong=lambda: _extend_wrongly,
)
def virtual_column(answer: Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]) -> str | None:
    """Cost [C, 0] and target [rho/K, ..., rho/K, 1 - rho]."""
    cost, target = answer(_COST.copy(), _RHO)
    true_cost, true_target = _extend(_COST, _RHO)
    if not close(cost, true_cost):
        return "The cost of the real columns must stay, and the virtual column stands last with its own cost."
    if close(target, true_target):
        return None
    if not close(np.sum(target), 1.0):
        return f"The targets should sum to 1 and yours sum to {np.sum(target):g}."
    return "The targets sum to 1 as they should, but they are shared out otherwise."


@exercise(
    "sp2ot:hard-sizes",
    question="γ grows without bound, ρ = 0.5, K = 5. What do the five real columns of Q sum to?",
    hint="The size penalty compares the columns with ρ/K each, and it has become infinitely dear to miss that.",
    right=(0.1, 0.1, 0.1, 0.1, 0.1),
    wrong=(0.2, 0.2, 0.2, 0.2, 0.2),
)
def hard_sizes(answer: tuple[float, ...]) -> str | None:
    """rho / K each."""
    values = np.broadcast_to(np.asarray(answer, dtype=float), (5,)) if np.ndim(answer) == 0 else answer
    if close(np.sum(values), 1.0):
        return "These sum to 1, but only a part of the mass is handed out."
    return None if close(values, np.full(5, 0.1)) else "Together they must hold the mass that is handed out."
