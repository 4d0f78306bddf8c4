"""Where work runs: this process, local processes through joblib, or a Dask cluster; each result is handed over as it arrives."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from lab import provenance

_CONNECT_SECONDS = 10
_ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:\d+")
_client: ContextVar[Any] = ContextVar("client", default=None)


class EngineError(RuntimeError):
    """The cluster cannot be used, or is gone; one sentence that says what to do."""


@dataclass(frozen=True)
class Row:
    """One replicate: seed, named numbers, seconds; the machine it ran on, its libraries, the assets and corpora it opened."""

    seed: int
    values: dict[str, float]
    seconds: float
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    opened: dict[str, str] = field(default_factory=dict)


def replicate(measure: Callable[..., Mapping[str, float]], seeds: Sequence[int], jobs: int = 1) -> Iterator[Row]:
    """Yield measure(seed, progress=no_progress) for every seed, in the order they finish.

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
    _probe(address)
    client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    token = _client.set(client)
    try:
        try:
            client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
        except TimeoutError as error:
            raise EngineError(
                f"the scheduler at {address} has no workers; start one with `dask worker {address}`"
            ) from error
        yield
    finally:
        _client.reset(token)
        client.close()


def _probe(address: str) -> None:
    """Ask for the scheduler's name before a client is made, which would wait for whatever listens there."""
    import asyncio

    from distributed import rpc

    async def ask() -> None:
        async with rpc(address) as scheduler:
            await scheduler.identity()

    try:
        if not _ADDRESS.fullmatch(address):
            raise ValueError("no address of a scheduler")
        asyncio.run(asyncio.wait_for(ask(), _CONNECT_SECONDS))
    except (OSError, ValueError, TypeError, TimeoutError, AttributeError) as error:
        raise EngineError(
            f"no Dask scheduler answers at {address[:80]!r}; start one with `dask scheduler`, and give the address it "
            "prints, such as tcp://127.0.0.1:8786"
        ) from error


def _on_cluster(client: Any, measure: Callable[..., Mapping[str, float]], seeds: Sequence[int]) -> Iterator[Row]:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    code = provenance.lab_code()
    futures = [client.submit(_measured_there, measure, seed, code, pure=False) for seed in seeds]
    arriving = as_completed(futures, loop=client.loop)
    try:
        for _ in seeds:
            try:
                future = next(arriving)
                error = future.exception()
                found = [] if error else [future.result()]
            except (CancelledError, CommClosedError, OSError) as lost:
                raise EngineError("the Dask scheduler is gone; what had arrived is kept") from lost
            if isinstance(error, KilledWorker):
                raise EngineError(
                    "a seed killed worker after worker; it may need more memory than they have"
                ) from error
            if error is not None:
                raise error
            yield from found
    finally:
        client.cancel(futures)


def _measured_there(measure: Callable[..., Mapping[str, float]], seed: int, code: str) -> Row:
    if provenance.lab_code() != code:
        raise EngineError(
            f"a worker on {provenance.machine()['processor']} has other code of the lab; install the same paperlab there"
        )
    return _measured(measure, seed)


def _measured(measure: Callable[..., Mapping[str, float]], seed: int) -> Row:
    from lab.experiment import no_progress

    with one_thread(), provenance.opened_files() as opened:
        start = time.perf_counter()
        values = {name: float(value) for name, value in measure(seed, progress=no_progress).items()}
    seconds = round(time.perf_counter() - start, 3)
    return Row(seed, values, seconds, provenance.machine(), provenance.versions(), opened)


class one_thread:
    """Context: BLAS, OpenMP and torch use one thread inside; restored after."""

    def __enter__(self) -> None:
        import torch  # here, so that what is measured cannot load it later, with threads of its own
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(1)
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        import torch

        self._limits.restore_original_limits()
        torch.set_num_threads(self._threads)


def _square(seed: int, *, progress: object) -> dict[str, float]:
    return {"square": float(seed * seed)}
