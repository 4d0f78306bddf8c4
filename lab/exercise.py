"""The notebooks' "your turn": a question, a judge of the answer, and a verdict that reads well in a cell.

A room registers its questions in `lab/<theme>/<room>/exercises.py`; they are loaded when one is first asked for.
"""

from __future__ import annotations

import difflib
import html
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lab import catalog

Judge = Callable[[Any], str | None]
State = Literal["not answered", "right", "not yet"]

_REGISTRY: dict[str, Exercise] = {}
_KEY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*:[a-z0-9]+(-[a-z0-9]+)*")
_COLOURS: dict[State, str] = {"not answered": "#8a8a8a", "right": "#0b8f6f", "not yet": "#c8741a"}
_MARKS: dict[State, str] = {"not answered": "○", "right": "✓", "not yet": "…"}


class UnknownExercise(ValueError):
    """No exercise has this key; the text names the nearest one."""


@dataclass(frozen=True)
class Exercise:
    """A question, its judge, and an answer of either kind that the judge must tell apart.

    `judge(answer)` returns None for a right answer, else a sentence that says what is off without giving it away.
    """

    key: str
    question: str
    hint: str
    judge: Judge
    right: object
    wrong: object

    def answers(self) -> tuple[object, object]:
        """The right and the wrong example answer; an example that is callable is called to make one.

        >>> Exercise("demo:sum", "1 + 1?", "", lambda answer: None, right=2, wrong=lambda: 1 + 2).answers()
        (2, 3)
        """
        right, wrong = (example() if callable(example) else example for example in (self.right, self.wrong))
        return right, wrong


@dataclass(frozen=True)
class Verdict:
    """What came of an answer; true where it is right.

    >>> Verdict("demo:sum", "not yet", "That is too much.")
    … not yet (demo:sum): That is too much.
    """

    key: str
    state: State
    message: str = ""

    def __bool__(self) -> bool:
        return self.state == "right"

    def __repr__(self) -> str:
        return f"{_MARKS[self.state]} {self.state} ({self.key}){': ' + self.message if self.message else ''}"

    def _repr_html_(self) -> str:
        colour = _COLOURS[self.state]
        return (
            f'<div style="border-left:3px solid {colour};padding:.15em .7em">'
            f'<b style="color:{colour}">{_MARKS[self.state]} {self.state}</b> {html.escape(self.message)}</div>'
        )


