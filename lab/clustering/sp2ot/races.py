"""How fast is the solver, against plain scaling and against POT, on the reader's own machine?

Synthetic long-tailed predictions, K = 100 clusters, float32, two threads. Method and peer run in one process, in turns,
several times; what is reported is the ratio of their seconds. Plain scaling is charged for exactly the iterations after
which its plan first comes within the error, not for its own stop rule; the solver's public call is timed as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from lab.clustering.sp2ot.peers import CLUSTERS, long_tailed_cost, plain_scaling, pot_unbalanced
from lab.clustering.sp2ot.transport import partial_uot
from lab.experiment import Progress, no_progress, race
from lab.racing import answer, paired, row, threads

THREADS = 2
ERROR = 1e-6  # L1 distance of the plan from the float64 reference; the plan's mass is rho
TOLERANCES = [1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6]
SIZES, MASSES = (10_000, 30_000), (0.2, 0.5, 0.9)
ROWS = (*(f"scaling-{n}-{rho}" for n in SIZES for rho in MASSES), f"pot-{SIZES[0]}-1.0")
MEMORY_PROBE = """
import sys, time
import numpy as np
from lab.clustering.sp2ot.peers import long_tailed_cost
from lab.clustering.sp2ot.transport import partial_uot
from lab.racing import peak_memory
partial_uot(np.ones((200, 100), np.float32), 0.5)
with peak_memory() as peak:
    M = long_tailed_cost(int(sys.argv[1]))
    start = time.perf_counter()
    Q = partial_uot(M, 0.5)
    seconds = time.perf_counter() - start
