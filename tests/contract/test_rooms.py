"""The contract, walked over every ready paper: doors, page, notebook, claims, records, knobs, tour, exercises."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest

from lab import catalog, exercise, ledger, paths, results, rooms
from lab.catalog import Card
from lab.commands import check, notebooks
from lab.experiment import Config, ConfigError
from lab.knobs import controls

READY = catalog.ready()
ready = pytest.mark.parametrize("card", READY, ids=[card.slug for card in READY])


@ready
def test_doors(card: Card) -> None:
    method = rooms.method(card)
    assert method.__all__ and all(hasattr(method, name) for name in method.__all__)
    for name in method.__all__:
        assert inspect.getdoc(getattr(method, name)), f"{card.slug}: {name} has no docstring"
    assert rooms.experiments(card) and rooms.studies(card)
    assert card.page.exists()
    assert card.notebook.exists()
    assert card.thumbnail.exists()


@ready
def test_claims_have_rules_and_columns(card: Card) -> None:
    studies, races, recorded = rooms.studies(card), rooms.races(card), ledger.shipped(card.slug)
    assert card.claims
    for claim in card.claims:
        if claim.rule.name == "out_of_reach":
            continue
        assert claim.study in (races if claim.rule.name == "race" else studies), claim.key
        if claim.rule.name != "race":
            wanted = set(claim.rule.levels) if claim.rule.name == "ordered" else {claim.method, claim.baseline} - {""}
            assert wanted <= set(recorded[claim.study].rows[0]["values"]), claim.key


@ready
def test_everything_claimed_is_recorded_by_this_code(card: Card) -> None:
    for line in ledger.standings(card):
        assert line.ours.verdict != "not measured", f"{line.claim.key}: {line.ours.reason}"
        assert not line.stale, f"{line.claim.key} was recorded by older code: lab measure {card.slug} --record"


@ready
def test_recorded_results_are_there_and_load(card: Card) -> None:
    for experiment, config in rooms.recorded_configs(card):
        folder = results.shipped_folder(experiment, config)
        _, record = results.load(folder, experiment.result)
        assert not record.stale, f"{folder.name}: lab measure {card.slug} --record"
        assert sum(path.stat().st_size for path in folder.iterdir()) <= results.MAX_SHIPPED_BYTES


@ready
def test_tuned_knobs_are_the_search_s_winners(card: Card) -> None:
    recorded = ledger.shipped(card.slug)
    for study in rooms.studies(card).values():
        if study.tune is None:
            continue
        tuning = recorded[study.key].tuning
        assert tuning and tuning["trials"], f"{study.key}: lab measure {card.slug} --tune --record"
        assert tuning["chosen"] == dict(study.chosen or {})
        assert not set(tuning["seeds"]) & set(study.seeds), "tuned on the ledger's own seeds"


@ready
def test_knobs_are_drawn_and_refuse_nonsense(card: Card) -> None:
    for experiment in rooms.experiments(card).values():
        assert 0 < len(experiment.config.primary) <= 4
        for control in controls(experiment.config):
            for nonsense in _nonsense(control):
                with pytest.raises(ConfigError) as caught:
                    experiment.config.parse({control.name: nonsense})
                assert "\n" not in str(caught.value)
        with pytest.raises(ConfigError, match="no such knob"):
            experiment.config.parse({"no_such_knob": 1})


def _nonsense(control: Any) -> list[Any]:
    if control.kind == "toggle":
        return ["perhaps"]
    if control.kind == "choice":
        return ["none of these"]
    if control.kind == "text":
        return ["x" * (control.max_length + 1)]
    return [math.nan, math.inf, control.low - 1, control.high + 1, "many"]


@ready
def test_tour(card: Card) -> None:
    assert 3 <= len(card.tour) <= 6
    experiments = rooms.experiments(card)
    for step in card.tour:
        config = experiments[step.experiment].config.parse(step.config)
        assert isinstance(config, Config) and step.text.strip()


@ready
def test_exercises_tell_right_from_wrong(card: Card) -> None:
    found = exercise.exercises(card.slug)
    assert 2 <= len(found) <= 4
    for task in found:
        right, wrong = task.answers()
        assert exercise.check(task.key, right).state == "right", task.key
        assert exercise.check(task.key, wrong).state == "not yet", task.key
        assert exercise.check(task.key).state == "not answered", task.key


def test_the_audit_finds_nothing() -> None:
    assert check.findings() == []


def test_the_audit_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {name: tmp_path / name for name in ("data", "apps", "notebooks")}
    for folder in shared.values():
        folder.mkdir()
    (shared["data"] / "checkpoints" / "unregistered").mkdir(parents=True)
    (shared["data"] / "model.pkl").write_bytes(b"")
    (shared["data"] / "large.safetensors").write_bytes(bytes(check.MAX_FILE + 1))
    (shared["notebooks"] / "long.ipynb").write_bytes(bytes(notebooks.MAX_BYTES + 1))
    (tmp_path / "README.md").write_text("no table")
    monkeypatch.setattr(paths, "shared", shared.__getitem__)
    found = " ".join(check.findings())
    assert all(name in found for name in ("model.pkl", "large.safetensors", "long.ipynb", "README.md"))
    assert "checkpoints/unregistered is not in lab/assets.toml" in found and "the asset stdlib-gpt is not in" in found
