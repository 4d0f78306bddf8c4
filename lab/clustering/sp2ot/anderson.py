"""The fast solver of partial transport: K column potentials, the virtual column solved exactly, Anderson's steps.

The plan is a scaled Gibbs kernel. Given column potentials h (K,) all the rest of it follows (a, b, rho, eps, gamma as in
`transport`; the numbers are this file's)::

    (1)  t_i = sum_j exp(h_j - C_ij / eps)                       weight of the real columns in row i
    (2)  rho = sum_i a_i s_i,   s_i = t_i / (t_i + theta)        the mass fixes theta, the virtual column's weight
    (3)  Q_ij = a_i s_i exp(h_j - C_ij / eps) / t_i,   c_j = sum_i Q_ij           the plan and its column sums

The first-order condition, divided by gamma + eps, says that phi is the same in all columns; r is by how much it is not,
and one sweep of plain scaling moves h by r::

    (4)  phi_j = (1 - f) h_j + f log(c_j / (rho b_j)),   f = gamma / (gamma + eps)
    (5)  r_j = sum_k c_k phi_k / sum_k c_k  -  phi_j

Three steps are better than that: the sweep divided by the diagonal of its Jacobian, the last six of these combined by
Anderson's method (D. G. Anderson 1965; type II in Walker & Ni 2011), and Newton's::

    (6)  d_j = r_j / (1 - f W_jj / c_j),   W_jj = sum_i Q_ij^2 / a_i
    (7)  h <- h + d - sum_k w_k (delta d_k + delta h_k),   w = argmin |d - sum_k w_k delta d_k|
    (8)  h <- h + delta,   J delta = r,   J = I - f diag(1 / c) (W + p p^T / Z),
         W = Q^T diag(1 / a) Q,   p = Q^T (1 - s),   Z = sum_i a_i s_i (1 - s_i)

Plain scaling iterates the virtual column too, which makes it slow at small rho; here (2) is solved exactly at every step,
and p p^T / Z is its answer in the Jacobian. (8) is for the few problems that are unsolved after 16 sweeps: close to linear
programs, or with nearly hard columns.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lab.clustering.sp2ot.kernel import Kernel

MEMORY = 6  # sweeps that (7) mixes
NEWTON_AFTER = 16  # sweeps; few problems need more, and those that do are ill-conditioned
CUT = 0.25  # a Newton step that does not help is tried at this part of its length, then left for plain sweeps
GROWTH = 2.0  # an accelerated step that multiplies the residual by more than this is taken back
REFRESH = frozenset((0, 2, 8, 32, 128, 512))  # iterations at which the diagonal of (6) is measured anew


@dataclass
class State:
    """The potentials of one iteration, and what (1) to (6) make of them.

    h (K,), log_theta: the potentials; u (N,), b (K,): the plan is diag(u) kernel diag(b); share (N,): s of (2);
    log_columns (K,): log c of (3); phi (K,) of (4); residual (K,): r of (5); diagonal (K,): W_jj / c_j of (6), or None.
    """

    h: np.ndarray
    log_theta: float
    u: Any = None
    share: Any = 1.0
    b: np.ndarray = field(default_factory=lambda: np.empty(0))
    log_columns: np.ndarray = field(default_factory=lambda: np.empty(0))
    phi: np.ndarray = field(default_factory=lambda: np.empty(0))
    residual: np.ndarray = field(default_factory=lambda: np.empty(0))
    diagonal: np.ndarray | None = None


def virtual_weight(t: Any, shift: Any, a: Any, rho: float, log_theta: float, eps: float) -> tuple[float, Any]:
    """Solve (2) for theta, beginning at ``log_theta``; returns its logarithm and the shares s (N,).

    Rows weigh ``t * exp(shift)``, or ``t`` where ``shift`` is None. Newton on the logarithm of the smaller of the two
    masses, inside a bracket that shrinks; the root is no more than 40 away from the lightest and the heaviest row. The
    last step is taken along the tangent, whose error is the step squared: it may be as long as the root of ``eps``.
    """
    short = 0.3 * eps**0.5
    xp = np if isinstance(t, np.ndarray) else sys.modules["torch"]
    log_t: Any = None if shift is None else xp.log(t) + shift  # (N,)
    inverse_t = 1.0 / t if shift is None else None  # (N,)
    lightest, heaviest = (
        (np.log(float(t.min())), np.log(float(t.max()))) if shift is None else (log_t.min(), log_t.max())
    )
    low, high = float(lightest) - 40.0, float(heaviest) + 40.0
    if not low < log_theta < high:
        log_theta = 0.5 * (low + high)
    for _ in range(200):
        virtual = inverse_t * np.exp(log_theta) if log_t is None else xp.exp(xp.clip(log_theta - log_t, -600.0, 600.0))
        share = 1.0 / (1.0 + virtual)  # (2): s_i = t_i / (t_i + theta), (N,)
        virtual *= share  # from theta / t_i to 1 - s_i, (N,)
        weighted = a * share
        slope = max(float(weighted @ virtual), 1e-300)  # -d(real mass) / d(log theta) = sum_i a_i s_i (1 - s_i)
        if rho < 0.5:
            mass = float(weighted.sum())
            step = np.log(max(mass, 1e-300) / rho) * mass / slope
        else:
            mass = float(a @ virtual)
            step = np.log((1.0 - rho) / max(mass, 1e-300)) * mass / slope
        if abs(step) < short:
            log_theta += step
            share *= 1.0 - virtual * step  # ds / d(log theta) = -s (1 - s)
            break
        if high - low < 1e-13 * max(1.0, abs(log_theta)):
            break
        low, high = (log_theta, high) if step > 0 else (low, log_theta)
        log_theta += step
        if not low < log_theta < high:
            log_theta = 0.5 * (low + high)
    return log_theta, share


def evaluate(
    kernel: Kernel, a: Any, rho: float, f: float, log_target: np.ndarray, state: State, measure_diagonal: bool
) -> State:
    """Everything that (1) to (6) say at the potentials of ``state``; two passes over the kernel (N, K).

    a (N,), log_target (K,) = log(rho b). Without ``measure_diagonal`` the diagonal of (6) stays as it is.
    """
    if not len(state.b) or kernel.drifted(state.h):
        kernel.absorb(state.h)
    b = kernel.scaling(state.h)  # (K,)
    t = kernel.row_sums(b)  # (1), without the kernel's row shifts: (N,)
    log_theta, share = state.log_theta, 1.0
    if rho < 1.0:
        log_theta, share = virtual_weight(t, kernel.shift, a, rho, log_theta, kernel.arrays.eps)  # (2)
    u = a * share / t  # (3): Q = diag(u) kernel diag(b)
    # Root of the weights of W_jj: a_i s_i^2 / t_i^2 itself could overflow.
    sums, squares = kernel.column_sums(u, a**0.5 * share / t if measure_diagonal else None)  # (K,), (K,)
    underflowed = np.flatnonzero((sums * b <= kernel.negligible * sums.max()) & (b > 0))
    with np.errstate(divide="ignore"):
        log_columns = np.log(sums) + np.log(b)  # (3): log c_j
        if len(underflowed):
            log_columns[underflowed] = kernel.log_column_sums(underflowed, u) + np.log(b[underflowed])
    # (4): phi_j = (1 - f) h_j + f log(c_j / (rho b_j)); columns that must stay empty have none
    alive = b > 0
    phi = np.where(alive, (1.0 - f) * np.where(alive, state.h, 0.0), 0.0)
    if f > 0:
        phi[alive] += f * (log_columns[alive] - log_target[alive])
    # (5): r_j = mean of phi, weighted by c, minus phi_j
    weight = np.exp(log_columns - log_columns.max())
    residual = np.where(alive, (weight @ phi) / weight.sum() - phi, 0.0)
    diagonal = state.diagonal
    if squares is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            diagonal = np.where(sums > 0, squares * b / sums, 0.0)  # (6): W_jj / c_j
    return State(state.h, log_theta, u, share, b, log_columns, phi, residual, diagonal)


def scaled_sweep(state: State, f: float) -> np.ndarray:
    """The step d of (6), (K,); never longer than the larger of the sweep itself and 2."""
    r = state.residual
    if state.diagonal is None:
        return r
    step = r / (1.0 - f * np.clip(state.diagonal, 0.0, 0.999))  # (6)
    limit = np.maximum(np.abs(r), 2.0)
    return np.clip(step, -limit, limit)


def newton_step(kernel: Kernel, a: Any, f: float, state: State) -> np.ndarray:
    """The step delta of (8), (K,), at most 5 long. One product of N K^2: for problems on which (7) is slow."""
    u, b, share = state.u, state.b, state.share
    W = kernel.gram(a**0.5 * share / kernel.row_sums(b)) * b * b[:, None]  # Q^T diag(1/a) Q, (K, K)
    if not isinstance(share, float):
        p = kernel.column_sums(u * (1.0 - share))[0] * b  # Q^T (1 - s), (K,)
        W += np.outer(p, p) / max(float((a * share) @ (1.0 - share)), 1e-300)  # + p p^T / Z
    c = np.exp(state.log_columns)
    used = c > 1e-30
    J = np.eye(int(used.sum())) - f * W[np.ix_(used, used)] / c[used, None]  # (8)
    step = state.residual.copy()
    step[used] = np.linalg.lstsq(J, state.residual[used], rcond=1e-13)[0]  # J delta = r
    longest = float(np.abs(step).max())
    return step * min(1.0, 5.0 / longest) if longest > 0 else step


def solve(
    kernel: Kernel, a: Any, rho: float, f: float, log_target: np.ndarray, start: State, tol: float, max_iter: int
) -> tuple[State, list[float]]:
    """Iterate until max |r| < tol; returns the last state (whose ``u``, ``b`` make the plan) and max |r| per iteration.

    1. Evaluate (1) to (6).  2. Judge: a Newton step that does not help is cut once; a mixed step that makes the residual
    grow is taken back, and plain sweeps follow, which ascend the dual from anywhere.  3. Step: plain sweep, (8) or (7).
    """
    errors: list[float] = []
    steps: list[np.ndarray] = []  # the last d of (6), and the h at which they were taken
    points: list[np.ndarray] = []
    state, best, best_error = start, start, np.inf
    plain_sweeps, patience = 0, 1  # plain sweeps still to be made, and how many follow the next failure
    newton, cut = np.empty(0), 1.0  # the latest step if it was Newton's, and the part of it that was taken
    for iteration in range(max_iter):
        # 1.
        state = evaluate(kernel, a, rho, f, log_target, state, measure_diagonal=iteration in REFRESH)
        errors.append(float(np.abs(state.residual).max()))
        if errors[-1] < tol:
            return state, errors
        # 2.
        if errors[-1] < best_error or plain_sweeps:
            best, best_error, cut = state, errors[-1], 1.0
        elif len(newton) and cut > CUT:
            # Along a Newton step r shrinks in proportion, at first: a shorter one may be better than the best point.
            cut = CUT
            state = State(best.h + cut * newton, best.log_theta, b=best.b, diagonal=state.diagonal)
            continue
        elif not errors[-1] <= GROWTH * best_error:
            state, steps, points = best, [], []
            plain_sweeps, patience = patience, 2 * patience
        # 3.
        newton, cut = np.empty(0), 1.0
        if plain_sweeps:
            plain_sweeps -= 1
            h = state.h + state.residual  # (5)
        elif iteration >= NEWTON_AFTER:
            newton = newton_step(kernel, a, f, state)
            h = state.h + newton  # (8)
        else:
            step = scaled_sweep(state, f)
            steps, points = [*steps, step][-MEMORY:], [*points, state.h][-MEMORY:]
            h = state.h + step + mixing(steps, points)  # (7)
        state = State(h, state.log_theta, b=state.b, diagonal=state.diagonal)
    # The best state again: the kernel may have been built anew since.
    state = evaluate(kernel, a, rho, f, log_target, best, measure_diagonal=False)
    return state, [*errors, float(np.abs(state.residual).max())]


def mixing(steps: list[np.ndarray], points: list[np.ndarray]) -> np.ndarray:
    """Anderson's correction in (7), (K,): the combination of past differences that best cancels the latest step."""
    if len(steps) < 2:
        return np.zeros_like(steps[0])
    alive = np.isfinite(points[-1])
    delta_d = np.diff(np.array(steps)[:, alive], axis=0)  # (m - 1, K)
    delta_h = np.diff(np.array(points)[:, alive], axis=0)  # (m - 1, K)
    # (7): w = argmin |d - sum_k w_k delta_d_k|. Truncated pseudo-inverse: differences become parallel, or zero, near
    # convergence and under a warm start.
    w = np.linalg.lstsq(delta_d.T, steps[-1][alive], rcond=1e-8)[0]
    correction = np.zeros(len(alive))
    correction[alive] = -w @ (delta_d + delta_h)
    return correction