print(peak.most / M.nbytes, seconds)
"""


def loosest(solve: Callable[[Any], np.ndarray], settings: list[Any], reference: np.ndarray) -> tuple[Any, float] | None:
    """First setting, from loose to tight, whose plan is within ERROR of the reference, and its error."""
    for setting in settings:
        error = float(np.abs(solve(setting) - reference).sum())
        if error <= ERROR:
            return setting, error
    return None


def sweeps_needed(M: np.ndarray, rho: float, reference: np.ndarray, most: int = 6400) -> tuple[int, float] | None:
    """Fewest sweeps of plain scaling within ERROR, to 3 %, and the error; None if the dtype's rounding forbids it."""
    high = 25
    while float(np.abs(plain_scaling(M, rho, high) - reference).sum()) > ERROR:
        high *= 2
        if high > most:
            return None
    low = high // 2
    while high - low > max(1, high // 32):
        middle = (low + high) // 2
        close = float(np.abs(plain_scaling(M, rho, middle) - reference).sum()) <= ERROR
        low, high = (low, middle) if close else (middle, high)
    return high, float(np.abs(plain_scaling(M, rho, high) - reference).sum())


@race("solver", "The solver against plain scaling and POT", rows=ROWS)
def solver(*, quick: bool = False, progress: Progress = no_progress) -> dict[str, Any]:
    """The solver against plain scaling at several masses, and against POT at full mass, each at a plan error of 1e-6.

    A peer that cannot reach it in float32 is run in float64, and the row says so. Besides the rows: ``memory``, the peak of
    a fresh process in N x K matrices (input included); ``exponent``, the slope of log seconds over log N; ``million``, the
    solve of 1e6 samples. ``quick`` repeats less often and leaves the million out (None).
    """
    repeats = 5 if quick else 9
    rows: list[dict[str, Any]] = []
    with threads(THREADS):
        for n, rho in product(SIZES, MASSES):
            progress(0.6 * len(rows) / len(ROWS), f"plain scaling, N={n}, rho={rho}")
            rows.append(_against_scaling(n, rho, repeats))
        progress(0.6, "POT at full mass")
        rows.append(_against_pot(SIZES[0], repeats))
        progress(0.7, "growth with N")
        growth = {n: _seconds(n) for n in ((10_000, 30_000, 100_000) if quick else (10_000, 100_000, 1_000_000))}
    progress(0.9, "memory")
    memory = {"100000": _memory(100_000)[0]}
    million = None
    if not quick:
        matrices, seconds = _memory(1_000_000)
        million = {"seconds_first_call": seconds, "seconds_repeated": growth[1_000_000], "peak_matrices": matrices}
    progress(1.0, "done")
    return answer(
        rows,
        threads=THREADS,
        error=ERROR,
        memory=memory,
        million=million,
        seconds={str(n): seconds for n, seconds in growth.items()},
        exponent=float(np.polyfit(np.log(list(growth)), np.log(list(growth.values())), 1)[0]),
    )


def _against_scaling(n: int, rho: float, repeats: int) -> dict[str, Any]:
    """A row: the solver at its loosest tolerance within ERROR, plain scaling with its fewest sweeps within ERROR."""
    M = long_tailed_cost(n)
    double = M.astype(np.float64)
    reference = partial_uot(double, rho, tol=1e-13)
    own = loosest(lambda tol: partial_uot(M, rho, tol=tol), TOLERANCES, reference)
    if own is None:
        raise RuntimeError(f"the solver does not reach an error of {ERROR} in float32 at N={n}, rho={rho}")
    needed, peer_cost = sweeps_needed(M, rho, reference), M
    if needed is None:
        needed, peer_cost = sweeps_needed(double, rho, reference), double
    if needed is None:
        raise RuntimeError(f"plain scaling does not reach an error of {ERROR} in 6400 sweeps at N={n}, rho={rho}")
    info = partial_uot(M, rho, tol=own[0], log=True)[1]
    timed = paired(
        lambda: partial_uot(M, rho, tol=own[0]), lambda: plain_scaling(peer_cost, rho, needed[0]), repeats, warm=True
    )
    return row(
        f"scaling-{n}-{rho}",
        "partial_uot, float32",
        f"plain scaling, {peer_cost.dtype}",
        10.0 if rho <= 0.5 else 5.0,
        timed,
        n=n,
        k=CLUSTERS,
        rho=rho,
        error_method=own[1],
        error_peer=needed[1],
        iterations_method=info["n_iter"],
        iterations_peer=needed[0],
    )


def _against_pot(n: int, repeats: int) -> dict[str, Any]:
    """A row: the solver and POT at full mass, each at its loosest stop rule within ERROR."""
    M = long_tailed_cost(n)
    double = M.astype(np.float64)
    reference = partial_uot(double, 1.0, tol=1e-13)
    own = loosest(lambda tol: partial_uot(M, 1.0, tol=tol), TOLERANCES, reference)
    stops = [*TOLERANCES, 3e-7]
    theirs, peer_cost = loosest(lambda stop: pot_unbalanced(M, stop), stops, reference), M
    if theirs is None:
        stops = [*TOLERANCES, 3e-7, 1e-7, 3e-8, 1e-8, 1e-9]
        theirs, peer_cost = loosest(lambda stop: pot_unbalanced(double, stop), stops, reference), double
    if own is None or theirs is None:
        raise RuntimeError(f"no setting reaches an error of {ERROR} at rho=1: solver {own}, POT {theirs}")
    timed = paired(
        lambda: partial_uot(M, 1.0, tol=own[0]), lambda: pot_unbalanced(peer_cost, theirs[0]), repeats, warm=True
    )
    return row(
        f"pot-{n}-1.0",
        "partial_uot, float32",
        f"ot.unbalanced.sinkhorn_unbalanced, {peer_cost.dtype}",
        5.0,
        timed,
        n=n,
        k=CLUSTERS,
        rho=1.0,
        error_method=own[1],
        error_peer=theirs[1],
    )


def _seconds(n: int) -> float:
    """Seconds of a solve of n samples, the median of three after one to warm up."""
    M = long_tailed_cost(n)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        partial_uot(M, 0.5)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def _memory(n: int) -> tuple[float, float]:
    """Peak in N x K matrices and seconds of one solve in a fresh process (Linux: read from /proc)."""
    limits = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_PROBE, str(n)],
        env={**os.environ, **limits},
        capture_output=True,
        text=True,
        check=True,
    )
    matrices, seconds = map(float, done.stdout.split())
    return matrices, seconds
