"""What the three papers' races share: how often each is timed, and what a whole model takes, in seconds and memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from lab.quantization.pipeline import Method, quantize_model
from lab.quantization.tasks import MiniLM

THREADS, REPEATS, QUICK = 2, 9, 3
STEPS = 8  # of a fit, in one timed call


def repeats(quick: bool) -> int:
    """How many pairs of calls are timed."""
    return QUICK if quick else REPEATS


def whole_models(methods: Mapping[str, Method]) -> dict[str, dict[str, float]]:
    """Seconds that whole MiniLM takes, calibration included, and the memory beyond the model itself, at its peak and as
    copies of the model: an order of magnitude, not a race."""
    task = MiniLM()
    model = task.model()
    size = sum(part.numel() * part.element_size() for part in model.parameters())
    found = {}
    with _threads():
        for name, method in methods.items():
            with _Peak() as peak:
                start = time.perf_counter()
                quantize_model(model, method, task.calibration(0))
                seconds = time.perf_counter() - start
            found[name] = {
                "seconds": round(seconds, 2),
                "peak_mib": round(peak.most / 2**20),
                "model_mib": round(size / 2**20),
                "copies": round(peak.most / size, 2),
            }
    return found


class _Peak:
    """Watches the resident memory of this process; ``most`` bytes above where it began. 0 where the system does not say."""

    most = 0

    def __enter__(self) -> _Peak:
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


class _threads:
    """Torch and BLAS use `THREADS` threads inside, as before outside."""

    def __enter__(self) -> None:
        self._limits, self._before = threadpool_limits(THREADS), torch.get_num_threads()
        torch.set_num_threads(THREADS)

    def __exit__(self, *_: object) -> None:
        self._limits.restore_original_limits()
        torch.set_num_threads(self._before)