def exercise(key: str, *, question: str, hint: str = "", right: object, wrong: object) -> Callable[[Judge], Judge]:
    """Register the decorated judge under `key`, "<slug>:<name>".

    `right` and `wrong` are example answers, or functions without arguments that make one (for an answer that is
    itself a function, or that takes time); tests feed both to the judge. `hint` follows every "not yet".
    Raises `ValueError` for a key of another form, or one that another function has.

    >>> @exercise("demo:half", question="What is half of 3?", right=1.5, wrong=2)
    ... def half(answer: float) -> str | None:
    ...     return None if close(answer, 1.5) else "Twice your answer is not 3."
    >>> check("demo:half", 2)
    … not yet (demo:half): Twice your answer is not 3.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"key must look like 'sp2ot:virtual-mass' (slug, colon, name), got {key!r}")

    def register(judge: Judge) -> Judge:
        known = _REGISTRY.get(key)
        if known is not None and _origin(known.judge) != _origin(judge):  # the same one again is a reload
            raise ValueError(f"key {key!r} is taken by {'.'.join(_origin(known.judge))}")
        _REGISTRY[key] = Exercise(key, question, hint, judge, right, wrong)
        return judge

    return register


def check(key: str, answer: object = None) -> Verdict:
    """Judge `answer` to the exercise `key`: "not answered", "right", or "not yet" with a sentence.

    None, ..., blank text and empty collections count as not answered. An answer that the judge cannot work with
    (another type or shape, NaN, a function that fails) is "not yet" and says why; it never raises.
    Raises `UnknownExercise` for a key that does not exist and `lab.catalog.UnknownPaper` for such a slug.

    >>> @exercise("demo:third", question="What is a third of 3?", right=1, wrong=3)
    ... def third(answer: float) -> str | None:
    ...     return None if close(answer, 1) else "Three times your answer is not 3."
    >>> check("demo:third"), bool(check("demo:third", 1.0))
    (○ not answered (demo:third): What is a third of 3?, True)
    """
    asked = _find(key)
    try:
        if _is_empty(answer):
            return Verdict(key, "not answered", asked.question)
        said = "Your answer holds NaN." if _has_nan(answer) else asked.judge(answer)
    except Exception as error:  # the answer may be the reader's own function: whatever it does is theirs to read
        first = next(iter(str(error).splitlines()), "")[:200].rstrip(".") or "it fails"
        kind = "" if isinstance(error, (TypeError, ValueError)) else f"{type(error).__name__}: "
        said = f"Your answer could not be judged: {kind}{first}."
    if said is None:
        return Verdict(key, "right")
    if not isinstance(said, str):
        raise TypeError(f"the judge of {key!r} must return None or a sentence, got {said!r}")
    return Verdict(key, "not yet", f"{said} Hint: {asked.hint}" if asked.hint else said)


def exercises(slug: str) -> tuple[Exercise, ...]:
    """All exercises of a room, in the order of their registration; empty where the room has none.

    Raises `lab.catalog.UnknownPaper` for an unknown slug.
    """
    _load(slug)
    return tuple(known for key, known in _REGISTRY.items() if key.partition(":")[0] == slug)


def close(answer: object, truth: object, rel: float = 1e-3) -> bool:
    """Whether a number or array is the true one: |answer - truth| <= rel * max |truth| everywhere.

    Where `truth` is all zero, `rel` itself is the bound.

    Raises `TypeError` where `answer` holds no real numbers and `ValueError` where its shape is not that of `truth`;
    `check` makes a sentence of either.

    >>> close(3.1416, 3.14159), close([1, 2.1], [1, 2])
    (True, False)
    """
    given, true = _real(answer), _real(truth)
    if given.shape != true.shape:
        raise ValueError(f"the shape must be {true.shape}, not {given.shape}")
    scale = float(np.abs(true).max(initial=0.0)) or 1.0
    return bool(np.all(np.abs(given - true) <= rel * scale))


def _find(key: str) -> Exercise:
    slug, colon, _ = key.partition(":")
    if key not in _REGISTRY and colon:
        _load(slug)
    if key in _REGISTRY:
        return _REGISTRY[key]
    near = difflib.get_close_matches(key, _REGISTRY, n=1, cutoff=0)
    raise UnknownExercise(f"there is no exercise {key!r}{f'; did you mean {near[0]!r}?' if near else ''}")


def _load(slug: str) -> None:
    """Import the room's exercises; a room that is not built yet, or has none, registers nothing."""
    module = f"{catalog.get(slug).module}.exercises"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the room itself needs is not installed


def _origin(judge: Judge) -> tuple[str, str]:
    return judge.__module__, judge.__qualname__


def _is_empty(answer: object) -> bool:
    if answer is None or answer is ...:
        return True
    if isinstance(answer, str):
        return not answer.strip()
    if 0 in (getattr(answer, "shape", None) or ()):
        return True
    try:
        return len(answer) == 0  # type: ignore[arg-type]
    except TypeError:  # a number, a function: nothing that could be empty
        return False


def _has_nan(answer: object) -> bool:
    """Whether a number, an array, a tensor or a list of these differs from itself."""
    if isinstance(answer, (list, tuple)):
        return any(_has_nan(item) for item in answer)
    if isinstance(answer, (int, float, complex)) or hasattr(answer, "__array__"):
        return bool(np.any(np.asarray(answer != answer)))
    return False


def _real(value: object) -> np.ndarray:
    detach = getattr(value, "detach", None)  # a torch tensor may be on the way to a gradient
    array = np.asarray(detach().cpu() if detach else value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"it must be a real number, or an array of them, not {type(value).__name__}")
    return array.astype(np.float64)
