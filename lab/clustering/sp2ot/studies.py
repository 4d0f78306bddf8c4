"""What the ledger measures: the digits comparison over seeds, and two exact statements that need none.

A seed of `digits` makes everything anew: the images kept and which class is rare, the encoder's pre-training on these
images, every method's training. Its knobs were tuned on other seeds (`tuning`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import product

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from lab.clustering.sp2ot.certificate import first_order_spread
from lab.clustering.sp2ot.digits_experiment import COLUMNS, DigitsConfig, columns
from lab.clustering.sp2ot.semantic import relative_weight, sp2ot_plan
from lab.clustering.sp2ot.similarity import knn_similarity
from lab.clustering.sp2ot.transport import partial_uot
from lab.clustering.sp2ot.tuned import CHOSEN
from lab.clustering.sp2ot.tuning import tune
from lab.experiment import Progress, study

SAMPLES, DIMENSIONS = 150, 5
MASSES, WEIGHTS = (0.1, 0.3, 0.6, 0.9), (0.05, 0.2, 1.0, 5.0)
SIZE_WEIGHTS = (0.1, 1.0, 10.0, np.inf)


@study(
    "digits",
    "Seven clusterings of long-tailed digits",
    columns=COLUMNS,
    replication="training",
    seeds=range(100, 112),
    tune=tune,
    chosen=CHOSEN,
)
def measure_digits(seed: int, *, progress: Progress) -> dict[str, float]:
    """One replicate of the comparison, in percent; see `digits_experiment.columns`."""
    return columns(DigitsConfig(seed=seed), progress)


def problems() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Six problems with a truth behind them: features (150, 5) of k long-tailed blobs and the cost (150, k) of a head
    that is partly right; k in 3, 5, 10, sharp and blunt."""
    for k, sharpness in product((3, 5, 10), (0.5, 1.5)):
        rng = np.random.default_rng(1000 * k + int(10 * sharpness))
        share = 10.0 ** (-np.arange(k) / (k - 1))
        truth = rng.choice(k, SAMPLES, p=share / share.sum())
        features = 1.5 * rng.standard_normal((k, DIMENSIONS))[truth] + rng.standard_normal((SAMPLES, DIMENSIONS))
        logits = sharpness * (rng.standard_normal((SAMPLES, k)) + 2.0 * np.eye(k)[truth])
        yield features, np.log(np.exp(logits).sum(1, keepdims=True)) - logits


@study(
    "descent",
    "Does majorize-minimize descend?",
    columns=("rise_shifted", "rise_plain", "share_rising"),
    replication=None,
)
def measure_descent(seed: int, *, progress: Progress) -> dict[str, float]:
    """Largest rise of F between two majorize-minimize steps, over 96 problems.

    `rise_shifted`: with a similarity made positive semidefinite; `rise_plain`: with the kNN similarity as it is, and
    `share_rising`: the share of problems in which it rises then. In the unit of the cost; negative where F always falls.
    """
    rises: dict[bool, list[float]] = {True: [], False: []}
    everything = list(problems())
    for number, (features, cost) in enumerate(everything, 1):
        near = knn_similarity(features, 15)
        for rho, weight, shift in product(MASSES, WEIGHTS, (True, False)):
            lam = relative_weight(weight, SAMPLES, rho)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # that it may rise is what is measured
                log = sp2ot_plan(cost, near, rho, lam, psd_shift=shift, tol=1e-11, max_mm=60, log=True)[1]
            rises[shift].append(float(np.diff(log["objective"]).max()))
        progress(number / len(everything), f"problem {number} of {len(everything)}")
    return {
        "rise_shifted": max(rises[True]),
        "rise_plain": max(rises[False]),
        "share_rising": float(np.mean(np.array(rises[False]) > 1e-9)),
    }


@study("certificate", "Is the plan optimal?", columns=("first_order", "mass", "capacity"), replication=None)
def measure_certificate(seed: int, *, progress: Progress) -> dict[str, float]:
    """Largest violation of the first-order condition, of the mass, and of the rows' capacities, over 120 solves."""
    worst = {"first_order": 0.0, "mass": 0.0, "capacity": 0.0}
    everything = list(problems())
    for number, (_, cost) in enumerate(everything, 1):
        for rho, reg_m in product((*MASSES, 1.0), SIZE_WEIGHTS):
            plan = partial_uot(cost, rho, reg_m=reg_m, tol=1e-11, max_iter=5000)
            worst["first_order"] = max(worst["first_order"], first_order_spread(plan, cost, rho, reg_m=reg_m))
            worst["mass"] = max(worst["mass"], abs(float(plan.sum()) - rho))
            worst["capacity"] = max(worst["capacity"], float(plan.sum(1).max()) * SAMPLES - 1.0)
        progress(number / len(everything), f"problem {number} of {len(everything)}")
    return worst
