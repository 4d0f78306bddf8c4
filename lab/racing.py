"""Two callables raced in one process, in turns: what `lab bench` reports is the ratio of their seconds, never seconds alone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lab.provenance import machine


def paired(method: Callable[[], Any], peer: Callable[[], Any], repeats: int, *, warm: bool = False) -> dict[str, Any]:
    """Seconds of both, in turns, and the ratio peer / method: median, least and largest of ``repeats`` pairs.

    Both are called once before anything is timed; with ``warm``, each timed call follows an untimed one of its own.
    Raises ValueError for fewer than one repeat.

    >>> sorted(paired(lambda: None, lambda: time.sleep(0.001), 3)["ratio"])
    ['max', 'median', 'min']
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    method(), peer()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, into in zip((method, peer), seconds, strict=True):
            if warm:
                call()
            start = time.perf_counter()
            call()
            into.append(time.perf_counter() - start)
    ratio = np.array(seconds[1]) / np.array(seconds[0])
    return {
        "seconds_method": [round(value, 6) for value in seconds[0]],
        "seconds_peer": [round(value, 6) for value in seconds[1]],
        "ratio": {"median": float(np.median(ratio)), "min": float(ratio.min()), "max": float(ratio.max())},
    }


def row(key: str, method: str, peer: str, target: float, timed: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """One row of a race: who runs against whom, the ratio aimed at, what `paired` found, and what else there is to say."""
    return {"key": key, "method": method, "peer": peer, "target": target, **more, **timed}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, torch and BLAS use `count` threads; before and after, as many as before."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    with threadpool_limits(count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class peak_memory:
    """Context: watches this process's resident memory; afterwards `most` is its peak above the beginning, in bytes.

    0 where the system does not say.
    """

    most = 0

    def __enter__(self) -> peak_memory:
        self._began, self._done = _resident(), threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, _resident() - self._began)


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def answer(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """What a race returns: its rows, where it was run, and what else there is to say."""
    return {"rows": rows, "machine": machine()} | more
