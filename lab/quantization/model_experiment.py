"""What the three papers' `model` experiments share: a whole model, quantized by a paper's method and by all its peers.

Quality stands beside *true* bits: weights, mask, scales and zero points, as they are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lab.experiment import Config, Progress, knob
from lab.quantization.awq import AWQ
from lab.quantization.baselines import GPTQ, RTN, XNOR
from lab.quantization.billm import BiLLM
from lab.quantization.comparison import Row, compared, full_precision
from lab.quantization.pipeline import Method
from lab.quantization.registry import Methods
from lab.quantization.tasks import TASKS, EvaluationTask, OwnModel

if TYPE_CHECKING:
    import pandas as pd

TaskName = Literal["minilm", "stdlib-gpt"]
STEPS = 60  # of peers that learn, for each block
Tuned = Mapping[str, Mapping[str, Any]]  # settings by a method's key


class ModelConfig(Config):
    """Which model, and against whom."""

    subject: TaskName = knob(
        "minilm", "the model: a sentence encoder, or a small GPT-2 that reads Python", label="model"
    )
    peers: Literal["a few", "all"] = knob(
        "all",
        "a few: rounding and GPTQ, about a minute; all: every method on the bench, about five",
        label="compared with",
    )
    seed: int = knob(0, "draws the calibration text, and the text that is measured on", ge=0, le=99)
    source: str = knob(
        "",
        "a model of your own instead: a local folder, or a hub id such as facebook/opt-125m (BERT, GPT-2, OPT, LLaMA, "
        "Qwen families); untested on released weights",
        private=True,
        max_length=300,
        label="folder or hub id",
    )


@dataclass(frozen=True)
class ModelResult:
    """A whole model by many methods.

    subject: the model's title; metric: what methods are ranked by; higher: whether more of it is better.
    full: the metrics in full precision.
    methods: method, ours (0 or 1), bits (effective, per weight), bound (with masks at their entropy bound), seconds, and a
    column for each metric.
    blocks: method, ours, block (from 1), error (share of the block's output energy).
    """

    subject: str
    metric: str
    higher: bool
    full: dict[str, float]
    methods: pd.DataFrame
    blocks: pd.DataFrame


def task_of(config: ModelConfig) -> EvaluationTask:
    """The subject that a config names; ModelError or UnknownModel for a source that is none."""
    task = OwnModel(source=config.source) if config.source else TASKS[config.subject]
    return task.drawn(config.seed)


def peers_of(which: Literal["a few", "all"], methods: Methods, tuned: Tuned) -> list[Method]:
    """What every paper's method is compared with; no method twice.

    methods: the three papers' own among them, by key; tuned: settings of those that learn, by key.
    """
    few: list[Method] = [XNOR(), *(kind(bits=bits) for kind in (RTN, GPTQ) for bits in (2, 3, 4))]
    if which == "a few":
        return few

    def learning(key: str, **settings: Any) -> Method:
        return methods[key](steps=STEPS, **settings, **tuned[key])

    rounding = [key for key in tuned if key != "ptq1-61"]
    return [
        *few,
        AWQ(bits=3),
        BiLLM(),
        *(methods["pb-llm"](low_frac=1 - share) for share in (0.05, 0.1, 0.2, 0.3)),
        learning("ptq1-61"),
        *(learning(key, bits=3, per="row") for key in rounding),
        learning("flexround", bits=4, per="row"),
    ]


def run_model(
    config: ModelConfig, ours: Sequence[Method], methods: Methods, tuned: Tuned, *, progress: Progress
) -> ModelResult:
    """Quantize and measure by a paper's own methods and their peers; the picture so far goes along with the progress."""
    task = task_of(config)
    progress(0.0, f"{task.title} in full precision")
    full = full_precision(task)
    labels = {each.label for each in ours}
    everything = [*ours, *(peer for peer in peers_of(config.peers, methods, tuned) if peer.label not in labels)]
    rows: list[Row] = []
    for row in compared(task, everything, seed=config.seed, progress=progress):
        rows.append(row)
        progress(len(rows) / len(everything), row.method.label, _result(task, full, rows, ours))
    return _result(task, full, rows, ours)


def _result(task: EvaluationTask, full: dict[str, float], rows: Sequence[Row], ours: Sequence[Method]) -> ModelResult:
    import pandas as pd

    table = [
        {
            "method": row.method.label,
            "ours": int(row.method in ours),
            "bits": row.storage.per_weight,
            "bound": row.bound.per_weight,
            "seconds": row.seconds,
            **row.metrics,
        }
        for row in rows
    ]
    blocks = [
        {"method": row.method.label, "ours": int(row.method in ours), "block": number, "error": error}
        for row in rows
        for number, error in enumerate(row.errors, start=1)
    ]
    metric, better = next(iter(task.metrics.items()))
    return ModelResult(task.title, metric, better == "higher", full, pd.DataFrame(table), pd.DataFrame(blocks))
