"""Two callables raced in one process, in turns: what `lab bench` reports is the ratio of their seconds, never seconds alone."""

from __future__ import annotations

import time
from collections.abc import Callable
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


def answer(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """What a race returns: its rows, where it was run, and what else there is to say."""
    return {"rows": rows, "machine": machine()} | more
