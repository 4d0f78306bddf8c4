"""What the three papers' `model` experiments share: a whole model, quantized by a paper's method and by all its peers.

Quality stands beside *true* bits: weights, mask, scales and zero points, as they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lab.experiment import Config, Progress, knob
from lab.quantization.bench import Method
from lab.quantization.comparison import Row, compared, full_precision
from lab.quantization.flexround import tuning as flexround
from lab.quantization.ptq1_61 import tuning as ptq1_61
from lab.quantization.registry import method
from lab.quantization.subjects import SUBJECTS, FromPlace, Subject

if TYPE_CHECKING:
    import pandas as pd

SubjectName = Literal["minilm", "stdlib-gpt"]
STEPS = 60  # of peers that learn, a block


class ModelConfig(Config):
    """Which model, and against whom."""

    subject: SubjectName = knob(
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
    """subject: its title; metric: what methods are ranked by, with `higher` saying which way is better; full: the metrics
    in full precision; methods: method, ours (0 or 1), bits (true ones), bound (masks at their entropy bound), seconds, and
    a column a metric; blocks: method, ours, block (from 1), error (share of the block's output energy)."""

    subject: str
    metric: str
    higher: bool
    full: dict[str, float]
    methods: pd.DataFrame
    blocks: pd.DataFrame


def subject_of(config: ModelConfig) -> Subject:
    """The subject that a config names; ModelError or UnknownModel for a source that is none."""
    return (
        FromPlace(place=config.source).drawn(config.seed)
        if config.source
        else SUBJECTS[config.subject].drawn(config.seed)
    )


def peers_of(which: Literal["a few", "all"]) -> list[Method]:
    """What every paper's method is compared with; no method twice."""
    few = [method("xnor"), *(method(key, bits=bits) for key in ("rtn", "gptq") for bits in (2, 3, 4))]
    if which == "a few":
        return few
    return [
        *few,
        method("awq", bits=3),
        method("billm"),
        *(method("pb-llm", low_frac=1 - share) for share in (0.05, 0.1, 0.2, 0.3)),
        method("ptq1-61", steps=STEPS, **ptq1_61.CHOSEN["minilm"]),
        *(method(key, bits=3, per="row", steps=STEPS, **flexround.CHOSEN[key]) for key in flexround.CHOSEN),
        method("flexround", bits=4, per="row", steps=STEPS, **flexround.CHOSEN["flexround"]),
    ]


def run_model(config: ModelConfig, ours: Sequence[Method], *, progress: Progress) -> ModelResult:
    """Quantize and measure; the picture so far goes along with the progress."""
    subject = subject_of(config)
    progress(0.0, f"{subject.title} in full precision")
    full = full_precision(subject)
    labels = {each.label for each in ours}
    everything = [*ours, *(peer for peer in peers_of(config.peers) if peer.label not in labels)]
    rows: list[Row] = []
    for row in compared(subject, everything, seed=config.seed, progress=progress):
        rows.append(row)
        progress(len(rows) / len(everything), row.method.label, _result(subject, full, rows, ours))
    return _result(subject, full, rows, ours)


def _result(subject: Subject, full: dict[str, float], rows: Sequence[Row], ours: Sequence[Method]) -> ModelResult:
    import pandas as pd

    table = [
        {
            "method": row.method.label,
            "ours": int(row.method in ours),
            "bits": row.bill.per_weight,
            "bound": row.bound.per_weight,
            "seconds": row.seconds,
            **row.metrics,
        }
        for row in rows
    ]
    blocks = [
        {"method": row.method.label, "ours": int(row.method in ours), "block": place, "error": error}
        for row in rows
        for place, error in enumerate(row.errors, start=1)
    ]
    metric, better = next(iter(subject.metrics.items()))
    return ModelResult(subject.title, metric, better == "higher", full, pd.DataFrame(table), pd.DataFrame(blocks))
