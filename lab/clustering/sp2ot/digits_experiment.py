"""Experiment `digits`: seven clusterings of long-tailed digits, side by side, one seed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch import nn
from torch.nn import functional

from lab.clustering.sp2ot.deep import Step
from lab.clustering.sp2ot.digits_methods import (
    NAMES,
    RESTARTS,
    TRANSPORT,
    Prepared,
    Published,
    labels_of,
    prepare,
)
from lab.clustering.sp2ot.encoder import load_encoder
from lab.clustering.sp2ot.metrics import (
    SCORES,
    alignment,
    balanced_accuracy,
    by_frequency,
    contingency,
    precision,
    scores,
)
from lab.clustering.sp2ot.transport import partial_uot
from lab.clustering.sp2ot.tuned import CHOSEN
from lab.datasets.digits import N_CLASSES, long_tailed_indices
from lab.experiment import Config, Progress, experiment, knob, part

PRETRAINING = 0.3  # share of the run's time, for the progress bar
SELECTED, EVERYTHING = "precision_selected", "precision_all"  # in the labelled mass; had all been labelled
COLUMNS = (
    *(f"{method}_{score}" for method in NAMES for score in SCORES),
    *(f"{method}_{share}" for method in TRANSPORT for share in (SELECTED, EVERYTHING)),
)
CURVES = ("method", "step", "rho", SELECTED, EVERYTHING, "balanced_accuracy", "loss")


class DigitsConfig(Config):
    """Knobs of the comparison; what else was tuned, was tuned for every method (`CHOSEN`)."""

    primary: ClassVar[tuple[str, ...]] = ("imbalance", "rho0", "semantic_weight", "reg_m")

    imbalance: float = knob(10.0, "largest class over smallest", ge=1.0, le=50.0, scale="log")
    rho0: float = knob(
        0.1,
        "share of the samples that P²OT and SP²OT label at first",
        label="first mass ρ₀",
        ge=0.02,
        le=1.0,
        step=0.02,
    )
    semantic_weight: float = knob(
        CHOSEN["sp2ot"]["semantic_weight"],
        "SP²OT only: how strongly neighbours share a label",
        label="neighbour weight λ",
        ge=0.0,
        le=0.5,
        step=0.01,
    )
    reg_m: float = knob(
        1.0,
        "UOT, P²OT, SP²OT: how hard sizes are pulled to equal",
        label="size weight γ",
        ge=0.01,
        le=100.0,
        scale="log",
    )
    steps: int = knob(120, "training steps of the transport methods", ge=20, le=400)
    seed: int = knob(0, "draws the images, the pre-training, the starts", ge=0, le=999)


@dataclass(frozen=True)
class DigitsResult:
    """Seven methods on n images of K = 10 classes; names as in `NAMES`, classes from most to least frequent.

    scores: method, then `SCORES`; confusion: method -> (K, K) counts, rows true classes, columns the matched clusters,
    both by frequency; class_names (K,) by frequency; sizes: method -> (K,) shares of the clusters in that order;
    true_sizes (K,); curves: `CURVES` for each transport method's best restart; points (n, 2), truth (n,) rank of the
    class; labels: method -> (n,) the same coding.
    """

    scores: pd.DataFrame
    confusion: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    sizes: dict[str, np.ndarray]
    true_sizes: np.ndarray
    curves: pd.DataFrame
    points: np.ndarray
    truth: np.ndarray
    labels: dict[str, np.ndarray]


@experiment("digits", "Seven clusterings of long-tailed digits", cost="run", small={"imbalance": 50.0, "steps": 20})
def run_digits(config: DigitsConfig, *, progress: Progress) -> DigitsResult:
    """Pre-train, cluster seven times, score; about half a minute on one core."""
    prepared, clusterings, curves = compare(config, progress)
    order = by_frequency(prepared.truth, N_CLASSES)
    truth = np.argsort(order)[prepared.truth]
    aligned = {name: alignment(truth, labels, N_CLASSES)[labels] for name, labels in clusterings.items()}
    points = load_encoder()[1][long_tailed_indices(config.imbalance, config.seed)]
    return DigitsResult(
        scores=pd.DataFrame(
            [{"method": name, **scores(truth, labels, N_CLASSES)} for name, labels in clusterings.items()]
        ),
        confusion={name: contingency(truth, labels, N_CLASSES) for name, labels in aligned.items()},
        class_names=tuple(str(digit) for digit in order),
        sizes={name: np.bincount(labels, minlength=N_CLASSES) / len(truth) for name, labels in aligned.items()},
        true_sizes=np.bincount(truth, minlength=N_CLASSES) / len(truth),
        curves=pd.DataFrame(curves, columns=list(CURVES)),
        points=points,
        truth=truth.astype(np.uint8),
        labels={name: labels.astype(np.uint8) for name, labels in aligned.items()},
    )


def compare(config: DigitsConfig, progress: Progress) -> tuple[Prepared, dict[str, np.ndarray], list[tuple[Any, ...]]]:
    """The data, raw cluster labels (n,) by method name, and the rows of the curves."""
    prepared = prepare(config.imbalance, config.seed, part(progress, 0.0, PRETRAINING, "pre-training"))
    published = Published(config.steps, config.rho0, config.reg_m)
    clusterings: dict[str, np.ndarray] = {}
    curves: list[tuple[Any, ...]] = []
    share = (1 - PRETRAINING) / len(NAMES)
    for number, (method, name) in enumerate(NAMES.items()):
        report = part(progress, PRETRAINING + share * number, share, name)
        report(0.0)
        settings = dict(CHOSEN[method])
        if method == "sp2ot":
            settings["semantic_weight"] = config.semantic_weight
        watch = _Watch(prepared, name, published, settings.get("reg", 0.1), report)
        clusterings[name], restart = labels_of(method, prepared, settings, published, watch)
        if method in TRANSPORT:
            curves += watch.rows[restart]
    progress(1.0, "done")
    return prepared, clusterings, curves


class _Watch:
    """Records a row of `CURVES` per training step, for each restart: how right are the labels of the selected mass, and all?

    "All" are the labels that the same logits would get at rho = 1; clusters are matched to classes by those logits.
    """

    def __init__(
        self,
        prepared: Prepared,
        name: str,
        published: Published,
        reg: float,
        progress: Progress,
    ) -> None:
        self.prepared, self.name, self.published, self.reg = prepared, name, published, reg
        self.progress = progress
        self.rows: dict[int, list[tuple[Any, ...]]] = defaultdict(list)

    def __call__(self, restart: int, step: Step, model: nn.Module) -> None:
        truth = self.prepared.truth
        cost = -functional.log_softmax(step.logits.double(), dim=1).numpy()
        to_class = alignment(truth, cost.argmin(1), N_CLASSES)
        reg_m = np.inf if self.name == NAMES["sela"] else self.published.reg_m
        everything = partial_uot(cost, 1.0, reg=self.reg, reg_m=reg_m, tol=1e-4)
        targets = step.targets.numpy()
        self.rows[restart].append(
            (
                self.name,
                step.index,
                step.rho,
                precision(truth, to_class[targets.argmax(1)], targets.sum(1)),
                precision(truth, to_class[everything.argmax(1)]),
                balanced_accuracy(truth, to_class[cost.argmin(1)], N_CLASSES),
                step.loss / step.rho,
            )
        )
        done = (restart + (step.index + 1) / self.published.steps) / RESTARTS
        self.progress(done, f"start {restart + 1}, step {step.index + 1}")


def columns(config: DigitsConfig, progress: Progress) -> dict[str, float]:
    """The comparison as named numbers, in percent: `COLUMNS`; precisions are means over the first quarter of the steps."""
    prepared, clusterings, curves = compare(config, progress)
    order = by_frequency(prepared.truth, N_CLASSES)
    truth = np.argsort(order)[prepared.truth]  # as `run_digits` has it: where two matchings tie, the order decides
    percent: dict[str, float] = {}
    for method, name in NAMES.items():
        score = scores(truth, clusterings[name], N_CLASSES)
        percent |= {f"{method}_{key}": 100 * score[key] for key in SCORES}
        early = [row for row in curves if row[0] == name and row[1] < config.steps / 4]
        if method in TRANSPORT:
            percent[f"{method}_{SELECTED}"] = 100 * float(np.mean([row[3] for row in early]))
            percent[f"{method}_{EVERYTHING}"] = 100 * float(np.mean([row[4] for row in early]))
    return percent
