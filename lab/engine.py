"""Where work runs: this process, or local processes through joblib; every result is handed over as it arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One replicate: the seed, its named numbers, the seconds it took."""

    seed: int
    values: dict[str, float]
    seconds: float


def replicate(measure: Callable[..., Mapping[str, float]], seeds: Sequence[int], jobs: int = 1) -> Iterator[Row]:
    """Yield measure(seed, progress=silent) for every seed, in the order they finish.

    One inner thread each, so that a seed gives the same numbers whatever `jobs` is. With jobs=1 nothing is forked.

    >>> [row.values["square"] for row in replicate(_square, [1, 2, 3])]
    [1.0, 4.0, 9.0]
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if jobs == 1 or len(seeds) < 2:
        yield from (_measured(measure, seed) for seed in seeds)
        return
    from joblib import Parallel, delayed, parallel_config

    with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
        yield from Parallel(return_as="generator_unordered")(delayed(_measured)(measure, seed) for seed in seeds)


def _measured(measure: Callable[..., Mapping[str, float]], seed: int) -> Row:
    from lab.experiment import silent

    with one_thread():
        start = time.perf_counter()
        values = {name: float(value) for name, value in measure(seed, progress=silent).items()}
    return Row(seed, values, round(time.perf_counter() - start, 3))


class one_thread:
    """Context: BLAS, OpenMP and torch (if loaded) use one thread inside; restored after."""

    def __enter__(self) -> None:
        import sys

        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(1)
        self._torch = sys.modules.get("torch")
        self._threads = self._torch.get_num_threads() if self._torch else 0
        if self._torch:
            self._torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        self._limits.restore_original_limits()
        if self._torch:
            self._torch.set_num_threads(self._threads)


def _square(seed: int, *, progress: object) -> dict[str, float]:
    return {"square": float(seed * seed)}
