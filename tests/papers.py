"""All ready papers, their experiments and what these answer at their small Configs: what the contract tests walk over."""

from __future__ import annotations

import functools
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save

from lab import catalog, rooms
from lab.experiment import Config, Experiment
from lab.views import View

READY = catalog.ready()
each_paper = pytest.mark.parametrize("card", READY, ids=[card.slug for card in READY])
# The live ones; what takes longer than a moment even at its small Config has tests of its own beside its room.
EXPERIMENTS = [
    (card.slug, key) for card in READY for key, shown in rooms.experiments(card).items() if shown.cost == "live"
]
each_experiment = pytest.mark.parametrize(("slug", "key"), EXPERIMENTS, ids=["-".join(pair) for pair in EXPERIMENTS])


def experiment(slug: str, key: str) -> Experiment:
    """An experiment of a paper."""
    return rooms.experiments(catalog.get(slug))[key]


def views(slug: str) -> tuple[View, ...]:
    """The views of a paper's page."""
    return rooms.figures(catalog.get(slug)).VIEWS


def small(shown: Experiment) -> tuple[Config, Any]:
    """The small Config of an experiment, and for one that takes a file an example of it."""
    return shown.small_config(), None if shown.inputs is None else example(shown.inputs)


@functools.cache
def answers(slug: str, key: str) -> tuple[Any, Any]:
    """What an experiment answers at its small Config, asked twice."""
    shown = experiment(slug, key)
    return shown(*small(shown)), shown(*small(shown))


def answer(slug: str, key: str) -> Any:
    """What an experiment answers at its small Config; computed once for all tests of a file."""
    return answers(slug, key)[0]


def example(kind: Any) -> Any:
    """A small file of the first kind that a reader may bring, read; for selections, which are no files, none is chosen."""
    if not kind.accept:
        return kind()
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(30, 2)), rng.normal(size=(10, 2)) + 6])
    table = pd.DataFrame(rows, columns=["width", "height"]).assign(label=["many"] * 30 + ["few"] * 10)
    files = {
        ".csv": table.to_csv(index=False).encode(),
        ".safetensors": save({"a": rng.normal(size=(6, 8)).astype(np.float32)}),
    }
    suffix = next(suffix for suffix in kind.accept if suffix in files)
    return kind.read(files[suffix], name=f"example{suffix}")


def assert_equal(one: Any, two: Any, name: str = "result") -> None:
    """Two Results are the same in all their numbers, words, arrays and frames, types included."""
    assert type(one) is type(two), name
    if is_dataclass(one):
        for field in fields(one):
            assert_equal(getattr(one, field.name), getattr(two, field.name), f"{name}.{field.name}")
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, two, check_exact=True, obj=name)
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype, name
        np.testing.assert_array_equal(one, two, err_msg=name, strict=True)
    elif isinstance(one, dict):
        assert list(one) == list(two), name
        for key in one:
            assert_equal(one[key], two[key], f"{name}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), name
        for place, pair in enumerate(zip(one, two, strict=True)):
            assert_equal(*pair, f"{name}[{place}]")
    else:
        assert one == two or (one != one and two != two), name
