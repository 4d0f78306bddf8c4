"""The search behind tuned knobs: as many trials for every method, every one of them kept, the winner by a rule set before."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from lab import engine
from lab.experiment import Progress

Settings = Mapping[str, Any]
Trial = dict[str, Any]
Grid = Sequence[Settings] | Callable[[list[Trial]], Iterable[Settings]]
DIGITS = 5  # of what is kept


def search(
    score: Callable[..., Mapping[str, float]],
    grids: Mapping[str, Grid],
    seeds: Sequence[int],
    *,
    metric: str,
    rule: str,
    progress: Progress,
    better: Literal["higher", "lower"] = "higher",
    jobs: int = 1,
) -> dict[str, Any]:
    """Try every setting of every method on every seed; the best mean of `metric` wins, the earlier one on a tie.

    Parameters
    ----------
    score : callable
        score(name, settings, seed, *, progress) -> named numbers, `metric` among them; NaN and inf count as worst. It must
        be importable, since `jobs` processes call it.
    grids : mapping
        Name of a method -> the settings to try, or a function of all trials so far that gives them one after the other.
    seeds : sequence of int
        Other seeds than the ledger's.
    rule : str
        What is chosen and why, in words; stands in the record.

    Returns
    -------
    dict
        {"chosen": name -> settings, "trials": [{"method", "settings", metric: a number per seed, "mean", ...}], "seeds",
        "rule"}; of further numbers that `score` returns a trial keeps the mean.

    Examples
    --------
    >>> found = search(_parabola, {"square": [{"x": 0.0}, {"x": 1.0}]}, [0, 1], metric="height", rule="lowest", better="lower",
    ...                progress=lambda *_: None)
    >>> found["chosen"]
    {'square': {'x': 0.0}}
    """
    sign = 1.0 if better == "higher" else -1.0
    trials: list[Trial] = []
    chosen: dict[str, dict[str, Any]] = {}
    for place, (name, grid) in enumerate(grids.items()):
        settings_to_try = list(grid) if not callable(grid) else grid(trials)
        expected = len(grid) if not callable(grid) else 0
        best = -math.inf
        for tried, settings in enumerate(settings_to_try):
            share = min(tried / expected, 1.0) if expected else 0.0
            progress((place + share) / len(grids), f"{name} {dict(settings)}")
            call = functools.partial(score, name, dict(settings))
            rows = sorted(engine.replicate(call, seeds, jobs), key=lambda row: row.seed)
            trials.append(
                {"method": name, "settings": dict(settings), **_summary([row.values for row in rows], metric)}
            )
            mean = trials[-1]["mean"]
            if name not in chosen or sign * mean > best:
                best, chosen[name] = (sign * mean if math.isfinite(mean) else -math.inf), dict(settings)
    return {"chosen": chosen, "trials": trials, "seeds": list(seeds), "rule": rule}


def _summary(rows: Sequence[Mapping[str, float]], metric: str) -> dict[str, Any]:
    """Each seed's metric, its mean, and the means of the other numbers."""
    means = {name: round(math.fsum(row[name] for row in rows) / len(rows), DIGITS) for name in rows[0]}
    values = [round(row[metric], DIGITS) for row in rows]
    others = {name: mean for name, mean in means.items() if name != metric}
    return {metric: values, "mean": means[metric], **others}


def _parabola(name: str, settings: Settings, seed: int, *, progress: Progress) -> dict[str, float]:
    return {"height": settings["x"] ** 2 + seed}
