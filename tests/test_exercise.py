"""Verdicts of the notebooks' exercises: every kind of answer gets one, none gets a traceback."""

from __future__ import annotations

import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch

from lab import exercise as module
from lab.catalog import UnknownPaper
from lab.exercise import Exercise, UnknownExercise, Verdict, check, close, exercise, exercises


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A room in memory: two exercises, one of them about a function."""
    monkeypatch.setattr(module, "_REGISTRY", {})
    monkeypatch.setattr(module, "_load", lambda slug: None)

    @exercise("room:mean", question="The mean of 1 and 2?", hint="Add, then halve.", right=1.5, wrong=3)
    def mean(answer: float) -> str | None:
        return None if close(answer, 1.5) else "That is the sum."

    @exercise("room:square", question="Write the square.", right=lambda: lambda x: x * x, wrong=lambda: lambda x: x + x)
    def square(answer: types.FunctionType) -> str | None:
        return None if close(answer(3.0), 9) else "At 3 it is not 9."

    @exercise("room:vector", question="The vector (1, 2)?", right=[1, 2], wrong=[2, 1])
    def vector(answer: object) -> str | None:
        return None if close(answer, [1, 2]) else "Not that one."


def test_each_judge_tells_its_right_answer_from_its_wrong_one() -> None:
    found = exercises("room")
    assert [each.key for each in found] == ["room:mean", "room:square", "room:vector"]
    for each in found:
        right, wrong = each.answers()
        assert check(each.key, right).state == "right"
        assert check(each.key, wrong).state == "not yet"


@pytest.mark.parametrize(
    "empty", [None, ..., "", "  ", [], (), {}, np.array([]), np.ones((3, 0)), torch.empty(0), pd.DataFrame()], ids=repr
)
def test_nothing_is_not_an_answer(empty: object) -> None:
    verdict = check("room:mean", empty)
    assert verdict.state == "not answered" and not verdict
    assert verdict.message == "The mean of 1 and 2?"


@pytest.mark.parametrize("right", [1.5, np.float32(1.5), np.array(1.5), torch.tensor(1.5, requires_grad=True), 1.5004])
def test_right_answers_of_every_numeric_type(right: object) -> None:
    assert check("room:mean", right)


@pytest.mark.parametrize(
    "answer",
    [
        "1.5",
        b"1.5",
        True,
        1.5j,
        {"a": 1},
        {1.5},
        object(),
        type,
        lambda: 1.5,
        [1.5, [2]],
        ["a"],
        [1.5, 2.0],
        np.ones((2, 2)),
        torch.ones(3, 4),
        torch.tensor([1.0, 5.0], requires_grad=True),
        pd.DataFrame({"a": [1.5, 2]}),
        np.array(["x"]),
        np.array([None], dtype=object),
        10**400,
        float("inf"),
        0,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("key", ["room:mean", "room:vector", "room:square"])
def test_an_answer_of_a_wrong_type_or_shape_gets_a_sentence(key: str, answer: object) -> None:
    verdict = check(key, answer)
    assert verdict.state == "not yet"
    assert verdict.message.endswith((".", "halve.")) and "\n" not in verdict.message


@pytest.mark.parametrize(
    "nan", [float("nan"), [1.0, float("nan")], np.array([1, np.nan]), torch.tensor([float("nan")]), np.float32("nan")]
)
def test_nan_is_named(nan: object) -> None:
    assert "NaN" in check("room:mean", nan).message


def test_wrong_shape_is_named() -> None:
    assert "(2,), not (3,)" in check("room:vector", [1, 2, 3]).message


def test_a_readers_function_may_fail_in_any_way() -> None:
    def broken(x: float) -> float:
        return undefined_name * x  # type: ignore[name-defined]

    assert "NameError" in check("room:square", broken).message
    assert "ZeroDivisionError" in check("room:square", lambda x: 1 / 0).message


def test_a_hint_follows_not_yet_alone() -> None:
    assert check("room:mean", 3).message == "That is the sum. Hint: Add, then halve."
    assert check("room:mean", 1.5).message == ""


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(UnknownExercise, match="did you mean 'room:mean'"):
        check("room:maen", 1)
    with pytest.raises(UnknownExercise, match="no exercise 'nonsense'"):
        check("nonsense")


def test_bad_keys_and_taken_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="key must look like"):
        exercise("room", question="?", right=1, wrong=2)
    with pytest.raises(ValueError, match="taken by"):
        exercise("room:mean", question="?", right=1, wrong=2)(lambda answer: None)


def test_registering_the_same_judge_again_is_a_reload() -> None:
    judge = exercises("room")[0].judge
    exercise("room:mean", question="Again?", right=1.5, wrong=3)(judge)
    assert check("room:mean").message == "Again?"


def test_a_judge_that_returns_something_else_is_a_bug_that_shows() -> None:
    exercise("room:bug", question="?", right=1, wrong=2)(lambda answer: False)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="must return None or a sentence"):
        check("room:bug", 1)


def test_html_escapes_what_the_reader_typed() -> None:
    def echo(answer: object) -> str | None:
        return f"Not {answer}."

    exercise("room:echo", question="<b>?", right=1, wrong=2)(echo)
    shown = check("room:echo", "<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    assert "&lt;b&gt;?" in check("room:echo")._repr_html_()


def test_a_verdict_reads_well() -> None:
    assert repr(Verdict("room:mean", "right")) == "✓ right (room:mean)"
    assert repr(check("room:mean")) == "○ not answered (room:mean): The mean of 1 and 2?"


def test_close_is_relative_to_the_largest_value() -> None:
    assert close([1000.5, 0.4], [1000, 0]) and not close([1002, 0], [1000, 0])
    assert close(0.0009, 0) and not close(0.002, 0)
    assert close(np.empty(0), np.empty(0))
    assert not close(float("nan"), 1)
    assert close(1.05, 1, rel=0.1)
    with pytest.raises(TypeError, match="real number"):
        close("1", 1)
    with pytest.raises(ValueError, match="shape"):
        close([1], 1)


def test_a_rooms_exercises_are_imported_when_first_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(module, "_REGISTRY", {})
    monkeypatch.setattr(module.catalog, "get", lambda slug: types.SimpleNamespace(module="fake_theme.fake_room"))
    monkeypatch.syspath_prepend(tmp_path)
    assert exercises("fake-room") == ()  # planned: no such room yet
    room = tmp_path / "fake_theme" / "fake_room"
    room.mkdir(parents=True)
    (room.parent / "__init__.py").touch()
    (room / "__init__.py").touch()
    assert exercises("fake-room") == ()  # a room without exercises
    (room / "exercises.py").write_text(
        "from lab.exercise import exercise\n\n"
        "@exercise('fake-room:one', question='One?', right=1, wrong=2)\n"
        "def one(answer):\n    return None if answer == 1 else 'Not one.'\n"
    )
    try:
        assert check("fake-room:one", 1)
        assert isinstance(exercises("fake-room")[0], Exercise)
        (room / "exercises.py").write_text("import a_package_that_is_not_installed\n")
        monkeypatch.delitem(sys.modules, "fake_theme.fake_room.exercises")
        with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_installed"):
            exercises("fake-room")
    finally:
        for name in [name for name in sys.modules if name.startswith("fake_theme")]:
            del sys.modules[name]


def test_an_unknown_slug_is_the_catalogs_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(UnknownPaper, match="sp2ot"):
        check("sp2o:virtual-mass", 1)
