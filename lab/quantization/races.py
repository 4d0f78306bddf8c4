"""What the three papers' races share: how often each is timed, and what a whole model takes, in seconds and memory."""

from __future__ import annotations

import time
from collections.abc import Mapping

from lab.quantization.pipeline import Method, quantize_model
from lab.quantization.tasks import MiniLM
from lab.racing import peak_memory, threads

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
    size = sum(each.numel() * each.element_size() for each in model.parameters())
    measured = {}
    with threads(THREADS):
        for name, method in methods.items():
            with peak_memory() as peak:
                start = time.perf_counter()
                quantize_model(model, method, task.calibration(0))
                seconds = time.perf_counter() - start
            measured[name] = {
                "seconds": round(seconds, 2),
                "peak_mib": round(peak.most / 2**20),
                "model_mib": round(size / 2**20),
                "copies": round(peak.most / size, 2),
            }
    return measured
