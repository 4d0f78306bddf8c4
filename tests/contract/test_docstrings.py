"""Docstrings of what papers offer: numpydoc, with the parameters of the signature, and every section that applies."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from papers import READY

from lab import catalog, rooms

PUBLIC = [(card.slug, name) for card in READY for name in rooms.method(card).__all__]
SECTIONS = ("Parameters", "Returns", "Yields", "Attributes", "Raises", "Notes", "References", "Examples", "See Also")


def sections(text: str) -> dict[str, str]:
    """The text below each heading of a docstring; what stands before the first heading is called ""."""
    parts = re.split(rf"^({'|'.join(SECTIONS)})\n-+\n", text, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(section: str) -> list[str]:
    """The names that a section explains: its lines that are not indented, up to the colon; `a, b : float` names two."""
    lines = [line for line in section.splitlines() if line and not line[0].isspace()]
    return [name.strip("* ") for line in lines for name in line.split(" : ")[0].split(",")]


def complaints(thing: Any) -> list[str]:
    """What the docstring of a function or class lacks.

    >>> def half(x: float) -> float:
    ...     "Half of it."
    ...     return x / 2
    >>> complaints(half)
    ['no Parameters', 'no Returns', 'no Examples']
    """
    said = sections(inspect.getdoc(thing) or "")
    body = thing if inspect.isfunction(thing) else _made_by(thing)
    taken = [name for name in inspect.signature(thing).parameters if name not in ("self", "cls")]
    found = []
    if taken and "Parameters" not in said and "Attributes" not in said:
        found.append("no Parameters")
    explained = entries(said.get("Parameters", "")) + entries(said.get("Attributes", ""))
    if explained:
        found += [f"{name} is not explained" for name in taken if name not in explained]
        found += [f"there is no parameter {name}" for name in entries(said.get("Parameters", "")) if name not in taken]
    if inspect.isfunction(thing) and _gives(thing) and not {"Returns", "Yields"} & set(said):
        found.append("no Returns")
    if body is not None and _raises(body) and "Raises" not in said:
        found.append("no Raises")
    if ">>>" not in said.get("Examples", ""):
        found.append("no Examples")
    return found


def _made_by(kind: type) -> Callable[..., Any] | None:
    """What runs when a class is called, where its author wrote it."""
    written = [vars(kind)[name] for name in ("__init__", "__post_init__", "__new__") if name in vars(kind)]
    return next((body for body in written if inspect.isfunction(body) and _source(body)), None)


def _gives(function: Callable[..., Any]) -> bool:
    return inspect.signature(function).return_annotation not in (None, "None", inspect.Signature.empty)


def _raises(function: Callable[..., Any]) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(_source(function) or "pass")))


def _source(function: Callable[..., Any]) -> str:
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    except (OSError, TypeError):
        return ""  # made by a decorator, as a dataclass's __init__ is


@pytest.mark.parametrize(("slug", "name"), PUBLIC, ids=["-".join(pair) for pair in PUBLIC])
def test_a_public_name_is_documented(slug: str, name: str) -> None:
    thing = getattr(rooms.method(catalog.get(slug)), name)
    if not callable(thing) or not inspect.getmodule(thing):
        return  # a constant, which its comment explains
    if isinstance(thing, type) and issubclass(thing, Exception):
        assert inspect.getdoc(thing)
        return
    assert not complaints(inspect.unwrap(thing)), complaints(inspect.unwrap(thing))
