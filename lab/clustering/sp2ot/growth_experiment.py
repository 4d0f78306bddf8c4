"""Experiment `growth`: a clustering learns from its own labels, and the labelled mass grows while it does."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.nn import functional

from lab.clustering.sp2ot.deep import PseudoLabeler, self_label
from lab.clustering.sp2ot.heads import CosineHead, Start, prototypes
from lab.clustering.sp2ot.metrics import balanced_accuracy, precision
from lab.clustering.sp2ot.scenes import (
    LR,
    MAX_IMBALANCE,
    DataName,
    columns_in_class_order,
    scene,
    similarity,
    views_of,
)
from lab.clustering.sp2ot.schedule import RhoSchedule
from lab.clustering.sp2ot.transport import partial_uot
from lab.experiment import Config, Progress, experiment, knob

Method = Literal["sp2ot", "p2ot", "uot", "sela"]


class GrowthConfig(Config):
    """Knobs of a training run that is watched step by step."""

    primary: ClassVar[tuple[str, ...]] = ("data", "method", "rho0", "semantic_weight")

    data: DataName = knob("blobs", "what is clustered: points in the plane, or pictures of digits")
    method: Method = knob("p2ot", "sela: equal sizes; uot: soft sizes; p2ot: and growing mass; sp2ot: and neighbours")
    rho0: float = knob(
        0.1,
        "share of the samples that is labelled at first; it grows to 1",
        label="first mass ρ₀",
        ge=0.02,
        le=1.0,
        step=0.02,
    )
    semantic_weight: float = knob(
        0.05, "sp2ot only: how strongly neighbours share a label", label="neighbour weight λ", ge=0.0, le=1.0, step=0.01
    )
    reg_m: float = knob(
        1.0, "how hard cluster sizes are pulled to equal", label="size weight γ", ge=0.01, le=100.0, scale="log"
    )
    steps: int = knob(40, "training steps", ge=5, le=80)
    imbalance: float = knob(20.0, "largest class over smallest", ge=1.0, le=MAX_IMBALANCE, scale="log")
    start: Start = knob("k-means", "where the prototypes start")
    seed: int = knob(0, "draws the data, the prototypes and the views", ge=0, le=20)


@dataclass(frozen=True)
class GrowthResult:
    """T steps of n samples, K classes; at each step the clusters are matched to the classes anew by the head's choices.

    points (n, 2) map, truth (n,), class_names; rho (T,); mass (T, n) share of each sample that is labelled;
    label (T, n); sizes (T, K) and true_sizes (K,) shares; centres (T, K, 2) of the clusters on the map, (T, 0, 2) where
    the map is not the feature space; precision_selected (T,) share of right labels in the labelled mass; precision_all
    (T,) the same had all samples been labelled at that step (rho = 1); accuracy (T,) balanced accuracy of the head;
    objective (T,) the training loss over rho.
    """

    points: np.ndarray
    truth: np.ndarray
    class_names: tuple[str, ...]
    rho: np.ndarray
    mass: np.ndarray
    label: np.ndarray
    sizes: np.ndarray
    true_sizes: np.ndarray
    centres: np.ndarray
    precision_selected: np.ndarray
    precision_all: np.ndarray
    accuracy: np.ndarray
    objective: np.ndarray


@experiment("growth", "The mass grows", cost="live", small={"steps": 5})
def run_growth(config: GrowthConfig, *, progress: Progress) -> GrowthResult:
    """Train the head for `steps` steps and record every step."""
    dataset = scene(config.data, config.imbalance, config.seed)
    n, k = len(dataset.truth), dataset.n_clusters
    generator = torch.Generator().manual_seed(config.seed)
    head = CosineHead(prototypes(dataset.z, k, config.start, generator))
    labeler = _labeler(config, k)
    history: dict[str, list[Any]] = defaultdict(list)
    for step in self_label(head, labeler, views_of(dataset.z), n, lr=LR, generator=generator):
        order = columns_in_class_order(dataset.truth, step.logits.argmax(1).numpy(), k)
        targets = step.targets.numpy()[:, order]
        cost = -functional.log_softmax(step.logits.double(), dim=1).numpy()[:, order]
        everything = partial_uot(cost, 1.0, reg_m=labeler.reg_m, tol=1e-4)
        mass = targets.sum(1).clip(0, 1)
        history["rho"].append(step.rho)
        history["mass"].append(mass.astype(np.float32))
        history["label"].append(targets.argmax(1).astype(np.uint8))
        history["sizes"].append(targets.sum(0) / targets.sum())
        history["centres"].append((targets.T @ dataset.points / targets.sum(0)[:, None])[: k if dataset.flat else 0])
        history["precision_selected"].append(precision(dataset.truth, targets.argmax(1), mass))
        history["precision_all"].append(precision(dataset.truth, everything.argmax(1)))
        history["accuracy"].append(balanced_accuracy(dataset.truth, cost.argmin(1), k))
        history["objective"].append(step.loss / step.rho)
        progress((step.index + 1) / config.steps, f"step {step.index + 1}")
    return GrowthResult(
        points=dataset.points,
        truth=dataset.truth,
        class_names=dataset.class_names,
        true_sizes=dataset.true_sizes,
        **{name: np.array(values) for name, values in history.items()},
    )


def _labeler(config: GrowthConfig, k: int) -> PseudoLabeler:
    """The labeler of the config's method."""
    grows = config.method in ("p2ot", "sp2ot")
    weight = config.semantic_weight if config.method == "sp2ot" else 0.0
    near = similarity(config.data, config.imbalance, config.seed, 20) if weight else None
    return PseudoLabeler(
        k,
        config.steps,
        schedule=RhoSchedule(config.rho0) if grows else RhoSchedule(kind="fixed"),
        reg_m=np.inf if config.method == "sela" else config.reg_m,
        semantic_weight=weight,
        similarity=near,
    )
