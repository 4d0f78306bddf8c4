"""SP2OT: partial transport whose plan is pulled towards "neighbours share a label" (arXiv 2404.03446).

The pull is quadratic. Majorize-minimize replaces it by its tangent at the current plan, which leaves a partial transport
problem with another cost (equations of this file; C is called M in signatures, as in POT)::

    (1)  F(Q) = <Q, C> - lambda <S, Q Q^T> + gamma KL(Q^T 1 || rho b) + eps sum Q~ (log Q~ - 1)
    (2)  Q^0 = rho a b^T
    (3)  C^t = C - lambda (S + S^T) Q^t,   Q^{t+1} = argmin of partial transport with the cost C^t
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from lab.clustering.sp2ot.arrays import Arrays
from lab.clustering.sp2ot.similarity import as_csr, on_device, symmetrised
from lab.clustering.sp2ot.transport import check_cost, check_weights, partial_uot

TERMS = ("transport", "semantic", "column_kl", "entropy")


def relative_weight(semantic_weight: float, n: int, rho: float) -> float:
    r"""Absolute weight of the semantic term from a weight per sample, fading as the mass grows.

    .. math:: \lambda_1 = w\,N\,(1-\rho)

    A plan's entries are of size 1/N, so the shift :math:`\lambda_1(S+S^T)Q` of the cost does not depend on N when
    :math:`\lambda_1` is proportional to N. The published runs use an absolute 1000 with a buffer of 5120 samples, that
    is w = 1000 / 5120 = 0.195.

    Parameters
    ----------
    semantic_weight : float >= 0
        w, in the unit of the cost.
    n : int >= 1
        Number of samples N.
    rho : float in [0, 1]
        Transported mass.

    Returns
    -------
    float
        :math:`\lambda_1`, in the unit of the cost times N.

    Raises
    ------
    ValueError
        For an argument out of range, naming it.

    Examples
    --------
    >>> round(relative_weight(1000 / 5120, 5120, rho=0.1), 6)
    900.0
    """
    if not 0 <= semantic_weight < np.inf:
        raise ValueError(f"semantic_weight={semantic_weight!r} must be finite and >= 0")
    if n < 1:
        raise ValueError(f"n={n!r} must be a number of samples, at least 1")
    if not 0.0 <= rho <= 1.0:
        raise ValueError(f"rho={rho!r} is not a mass: it must lie in [0, 1]")
    return float(semantic_weight) * int(n) * (1.0 - float(rho))


def sp2ot_plan(
    M: Any,
    S: Any,
    rho: float,
    lam: float,
    *,
    reg: float = 0.1,
    reg_m: float = 1.0,
    a: Any = None,
    b: Any = None,
    max_mm: int = 100,
    mm_tol: float = 1e-6,
    psd_shift: bool = False,
    warm_start: Any = None,
    method: str = "anderson",
    tol: float = 1e-6,
    max_iter: int = 1000,
    log: bool = False,
) -> Any:
    r"""Plan of semantic-regularised partial transport, by majorize-minimize.

    .. math:: \min_Q\ F(Q)=\langle Q,M\rangle-\lambda\langle S,QQ^T\rangle+\gamma\,KL(Q^T1\,\|\,\rho b)
              +\varepsilon\sum\tilde Q(\log\tilde Q-1)\quad\text{s.t. } Q\ge 0,\ Q1\le a,\ 1^TQ1=\rho.

    From :math:`Q^0=\rho\,ab^T`, each step solves partial transport with the cost :math:`M-\lambda(S+S^T)Q^t`, warm
    started. F includes the entropy of the virtual column: it is what each step decreases.

    **When it descends.** The tangent lies above the pull only if S is positive semidefinite. A kNN similarity with zero
    diagonal never is (its trace is 0): F may rise, or swing between two plans for ever. The log lists every rise.
    ``psd_shift`` adds c to the diagonal of S, with c from Gershgorin's discs, and F then never rises. It is not free: F
    gains the term :math:`-\lambda c\|Q\|^2`, which rewards few, large entries: a sharper plan, more bound to its start.

    Parameters
    ----------
    M, rho, reg, reg_m, a, b, warm_start, method, tol, max_iter
        As in :func:`lab.clustering.sp2ot.transport.partial_uot`; the last four govern each inner solve.
    S : (N, N) scipy sparse, array or torch tensor (dense or sparse), >= 0
        Similarity, for instance :func:`knn_similarity`; only S + S^T is used.
    lam : float >= 0
        Absolute weight :math:`\lambda`, unit of the cost times N; see :func:`relative_weight`. 0 gives partial_uot.
    max_mm, mm_tol : int, float
        Largest number of steps; stop when F changes by less than mm_tol.
    psd_shift : bool
        See above.
    log : bool
        Also return the dictionary below.

    Returns
    -------
    Q : array (N, K)
        The plan, in the library and dtype of ``M``.
    log : dict, if ``log=True``
        ``objective``: F of the start and after each step; ``terms``: for each of the four terms the same history;
        ``rises``: the steps (index into ``objective``) at which F rose by more than rounding; ``shift``: c, or 0;
        ``n_mm``, ``n_iter`` (inner iterations in all); ``converged`` (steps and last inner solve); ``g``, ``residual``,
        ``mass`` of the last inner solve.

    Raises
    ------
    ValueError
        For an argument out of range, naming it. A ConvergenceWarning where F still rises at the last steps.

    References
    ----------
    Zhang, Ren, He: SP2OT (arXiv 2404.03446), majorize-minimize.

    Examples
    --------
    >>> import numpy as np
    >>> M, S = np.array([[0.0, 2.0], [1.0, 1.1], [2.0, 0.0]]), np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0.0]])
    >>> [float(sp2ot_plan(M, S, 0.9, lam)[1, 0].round(3)) for lam in (0.0, 1.0)]
    [0.133, 0.222]
    """
    _check_steps(lam, max_mm, mm_tol)
    M, arrays = check_cost(M)
    T, shift = symmetrised(as_csr(S, len(M)), psd_shift)  # S + S^T, (N, N)
    T = on_device(T, arrays)
    solver = {"reg": reg, "reg_m": reg_m, "a": a, "b": b, "method": method, "tol": tol, "max_iter": max_iter}
    if lam == 0:
        max_mm = 1
    rows, shares = check_weights("a", a, len(M), arrays), check_weights("b", b, M.shape[1], arrays)
    Q = arrays.put(rho * rows[:, None] * shares)  # (2), (N, K)
    pull = T @ Q
    history = [_terms(Q, M, pull, rho, lam, reg, reg_m, rows, shares, arrays)]
    objectives = [sum(history[0])]
    g, n_iter, inner, settled = warm_start, 0, {}, lam == 0
    for _ in range(max_mm):
        # (3)
        Q, inner = partial_uot(M - lam * pull if lam else M, rho, warm_start=g, log=True, **solver)
        g, n_iter = inner["g"], n_iter + inner["n_iter"]
        pull = T @ Q
        history.append(_terms(Q, M, pull, rho, lam, reg, reg_m, rows, shares, arrays))
        objectives.append(sum(history[-1]))
        settled = settled or abs(objectives[-1] - objectives[-2]) < mm_tol
        if settled:
            break
    rounding = max(1e-9, 64 * arrays.eps * max(1.0, abs(objectives[-1])))
    rises = [i for i in range(1, len(objectives)) if objectives[i] > objectives[i - 1] + rounding]
    if not settled and rises and rises[-1] >= len(objectives) - 2:
        _warn(objectives, psd_shift)
    if not log:
        return Q
    return Q, {
        "objective": objectives,
        "terms": {name: [h[i] for h in history] for i, name in enumerate(TERMS)},
        "rises": rises,
        "shift": shift,
        "n_mm": len(objectives) - 1,
        "n_iter": n_iter,
        "g": g,
        "converged": settled and inner["converged"],
        "residual": inner["residual"],
        "mass": float(Q.sum()),
    }


def objective(
    Q: Any, M: Any, S: Any, rho: float, lam: float, reg: float = 0.1, reg_m: float = 1.0, a: Any = None, b: Any = None
) -> dict[str, float]:
    r"""The four terms of F at a plan, and their sum.

    .. math:: F(Q)=\langle Q,M\rangle-\lambda\langle S,QQ^T\rangle+\gamma\,KL(Q^T1\,\|\,\rho b)
              +\varepsilon\sum\tilde Q(\log\tilde Q-1)

    Parameters
    ----------
    Q : array (N, K)
        Plan.
    M, S, rho, lam, reg, reg_m, a, b
        As in :func:`sp2ot_plan`.

    Returns
    -------
    dict
        ``transport``, ``semantic``, ``column_kl``, ``entropy`` and ``total``, in the unit of the cost. ``column_kl`` is 0
        for hard columns (``reg_m=inf``): the constraint is taken as met. ``entropy`` includes the virtual column.

    Raises
    ------
    ValueError
        For shapes that do not match and for a bad S.

    Examples
    --------
    >>> import numpy as np
    >>> objective(np.full((2, 2), 0.25), np.ones((2, 2)), np.eye(2), 1.0, 2.0)["semantic"]
    -0.5
    """
    M, arrays = check_cost(M)
    Q = arrays.put(Q)
    if tuple(Q.shape) != tuple(M.shape):
        raise ValueError(f"Q has shape {tuple(Q.shape)}: it must be {tuple(M.shape)}, as M")
    T = on_device(symmetrised(as_csr(S, len(M)), False)[0], arrays)
    rows, shares = check_weights("a", a, len(M), arrays), check_weights("b", b, M.shape[1], arrays)
    terms = _terms(Q, M, T @ Q, rho, lam, reg, reg_m, rows, shares, arrays)
    return {**dict(zip(TERMS, terms, strict=True)), "total": sum(terms)}


def _terms(
    Q: Any, M: Any, pull: Any, rho: float, lam: float, reg: float, reg_m: float, rows: Any, shares: Any, arrays: Arrays
) -> list[float]:
    """The terms of (1) in the order of TERMS, summed in float64 over blocks of rows; ``pull`` (N, K) is (S + S^T) Q."""
    xp = arrays.xp
    columns, transport, semantic, entropy = 0.0, 0.0, 0.0, 0.0
    step = max(1, 2**18 // M.shape[1])
    for start in range(0, len(M), step):
        block = slice(start, start + step)
        q = arrays.put(Q[block], double=True)
        columns = columns + q.sum(0)
        transport += float((q * arrays.put(M[block], double=True)).sum())
        semantic -= (
            lam / 2 * float((q * arrays.put(pull[block], double=True)).sum())
        )  # <S, QQ^T> = <Q, (S + S^T) Q> / 2
        entropy += reg * float(_xlogx(q, xp).sum() - q.sum())
        if rho < 1:
            v = xp.clip(rows[block] - q.sum(1), 0.0, None)  # the virtual column
            entropy += reg * float(_xlogx(v, xp).sum() - v.sum())
    c, target = arrays.host(columns), rho * arrays.host(shares)
    if np.isinf(reg_m) or reg_m == 0:
        return [transport, semantic, 0.0, entropy]
    used = c > 0
    with np.errstate(divide="ignore"):
        kl = float((c[used] * np.log(c[used] / target[used])).sum() - c.sum() + target.sum())
    return [transport, semantic, reg_m * kl, entropy]


def _xlogx(x: Any, xp: Any) -> Any:
    return x * xp.log(xp.where(x > 0, x, xp.ones_like(x)))


def _warn(objectives: list[float], psd_shift: bool) -> None:
    from sklearn.exceptions import ConvergenceWarning

    advice = "a lower lam" + ("" if psd_shift else ", or psd_shift=True")
    warnings.warn(
        f"sp2ot_plan has not settled after {len(objectives) - 1} steps: the objective still rises (last change "
        f"{objectives[-1] - objectives[-2]:.2g}), as it may where S is not positive semidefinite; try {advice}",
        ConvergenceWarning,
        stacklevel=3,
    )


def _check_steps(lam: float, max_mm: int, mm_tol: float) -> None:
    if not 0 <= lam < np.inf:
        raise ValueError(f"lam={lam!r} must be finite and >= 0")
    if max_mm < 1:
        raise ValueError(f"max_mm={max_mm!r} must be at least 1")
    if not mm_tol >= 0:
        raise ValueError(f"mm_tol={mm_tol!r} must be >= 0")
