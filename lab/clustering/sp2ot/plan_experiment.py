"""Experiment `plan`: one pseudo-labelling problem under the microscope. Which samples get a label, and which one?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning

from lab.clustering.sp2ot.certificate import first_order_spread
from lab.clustering.sp2ot.metrics import precision
from lab.clustering.sp2ot.scenes import MAX_IMBALANCE, DataName, half_trained, scene, similarity
from lab.clustering.sp2ot.semantic import relative_weight, sp2ot_plan
from lab.clustering.sp2ot.similarity import symmetrised
from lab.clustering.sp2ot.transport import METHODS, partial_uot
from lab.experiment import Config, Progress, experiment, knob

SAFE_EXPONENT = 600.0  # beyond it exp(-cost / reg) leaves float64, and plain scaling cannot run at all
HARD = 1000.0  # the size weight from which on cluster sizes are forced
MAX_MM = 40  # a weight so large that the plan swings for ever shows it by then
ITERATIONS = (1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 200, 400)


class PlanConfig(Config):
    """Knobs of one pseudo-labelling problem."""

    primary: ClassVar[tuple[str, ...]] = ("data", "rho", "reg_m", "semantic_weight")

    data: DataName = knob("blobs", "what is clustered: points in the plane, or pictures of digits")
    rho: float = knob(0.3, "share of all samples that gets a label", label="mass ρ", ge=0.05, le=1.0, step=0.05)
    reg_m: float = knob(
        1.0,
        "how hard cluster sizes are pulled to equal; 1000 forces them",
        label="size weight γ",
        ge=0.01,
        le=HARD,
        scale="log",
    )
    semantic_weight: float = knob(
        0.0,
        "how strongly neighbours share a label; fades as ρ grows",
        label="neighbour weight λ",
        ge=0.0,
        le=2.0,
        step=0.05,
    )
    reg: float = knob(0.1, "how soft the labels are", label="entropy ε", ge=0.02, le=1.0, scale="log")
    imbalance: float = knob(20.0, "largest class over smallest", ge=1.0, le=MAX_IMBALANCE, scale="log")
    neighbors: int = knob(20, "neighbours per sample in the similarity", ge=2, le=50)
    psd_shift: bool = knob(False, "add the diagonal that makes the similarity positive semidefinite")
    seed: int = knob(0, "draws the data and the head", ge=0, le=20)


@dataclass(frozen=True)
class PlanResult:
    """One plan: n samples, K classes; cluster columns are matched to the classes, so column k is class k's.

    points (n, 2) map, truth (n,), class_names; plan (n, K+1) = N Q with the virtual column last, rows sum to 1;
    label (n,) the largest real column; sizes, true_sizes, prior (K,) shares of clusters, classes, and the target;
    objective: step, total, transport, semantic, kl, entropy of every majorize-minimize step; rises: the steps at which
    it rose; residual: first-order certificate (unit of the cost); mass: real mass; threshold: probability from which on
    a sample gives more than half of itself (0 at rho = 1); precision_selected, precision_all: share of right labels in
    the selected mass, and in all samples at rho = 1; solvers: solver, iteration, error (L1 distance to the exact plan);
    plain scaling is left out where its kernel would overflow.
    """

    points: np.ndarray
    truth: np.ndarray
    class_names: tuple[str, ...]
    plan: np.ndarray
    label: np.ndarray
    sizes: np.ndarray
    true_sizes: np.ndarray
    prior: np.ndarray
    objective: pd.DataFrame
    rises: tuple[int, ...]
    residual: float
    mass: float
    threshold: float
    precision_selected: float
    precision_all: float
    solvers: pd.DataFrame


@experiment("plan", "One pseudo-labelling problem", cost="live")
def run_plan(config: PlanConfig, *, progress: Progress) -> PlanResult:
    """Solve the problem, at the chosen mass and at full mass, and follow three solvers to its plan."""
    dataset = scene(config.data, config.imbalance, config.seed)
    cost, _ = half_trained(config.data, config.imbalance, config.seed)
    near = similarity(config.data, config.imbalance, config.seed, config.neighbors)
    n, k = cost.shape
    lam = relative_weight(config.semantic_weight, n, config.rho)
    options: dict[str, Any] = {"reg": config.reg, "reg_m": np.inf if config.reg_m >= HARD else config.reg_m}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the picture shows where F rises, and which solver is slow
        plan, log = sp2ot_plan(
            cost, near, config.rho, lam, psd_shift=config.psd_shift, max_mm=MAX_MM, log=True, **options
        )
        full = partial_uot(cost, 1.0, **options)
        # the cost of the last majorize-minimize step, C - lambda (S + S^T) Q
        pulled = cost - lam * (symmetrised(near, config.psd_shift)[0] @ plan) if lam else cost
        solvers = _convergence(pulled, config.rho, options)
    mass = n * plan.sum(1)
    columns = plan.sum(0)
    return PlanResult(
        points=dataset.points,
        truth=dataset.truth,
        class_names=dataset.class_names,
        plan=np.column_stack([n * plan, np.clip(1.0 - mass, 0.0, 1.0)]).astype(np.float32),
        label=plan.argmax(1),
        sizes=columns / columns.sum(),
        true_sizes=dataset.true_sizes,
        prior=np.full(k, 1.0 / k),
        objective=pd.DataFrame(
            {
                "step": np.arange(len(log["objective"])),
                "total": log["objective"],
                "transport": log["terms"]["transport"],
                "semantic": log["terms"]["semantic"],
                "kl": log["terms"]["column_kl"],
                "entropy": log["terms"]["entropy"],
            }
        ),
        rises=tuple(log["rises"]),
        residual=first_order_spread(plan, cost, config.rho, **options) if lam == 0 else float(log["residual"]),
        mass=float(log["mass"]),
        threshold=_threshold(log["g"], columns, config),
        precision_selected=precision(dataset.truth, plan.argmax(1), mass),
        precision_all=precision(dataset.truth, full.argmax(1)),
        solvers=solvers,
    )


def _threshold(g: np.ndarray, columns: np.ndarray, config: PlanConfig) -> float:
    """The probability from which on a sample gives more than half of itself.

    Row i does once sum_j p_ij^(1/eps) exp(g_j) > exp(g_{K+1}): for a sample sure of one cluster of average potential g,
    once p > exp(eps (g_{K+1} - g)).
    """
    if config.rho == 1.0:
        return 0.0
    average = float(columns @ g[:-1] / columns.sum())
    return float(np.exp(np.clip(config.reg * (g[-1] - average), -50.0, 0.0)))


def _convergence(cost: np.ndarray, rho: float, options: dict[str, Any]) -> pd.DataFrame:
    """How far each solver is from the exact plan after so many iterations: solver, iteration, error."""
    exact = partial_uot(cost, rho, tol=1e-12, **options)
    rows: list[tuple[str, int, float]] = []
    bounded = float(np.abs(cost).max()) / options["reg"] < SAFE_EXPONENT
    for solver in METHODS if bounded else [name for name in METHODS if name != "scaling"]:
        for most in ITERATIONS:
            plan, log = partial_uot(cost, rho, method=solver, tol=1e-10, max_iter=most, log=True, **options)
            rows.append((solver, int(log["n_iter"]), float(np.abs(plan - exact).sum())))
            if log["converged"]:
                break
    return pd.DataFrame(rows, columns=["solver", "iteration", "error"])
