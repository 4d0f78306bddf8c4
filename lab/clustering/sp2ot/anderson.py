r"""The fast solver: K column potentials, the virtual column solved exactly, curvature-scaled Anderson steps.

Given column potentials :math:`h\in R^K` the rest follows: the virtual column's weight :math:`\theta` is the root of one
monotone equation, the mass constraint, and the rows are normalised,

.. math:: t_i=\sum_j e^{h_j-C_{ij}/\varepsilon},\quad \sum_i a_i\frac{t_i}{t_i+\theta}=\rho,\quad
          Q_{ij}=a_i\frac{e^{h_j-C_{ij}/\varepsilon}}{t_i+\theta},\quad c_j=\sum_i Q_{ij}.

What remains is to make :math:`\varphi_j=(1-f)h_j+f\log(c_j/\rho b_j)` the same for all columns, with
:math:`f=\gamma/(\gamma+\varepsilon)`: the first-order condition divided by :math:`\gamma+\varepsilon`. One sweep of
plain scaling moves h by :math:`r=\bar\varphi-\varphi`. Here the sweep is divided by the diagonal of its Jacobian,
:math:`1-f\,W_{jj}/c_j` with :math:`W_{jj}=\sum_i Q_{ij}^2/a_i`, and the last six sweeps are combined by Anderson's
method (D. G. Anderson 1965; type II in Walker & Ni 2011). The virtual column, which makes plain scaling slow at small
:math:`\rho`, is no longer part of the iteration. Problems that are still unsolved after 16 sweeps, close to linear
programs or with nearly hard columns, go on with Newton steps on the whole Jacobian."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lab.clustering.sp2ot.kernel import Kernel

MEMORY = 6
NEWTON_AFTER = 16  # sweeps; few problems need more, and those that do are ill-conditioned
CUT = 0.25  # a Newton step that does not help is tried at this part of its length, then left for plain sweeps
GROWTH = 2.0  # an accelerated step that multiplies the residual by more than this is taken back
REFRESH = frozenset((0, 2, 8, 32, 128, 512))  # iterations at which the curvature is measured anew


@dataclass
class Potentials:
    """Where the iteration stands: potentials, the plan's column sums and the residual they imply."""

    h: np.ndarray
    log_theta: float
    u: Any = None
    fraction: Any = 1.0
    b: np.ndarray = field(default_factory=lambda: np.empty(0))
    log_columns: np.ndarray = field(default_factory=lambda: np.empty(0))
    phi: np.ndarray = field(default_factory=lambda: np.empty(0))
    residual: np.ndarray = field(default_factory=lambda: np.empty(0))
    curvature: np.ndarray | None = None


def virtual_weight(t: Any, shift: Any, a: Any, rho: float, log_theta: float, eps: float) -> tuple[float, Any]:
    r"""Root :math:`\theta` of the mass constraint; returns its logarithm and the real fractions t/(t + theta), (N,).

    Rows weigh ``t * exp(shift)``, or ``t`` where ``shift`` is None. Newton on the logarithm of the smaller of the two
    masses, inside a bracket that shrinks; the root is no more than 40 away from the lightest and the heaviest row. The
    last step is taken along the tangent, whose error is the step squared: it may be as long as the root of ``eps``.
    """
    short = 0.3 * eps**0.5
    xp = np if isinstance(t, np.ndarray) else sys.modules["torch"]
    shifted = shift is not None
    weight = xp.log(t) + shift if shifted else 1.0 / t
    ends = (weight.min(), weight.max()) if shifted else (np.log(float(t.min())), np.log(float(t.max())))
    low, high = float(ends[0]) - 40.0, float(ends[1]) + 40.0
    if not low < log_theta < high:
        log_theta = 0.5 * (low + high)
    for _ in range(200):
        virtual = xp.exp(xp.clip(log_theta - weight, -600.0, 600.0)) if shifted else weight * np.exp(log_theta)
        real = 1.0 / (1.0 + virtual)
        virtual *= real
        weighted = a * real
        slope = max(float(weighted @ virtual), 1e-300)  # -d(real mass)/d(log theta)
        if rho < 0.5:
            mass = float(weighted.sum())
            step = np.log(max(mass, 1e-300) / rho) * mass / slope
        else:
            mass = float(a @ virtual)
            step = np.log((1.0 - rho) / max(mass, 1e-300)) * mass / slope
        if abs(step) < short:
            log_theta += step
            real *= 1.0 - virtual * step
            break
        if high - low < 1e-13 * max(1.0, abs(log_theta)):
            break
        low, high = (log_theta, high) if step > 0 else (low, log_theta)
        log_theta += step
        if not low < log_theta < high:
            log_theta = 0.5 * (low + high)
    return log_theta, real


