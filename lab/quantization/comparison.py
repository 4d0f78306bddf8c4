"""Whole models on the bench: what each method leaves of a subject's abilities, beside every bit that it really costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lab.experiment import Progress, silent
from lab.quantization.bench import Method, Quantized, quantize_model
from lab.quantization.bits import Bill
from lab.quantization.subjects import Subject


@dataclass(frozen=True, eq=False)
class Row:
    """One method on one subject: its bill with bitmap masks, and with masks at their entropy bound; what the model still
    does, by the subject's metrics; the relative output error after each block; seconds for the quantization alone."""

    method: Method
    bill: Bill
    bound: Bill
    metrics: dict[str, float]
    errors: tuple[float, ...]
    seconds: float


def full_precision(subject: Subject) -> dict[str, float]:
    """What the subject does before anything is done to it."""
    return subject.measure(subject.model())


def compare(subject: Subject, methods: Iterable[Method], *, seed: int = 0, progress: Progress = silent) -> list[Row]:
    """Quantize and measure a subject by each method, all on the same calibration, drawn by ``seed``.

    >>> from lab.quantization.registry import method
    >>> from lab.quantization.subjects import StdlibGPT
    >>> row, = compare(StdlibGPT(count=4, length=32, stretches=2), [method("rtn", bits=8)])
    >>> round(row.bill.per_weight), sorted(row.metrics)
    (8, ['perplexity'])
    """
    kept = list(methods)
    calibration = subject.calibration(seed)
    rows: list[Row] = []
    for place, method in enumerate(kept):
        done = quantize_model(subject.model(), method, calibration, progress=_part(progress, place, len(kept), method))
        rows.append(row_of(subject, done))
    progress(1.0, "done")
    return rows


def row_of(subject: Subject, done: Quantized) -> Row:
    """A quantized subject, measured."""
    errors = tuple(block.relative for block in done.blocks)
    return Row(done.method, done.bill(), done.bill("entropy"), subject.measure(done.model), errors, done.seconds)


def _part(progress: Progress, place: int, total: int, method: Method) -> Progress:
    def inner(fraction: float, note: str = "", partial: Any | None = None) -> None:
        progress((place + fraction) / total, f"{method.title}: {note}")

    return inner
