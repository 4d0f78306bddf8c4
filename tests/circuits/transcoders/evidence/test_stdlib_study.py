"""The studies on `stdlib-gpt` run, their columns are what they say, and matching at equal L0 is right where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lab.circuits.transcoders.attribution.contributions import attribute_run
from lab.circuits.transcoders.attribution.frozen_run import FrozenRun, LogitDiff
from lab.circuits.transcoders.attribution.greedy_paths import greedy_paths
from lab.circuits.transcoders.attribution.published_paths import published_paths
from lab.circuits.transcoders.coders.coder import CoderConfig, Transcoder
from lab.circuits.transcoders.coders.matched_sparsity import matched_ratio, read_off
from lab.circuits.transcoders.coders.training import CoderTraining
from lab.circuits.transcoders.evidence import races, stdlib_study, stdlib_tuning
from lab.circuits.transcoders.models import stdlib_sweep
from lab.circuits.transcoders.models.stdlib import StdlibTexts, hooked
from lab.experiment import no_progress

TINY = CoderTraining(steps=2, batch=64, warm_up=1, buffer=256)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WIDTH", 40), ("MEASURED", 2), ("LENGTH", 16), ("PROMPTS", 2), ("PROMPT", 12)):
        for module in (stdlib_study, stdlib_sweep):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(stdlib_tuning, "LENGTH", 16)
    for module in (stdlib_study, stdlib_sweep):
        monkeypatch.setattr(module, "StdlibTexts", lambda part, length=16: StdlibTexts("held_out", length))
    monkeypatch.setattr(stdlib_study, "PROBES", 1)


def random_coders() -> dict[int, Transcoder]:
    generator = torch.Generator().manual_seed(0)
    found = {layer: Transcoder(CoderConfig(256, 300, 256), generator=generator) for layer in range(4)}
    return {layer: coder.requires_grad_(False) for layer, coder in found.items()}


def test_power_laws_are_matched_exactly() -> None:
    """Curves c L0^-p are straight in log-log, so the ratio at matched L0 is that of their constants."""
    one, two = [8.0, 20.0, 55.0, 130.0], [15.0, 33.0, 90.0]
    high, low = [3 * value**-1.5 for value in one], [2 * value**-1.5 for value in two]
    assert matched_ratio(one, high, two, low) == pytest.approx(1.5)
    assert matched_ratio(two, low, one, high) == pytest.approx(1 / 1.5)
    assert math.isnan(matched_ratio([1.0, 2.0], [1.0, 1.0], [3.0, 4.0], [1.0, 1.0]))
    assert np.isnan(read_off(one, high, np.array([7.9, 131]))).all()
    with pytest.raises(ValueError, match="two points or more"):
        matched_ratio([1.0], [1.0], [3.0, 4.0], [1.0, 1.0])


class Places(StdlibTexts):
    """Instead of a text, the places of its tokens in the stream."""

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        return index[:, None] + torch.arange(self.length)


def test_halves_of_the_held_out_text_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdlib_sweep, "StdlibTexts", Places)
    tuning, ledger = (stdlib_sweep.texts(half, 5000, 16, seed=0) for half in ("tuning", "ledger"))
    assert tuning.max() < ledger.min() and ledger.max() < len(StdlibTexts("held_out", 16)) + 16
    assert not torch.equal(ledger, stdlib_sweep.texts("ledger", 5000, 16, seed=1))


def test_the_sweep_s_columns() -> None:
    found = stdlib_study.measure_pareto.run(0, progress=no_progress, training=TINY)
    for kind in ("transcoder", "sae"):
        l0 = [found[f"{kind}_{place}_l0"] for place in range(4)]
        assert all(0 <= value <= 40 for value in l0) and all(found[f"{kind}_{place}_kl"] > 0 for place in range(4))
    assert (
        sorted(found) == sorted(stdlib_study.measure_pareto.columns)
        and found["one"] == 1
        and {"added_ratio", "kl_ratio"} <= set(found)
    )


def test_the_circuits_columns() -> None:
    found = stdlib_study.measure_circuits.run(0, progress=no_progress, training=TINY)
    share = (found["ce_zero"] - found["ce_all"]) / (found["ce_zero"] - found["ce_none"])
    assert found["recovered"] == pytest.approx(share) and found["ce_zero"] > found["ce_middle"] > found["ce_none"]
    assert all(math.isfinite(found[name]) for name in ("path_drop", "few_drop", "random_drop", "path_forecast"))


def test_the_identity_holds_with_any_coders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdlib_study, "stdlib_coders", random_coders)
    found = stdlib_study.measure_identity(0)
    assert found["gap_float32"] < 1e-4 and found["gap_float64"] < 1e-9


def test_the_search_picks_the_lowest_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdlib_tuning, "RATES", (1e-9, 3e-2))
    monkeypatch.setattr(stdlib_tuning, "SEEDS", (0,))
    found = stdlib_tuning.tune(
        progress=no_progress, training=CoderTraining(steps=10, batch=64, warm_up=0, decay=0.0, buffer=256)
    )
    assert found["chosen"] == {"transcoder": 3e-2, "sae": 3e-2} and len(found["trials"]) == 4
    losses = [np.mean(trial["loss"]) for trial in found["trials"]]
    assert losses[1] < losses[0] and losses[3] < losses[2]


def test_the_plain_search_finds_the_same_paths() -> None:
    run = FrozenRun(hooked(), random_coders(), stdlib_sweep.texts("ledger", 1, 12, 0)[0])
    root = LogitDiff((5,), (9,))
    ours, theirs = greedy_paths(attribute_run(run, root), 3, 8), published_paths(run, root, 3, 8)
    assert [path.nodes for path in ours] == [nodes for nodes, _ in theirs]
    assert [path.value for path in ours] == pytest.approx([value for _, value in theirs], rel=1e-4, abs=1e-5)


def test_races_compare_like_with_like(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BATCH", 32), ("F", 48), ("ACTIVE", 4), ("THREADS", 1), ("LENGTHS", (8, 12)), ("QUICK", 1)):
        monkeypatch.setattr(races, name, value)
    monkeypatch.setattr(races, "stdlib_coders", random_coders)
    coded = {row["key"]: row for row in races.coding(quick=True)["rows"]}
    assert coded["decode-sparse"]["largest_difference"] < 1e-5 and coded["encode-decode"]["target"] == 0.8
    step = races.training_step(quick=True)
    assert step["rows"][0]["key"] == "step" and step["rows"][0]["ratio"]["min"] > 0
    assert len(step["rows"]) + len(step["not_installed"]) == 3
    paths = races.path_search.run(quick=True)
    assert [row["key"] for row in paths["rows"]] == ["paths-8", "paths-12"]
    assert all(row["largest_difference"] < 1e-4 for row in paths["rows"])