def evaluate(
    kernel: Kernel, a: Any, rho: float, f: float, log_target: np.ndarray, at: Potentials, curvature: bool
) -> Potentials:
    """Rows, virtual column, column sums and residual at the potentials ``at``; two passes over the kernel."""
    if not len(at.b) or kernel.drifted(at.h):
        kernel.absorb(at.h)
    b = kernel.scaling(at.h)
    t = kernel.row_sums(b)
    log_theta, fraction = at.log_theta, 1.0
    if rho < 1.0:
        log_theta, fraction = virtual_weight(t, kernel.shift, a, rho, log_theta, kernel.arrays.eps)
    u = a * fraction / t
    sums, squares = kernel.column_sums(u, a**0.5 * fraction / t if curvature else None)  # 1 / t**2 could overflow
    lost = np.flatnonzero((sums * b <= kernel.negligible * sums.max()) & (b > 0))
    with np.errstate(divide="ignore"):
        log_columns = np.log(sums) + np.log(b)
        if len(lost):
            log_columns[lost] = kernel.log_column_sums(lost, u) + np.log(b[lost])
    alive = b > 0
    phi = np.where(alive, (1.0 - f) * np.where(alive, at.h, 0.0), 0.0)
    if f > 0:
        phi[alive] += f * (log_columns[alive] - log_target[alive])
    share = np.exp(log_columns - log_columns.max())
    residual = np.where(alive, (share @ phi) / share.sum() - phi, 0.0)
    saturation = at.curvature
    if squares is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            saturation = np.where(sums > 0, squares * b / sums, 0.0)
    return Potentials(at.h, log_theta, u, fraction, b, log_columns, phi, residual, saturation)


def scaled_sweep(at: Potentials, f: float) -> np.ndarray:
    """One sweep divided by the diagonal of its Jacobian; never longer than the larger of the sweep itself and 2."""
    r = at.residual
    if at.curvature is None:
        return r
    step = r / (1.0 - f * np.clip(at.curvature, 0.0, 0.999))
    limit = np.maximum(np.abs(r), 2.0)
    return np.clip(step, -limit, limit)


def newton_step(kernel: Kernel, a: Any, f: float, at: Potentials) -> np.ndarray:
    r"""Step that solves :math:`J\delta=r` with :math:`J=I-f\,\mathrm{diag}(1/c)\,(W+pp^T/Z)`, the Jacobian of phi.

    :math:`W=Q^T\mathrm{diag}(1/a)Q`; with the virtual shares v, :math:`p=Q^Tv` and :math:`Z=\sum_i a_iv_i(1-v_i)` stand
    for the virtual column's answer. One product of N K^2, so only for problems on which the cheap steps are slow.
    """
    u, b, share = at.u, at.b, at.fraction
    W = kernel.gram(a**0.5 * share / kernel.row_sums(b)) * b * b[:, None]
    if not isinstance(share, float):
        p = kernel.column_sums(u * (1.0 - share))[0] * b
        W += np.outer(p, p) / max(float((a * share) @ (1.0 - share)), 1e-300)
    c = np.exp(at.log_columns)
    used = c > 1e-30
    J = np.eye(int(used.sum())) - f * W[np.ix_(used, used)] / c[used, None]
    step = at.residual.copy()
    step[used] = np.linalg.lstsq(J, at.residual[used], rcond=1e-13)[0]
    longest = float(np.abs(step).max())
    return step * min(1.0, 5.0 / longest) if longest > 0 else step


def solve(
    kernel: Kernel, a: Any, rho: float, f: float, log_target: np.ndarray, start: Potentials, tol: float, max_iter: int
) -> tuple[Potentials, list[float]]:
    """Iterate until max |r| < tol; returns the last state (whose ``u``, ``b`` make the plan) and the residuals."""
    errors: list[float] = []
    steps: list[np.ndarray] = []
    points: list[np.ndarray] = []
    at, best, best_error = start, start, np.inf
    plain_left, patience = 0, 1
    direction, cut = np.empty(0), 1.0
    for it in range(max_iter):
        at = evaluate(kernel, a, rho, f, log_target, at, curvature=it in REFRESH)
        errors.append(float(np.abs(at.residual).max()))
        if errors[-1] < tol:
            return at, errors
        if errors[-1] < best_error or plain_left:
            best, best_error, cut = at, errors[-1], 1.0
        elif len(direction) and cut > CUT:
            # Along a Newton step r shrinks in proportion, at first: a shorter one may be better than the best point.
            cut = CUT
            at = Potentials(best.h + cut * direction, best.log_theta, b=best.b, curvature=at.curvature)
            continue
        elif not errors[-1] <= GROWTH * best_error:
            # Back to the best point. Plain sweeps ascend the dual from anywhere; each failure asks for more of them.
            at, steps, points = best, [], []
            plain_left, patience = patience, 2 * patience
        direction, cut = np.empty(0), 1.0
        if plain_left:
            plain_left -= 1
            h = at.h + at.residual
        elif it >= NEWTON_AFTER:
            direction = newton_step(kernel, a, f, at)
            h = at.h + direction
        else:
            step = scaled_sweep(at, f)
            steps, points = [*steps, step][-MEMORY:], [*points, at.h][-MEMORY:]
            h = at.h + step + mixing(steps, points)
        at = Potentials(h, at.log_theta, b=at.b, curvature=at.curvature)
    at = evaluate(kernel, a, rho, f, log_target, best, curvature=False)  # the kernel may have been built again since
    return at, [*errors, float(np.abs(at.residual).max())]


def mixing(steps: list[np.ndarray], points: list[np.ndarray]) -> np.ndarray:
    """Anderson's correction: the combination of past differences that best cancels the latest step."""
    if len(steps) < 2:
        return np.zeros_like(steps[0])
    alive = np.isfinite(points[-1])
    ds = np.diff(np.array(steps)[:, alive], axis=0)
    dp = np.diff(np.array(points)[:, alive], axis=0)
    # Truncated pseudo-inverse: differences become parallel, or zero, near convergence and under a warm start.
    weights = np.linalg.lstsq(ds.T, steps[-1][alive], rcond=1e-8)[0]
    out = np.zeros(len(alive))
    out[alive] = -weights @ (ds + dp)
    return out
