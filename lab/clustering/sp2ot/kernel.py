"""The N x K work of partial transport: a Gibbs kernel that cannot overflow, kept in the memory of the plan.

::

    (1)  M_ij = exp(h0_j - C_ij / eps - z_i)
    (2)  Q_ij = u_i M_ij b_j,   b_j = exp(h_j - h0_j)

The column potentials h0 of the moment the kernel is built are absorbed in it; later potentials h enter through b until
they have drifted too far and the kernel is built again. Row shifts z (the largest exponent of a row) are used only in
blocks of rows that would leave the range of the dtype without them; elsewhere they are 0. Absorption after B. Schmitzer,
"Stabilized sparse scaling algorithms for entropy regularized transport problems" (arXiv 1610.06519).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lab.clustering.sp2ot.arrays import Arrays

BLOCK_ELEMENTS = 2**18  # per block of rows: fits the second-level cache of a CPU core
# Threads of a small matrix-vector product wait for each other: on a busy machine that was 50 times the product itself.
# Blocks are small enough to stay in one thread; from this size on, threads pay.
WHOLE_ELEMENTS = 2**23
DEVICE_BLOCK_ELEMENTS = 2**26  # on an accelerator fewer, larger blocks


def _lift(largest: float, exponent: int) -> float:
    """The power of two that brings ``largest`` to about 2 ** ``exponent``: exact, and products of small numbers stay
    normal ones. Subnormal products are a hundred times slower on some processors."""
    return 2.0 ** (exponent - math.frexp(largest)[1]) if largest > 0 and math.isfinite(largest) else 1.0


class Kernel:
    """Kernel (N, K) of ``cost`` at temperature ``reg``; ``values`` becomes the plan by :meth:`into_plan`.

    values (N, K): M of (1); absorbed (K,): h0; shift (N,): z, or None where all are 0.

    Raises ValueError for a cost that is not finite (seen while the first kernel is built, so it costs no extra pass).
    """

    def __init__(self, cost: Any, reg: float, arrays: Arrays) -> None:
        self.cost, self.reg, self.arrays = cost, reg, arrays
        n, k = cost.shape
        on_cpu = arrays.device is None or arrays.device.type == "cpu"
        rows = max(1, (BLOCK_ELEMENTS if on_cpu else DEVICE_BLOCK_ELEMENTS) // k)
        self.blocks = [slice(i, min(i + rows, n)) for i in range(0, n, rows)]
        self.values = arrays.empty((n, k))
        single = arrays.eps > 1e-10
        # exp() is safe within +-88 (float32) or +-708 (float64): half for the kernel, the rest for the drift.
        self.safe_exponent, self.drift = (40.0, 16.0) if single else (300.0, 150.0)
        self.negligible = 1e-30 if single else 1e-250
        self.absorbed = np.zeros(k)
        self.shift: Any = None  # float64 where some block needed row shifts
        self.largest = -np.inf  # no entry of values has a larger logarithm

    def absorb(self, h: np.ndarray) -> None:
        """(1): build ``values`` at h0 = ``h`` (K,); entries -inf stand for columns that must stay empty."""
        xp, put = self.arrays.xp, self.arrays.put
        self.absorbed, self.shift, self.largest = h.copy(), None, -np.inf
        top = float(h.max())
        row = put(h)
        ones = put(np.ones(len(h)))
        scale = -1.0 / self.reg if self.arrays.device is not None else self.arrays.dtype.type(-1.0 / self.reg)
        for rows in self.blocks:
            x = self.values[rows]  # (rows, K), a view: what is written to it is the kernel
            xp.multiply(self.cost[rows], scale, out=x)
            low, high = float(x.min()), float(x.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ValueError("M has a cost that is NaN or infinite, or overflows when divided by reg")
            if h.any():
                x += row
            if high + top < self.safe_exponent:
                xp.exp(x, out=x)
                if float((x @ ones).min()) > np.exp(-self.safe_exponent):
                    self.largest = max(self.largest, high + top)
                    continue
                xp.multiply(self.cost[rows], scale, out=x)
                x += row
            self._shifted_exp(rows, x)

    def _shifted_exp(self, rows: slice, x: Any) -> None:
        """(1) in a block whose exponents ``x`` leave the range: z_i is the largest of row i."""
        xp = self.arrays.xp
        if self.shift is None:
            self.shift = self.arrays.put(np.zeros(len(self.values)), double=True)
        peak = xp.amax(x, 1)
        x -= peak[:, None]
        xp.exp(x, out=x)
        self.shift[rows] = peak
        self.largest = max(self.largest, 0.0)

    def drifted(self, h: np.ndarray) -> bool:
        """True when ``h`` is too far from the absorbed potentials for the kernel to be accurate."""
        alive = np.isfinite(self.absorbed)
        return bool(np.abs(h[alive] - self.absorbed[alive]).max() > self.drift)

    def scaling(self, h: np.ndarray) -> np.ndarray:
        """Column scalings b of (2), (K,), zero for columns that must stay empty."""
        alive = np.isfinite(self.absorbed)
        return np.exp(np.where(alive, h, 0.0) - np.where(alive, self.absorbed, 0.0)) * alive

    def row_sums(self, b: np.ndarray) -> Any:
        """``values @ b``, (N,) float64: the weight of all real columns in each row, divided by exp(z)."""
        b = self.arrays.put(b)
        if self.values.shape[0] * self.values.shape[1] >= WHOLE_ELEMENTS:
            return self.arrays.put(self.values @ b, double=True)
        out = self.arrays.empty((len(self.values),))
        for rows in self.blocks:
            self.arrays.xp.matmul(self.values[rows], b, out=out[rows])
        return self.arrays.put(out, double=True)

    def column_sums(self, u: Any, root: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
        """``u @ values`` and, given row weights ``root``, ``((root * values)**2).sum(0)``; both (K,) float64."""
        put, host, xp = self.arrays.put, self.arrays.host, self.arrays.xp
        lift = _lift(float(u.max()), 40)  # divided out at the end, as all powers of two below
        u = put(u * lift)
        total = np.zeros(self.values.shape[1])
        if root is None:
            for rows in self.blocks:
                total += host(u[rows] @ self.values[rows])
            return total / lift, None
        # (root M)^2 = weight (factor M)^2: weights as squares of root where these fit the dtype, else root as the factor
        squares = np.zeros_like(total)
        scratch = self.arrays.empty(self.values[self.blocks[0]].shape)
        safe = float(root.max()) < float(xp.finfo(self.arrays.dtype).max) ** 0.5
        weight, scale = (root * root, _lift(float(np.exp(self.largest)), 60)) if safe else (xp.ones_like(root), 1.0)
        over = _lift(float(weight.max()), -20 if safe else 0)
        weight, factors = put(weight * over), put(xp.full_like(root, scale) if safe else root)[:, None]
        for rows in self.blocks:
            x = self.values[rows]
            total += host(u[rows] @ x)
            y = xp.multiply(x, factors[rows], out=scratch[: len(x)])
            squares += host(weight[rows] @ xp.multiply(y, y, out=y))
        return total / lift, squares / over / scale / scale

    def gram(self, root: Any) -> np.ndarray:
        """(root * values).T @ (root * values), (K, K) float64, for row weights ``root``."""
        root = self.arrays.put(root)
        total = np.zeros((self.values.shape[1],) * 2)
        for rows in self.blocks:
            x = self.values[rows] * root[rows, None]
            total += self.arrays.host(x.T @ x)
        return total

    def log_column_sums(self, columns: np.ndarray, u: Any) -> np.ndarray:
        """log(u @ values) of a few columns whose entries have underflowed, from the cost itself, in float64."""
        xp, out = self.arrays.xp, np.empty(len(columns))
        shift = 0.0 if self.shift is None else self.shift
        used = u > 0
        log_u = xp.log(u[used])
        for i, j in enumerate(columns):
            z = log_u + (-shift - self.arrays.put(self.cost[:, int(j)], double=True) / self.reg)[used]
            peak = float(z.max())
            out[i] = peak + np.log(float(xp.exp(z - peak).sum())) + self.absorbed[j]
        return out

    def into_plan(self, u: Any, b: np.ndarray) -> Any:
        """(2): turn ``values`` into the plan diag(u) values diag(b), in place, and return it."""
        u, b = self.arrays.put(u), self.arrays.put(b)
        for rows in self.blocks:
            x = self.values[rows]
            x *= u[rows, None]
            x *= b
        return self.values
