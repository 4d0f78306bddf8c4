"""Where work runs: this process, local processes through joblib, or a Dask cluster; each result is handed over as it arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from lab import provenance

_CONNECT_SECONDS = 10
_client: ContextVar[Any] = ContextVar("client", default=None)


class EngineError(RuntimeError):
    """The cluster cannot be used, or is gone; one sentence that says what to do."""


@dataclass(frozen=True)
class Row:
    """One replicate: the seed, its named numbers, the seconds it took; the machine it ran on, and its libraries."""

    seed: int
    values: dict[str, float]
    seconds: float
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def replicate(measure: Callable[..., Mapping[str, float]], seeds: Sequence[int], jobs: int = 1) -> Iterator[Row]:
    """Yield measure(seed, progress=silent) for every seed, in the order they finish.

    One inner thread each, so that a seed gives the same numbers whatever `jobs` is. With jobs=1 nothing is forked.
    Inside `cluster(address)` the cluster's workers do it instead, and `jobs` says nothing.

    >>> [row.values["square"] for row in replicate(_square, [1, 2, 3])]
    [1.0, 4.0, 9.0]
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if _client.get() is not None:
        yield from _on_cluster(_client.get(), measure, seeds)
    elif jobs == 1 or len(seeds) < 2:
        yield from (_measured(measure, seed) for seed in seeds)
    else:
        from joblib import Parallel, delayed, parallel_config

        with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
            yield from Parallel(return_as="generator_unordered")(delayed(_measured)(measure, seed) for seed in seeds)


@contextmanager
def cluster(address: str) -> Iterator[None]:
    """Inside, `replicate` hands its work to the Dask cluster whose scheduler listens at ``address`` (tcp://host:port).

    A worker that dies is replaced by another one, and each result arrives once. Workers need the same code of the lab:
    one with other code is refused. Raises EngineError when Dask is not installed or nothing answers. Dask's messages
    are pickles, so connect to schedulers of your own only.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise EngineError("a cluster needs Dask: pip install 'paperlab[cluster]'") from error
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise EngineError(
            f"no Dask scheduler answers at {address[:80]!r}; start one with `dask scheduler`, and give the address it "
            "prints, such as tcp://127.0.0.1:8786"
        ) from error
    token = _client.set(client)
    try:
        yield
    finally:
        _client.reset(token)
        client.close()


def _on_cluster(client: Any, measure: Callable[..., Mapping[str, float]], seeds: Sequence[int]) -> Iterator[Row]:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    code = provenance.lab_code()
    futures = [client.submit(_measured_there, measure, seed, code, pure=False) for seed in seeds]
    try:
        for future in as_completed(futures, loop=client.loop):
            yield future.result()
    except KilledWorker as error:
        raise EngineError("a seed killed worker after worker; it may need more memory than they have") from error
    except (CancelledError, CommClosedError, OSError) as error:
        raise EngineError("the Dask scheduler is gone; what had arrived is kept") from error


def _measured_there(measure: Callable[..., Mapping[str, float]], seed: int, code: str) -> Row:
    if provenance.lab_code() != code:
        raise EngineError(
            f"a worker on {provenance.machine()['processor']} has other code of the lab; install the same paperlab there"
        )
    return _measured(measure, seed)


def _measured(measure: Callable[..., Mapping[str, float]], seed: int) -> Row:
    from lab.experiment import silent

    with one_thread():
        start = time.perf_counter()
        values = {name: float(value) for name, value in measure(seed, progress=silent).items()}
    seconds = round(time.perf_counter() - start, 3)
    return Row(seed, values, seconds, provenance.machine(), provenance.versions())


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
