"""Whole models compared: what each method leaves of a model's abilities, beside every bit that it really takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lab.experiment import Progress, no_progress, part
from lab.quantization.pipeline import Method, Quantized, quantize_model
from lab.quantization.storage import StorageCost
from lab.quantization.tasks import EvaluationTask

KEPT = 256  # rows that a process remembers


@dataclass(frozen=True, eq=False)
class Row:
    """One method on one task.

    storage, bound: what it takes to store, with bitmap masks and with masks at their entropy bound; metrics: what the model
    still does; errors: the relative output error after each block; seconds: for the quantization alone.
    """

    method: Method
    storage: StorageCost
    bound: StorageCost
    metrics: dict[str, float]
    errors: tuple[float, ...]
    seconds: float


_known: dict[tuple[EvaluationTask, Method, int], Row] = {}


def full_precision(task: EvaluationTask) -> dict[str, float]:
    """What the task does before anything is done to it."""
    return task.measure(task.model())


def compare(
    task: EvaluationTask, methods: Iterable[Method], *, seed: int = 0, progress: Progress = no_progress
) -> list[Row]:
    """Quantize and measure a task by each method, all on the same calibration, drawn by ``seed``.

    >>> from lab.quantization.registry import method
    >>> from lab.quantization.tasks import StdlibGPT
    >>> row, = compare(StdlibGPT(count=4, length=32, stretches=2), [method("rtn", bits=8)])
    >>> round(row.storage.per_weight), sorted(row.metrics)
    (8, ['perplexity'])
    """
    rows = list(compared(task, list(methods), seed=seed, progress=progress))
    progress(1.0, "done")
    return rows


def compared(
    task: EvaluationTask, methods: list[Method], *, seed: int, progress: Progress = no_progress
) -> Iterator[Row]:
    """The rows of `compare`, one by one; what this process has measured before is not measured again."""
    for number, method in enumerate(methods):
        if (task, method, seed) not in _known:
            own = part(progress, number / len(methods), 1 / len(methods), method.label)
            done = quantize_model(task.model(), method, task.calibration(seed), progress=own)
            _known[task, method, seed] = row_of(task, done)
            while len(_known) > KEPT:
                _known.pop(next(iter(_known)))
        yield _known[task, method, seed]


def columns(
    task: EvaluationTask, methods: Mapping[str, Method], *, seed: int, progress: Progress = no_progress
) -> dict[str, float]:
    """A replicate as named numbers: calibration and what is measured on are drawn anew by ``seed``.

    For each name `NAME_METRIC` for the task's metrics, `NAME_bits` (effective bits per weight), `NAME_bound` (with masks at their
    entropy bound) and `NAME_error` (relative, after the last block); `full_METRIC` for full precision.
    """
    drawn = task.drawn(seed)
    values = {f"full_{metric}": value for metric, value in full_precision(drawn).items()}
    for name, row in zip(methods, compared(drawn, list(methods.values()), seed=seed, progress=progress), strict=True):
        values |= {f"{name}_{metric}": value for metric, value in row.metrics.items()}
        values |= {f"{name}_bits": row.storage.per_weight, f"{name}_bound": row.bound.per_weight}
        values[f"{name}_error"] = row.errors[-1]
    progress(1.0, "done")
    return values


def column_names(kind: type[EvaluationTask], names: Iterable[str]) -> tuple[str, ...]:
    """The names of what `columns` returns for a kind of task and methods of these names.

    >>> from lab.quantization.tasks import StdlibGPT
    >>> column_names(StdlibGPT, ["fine"])
    ('full_perplexity', 'fine_perplexity', 'fine_bits', 'fine_bound', 'fine_error')
    """
    full = tuple(f"full_{metric}" for metric in kind.metrics)
    return full + tuple(f"{name}_{what}" for name in names for what in (*kind.metrics, "bits", "bound", "error"))


def row_of(task: EvaluationTask, done: Quantized) -> Row:
    """A quantized task, measured."""
    errors = tuple(block.relative for block in done.blocks)
    return Row(done.method, done.storage(), done.storage("entropy"), task.measure(done.model), errors, done.seconds)
