"""Results come back as they were saved; a crash in the middle of a save leaves the old one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lab import paths, results
from lab.experiment import Config, ConfigError, Experiment, Study, knob
from lab.provenance import Record


@dataclass(frozen=True)
class Everything:
    number: float
    missing: float
    text: str
    nothing: None
    names: tuple[str, ...]
    array: Any
    view: Any
    waves: Any
    words: Any
    frame: Any
    nested: dict[str, Any]


def sample() -> Everything:
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    return Everything(
        number=1.5,
        missing=float("nan"),
        text="ρ",
        nothing=None,
        names=("a", "b"),
        array=grid,
        view=grid.T[::2],
        waves=np.array([1 + 2j]),
        words=np.array(["x", "yy"]),
        frame=pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
        nested={"m": {"k": grid[:, 1]}, "list": [1, float("inf")]},
    )


def record() -> Record:
    return Record.now(Study("sp2ot", "k", "k", dict, None), 0.1, opened={})


def test_round_trip(tmp_path: Path) -> None:
    kept = sample()
    results.save(tmp_path / "r", kept, record())
    found, stamp = results.load(tmp_path / "r", Everything)
    assert stamp.slug == "sp2ot" and not stamp.stale
    assert (found.number, found.text, found.nothing, found.names) == (1.5, "ρ", None, ("a", "b"))
    assert np.isnan(found.missing) and found.nested["list"] == [1, float("inf")]
    np.testing.assert_array_equal(found.view, kept.view)  # a strided view: safetensors alone would scramble it
    np.testing.assert_array_equal(found.waves, kept.waves)
    np.testing.assert_array_equal(found.nested["m"]["k"], kept.array[:, 1])
    assert found.words.tolist() == ["x", "yy"]
    pd.testing.assert_frame_equal(found.frame, kept.frame)


def test_a_failed_save_leaves_the_old_result(tmp_path: Path) -> None:
    results.save(tmp_path / "r", sample(), record())
    bad = Everything(**{**sample().__dict__, "array": object()})
    with pytest.raises(TypeError, match="array"):
        results.save(tmp_path / "r", bad, record())
    assert results.load(tmp_path / "r", Everything)[0].text == "ρ"
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("name", ["result.json", "record.json", "arrays.safetensors"])
def test_a_damaged_result_names_its_folder(tmp_path: Path, name: str) -> None:
    results.save(tmp_path / "r", sample(), record())
    (tmp_path / "r" / name).write_bytes(b"{")
    with pytest.raises(ValueError, match="r cannot be read"):
        results.load(tmp_path / "r", Everything)


class Counting(Config):
    n: int = knob(3, "how many", ge=1, le=10)


@dataclass(frozen=True)
class Counted:
    values: Any


def count(config: Counting, *, progress: Any) -> Counted:
    progress(1.0)
    return Counted(np.arange(config.n))


EXPERIMENT = Experiment("sp2ot", "counting", "Counting", count, "run", Counting, Counted)


def test_a_readers_run_is_found_again() -> None:
    assert results.find(EXPERIMENT, Counting()) is None
    results.run_and_store(EXPERIMENT, Counting(n=4))
    found = results.find(EXPERIMENT, Counting(n=4))
    assert found is not None and found.origin == "yours"
    np.testing.assert_array_equal(found.result.values, np.arange(4))
    assert results.find(EXPERIMENT, Counting(n=5)) is None


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("LAB_HOME", str(blocked / "below"))
    with pytest.raises(paths.FolderError, match="cannot write to"):
        paths.user_folder("results")
    assert results.find(EXPERIMENT, Counting(n=4)) is None


def test_config_refuses_in_one_sentence() -> None:
    for values, said in [
        ({"n": 0}, "n: "),
        ({"n": 11}, "n: "),
        ({"n": "x"}, "n: "),
        ({"m": 1}, "m: there is no such knob"),
    ]:
        with pytest.raises(ConfigError, match=said) as caught:
            Counting.parse(values)
        assert "\n" not in str(caught.value)


def test_fingerprint_follows_the_values() -> None:
    assert Counting().fingerprint() == Counting(n=3).fingerprint() != Counting(n=4).fingerprint()


def test_experiment_checks_what_it_is_given() -> None:
    with pytest.raises(TypeError, match="inputs"):
        EXPERIMENT(Counting(), inputs=object())
    with pytest.raises(TypeError, match="config"):
        EXPERIMENT(Config())
