"""What the page's address carries: knobs and choices, kept while other views are open, and what a link got wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import streamlit as st

T = TypeVar("T")
NONSENSE = object()  # equal to no value of a knob
_NO_KNOBS = frozenset({"present", "step"})


@dataclass
class _Page:
    """What a session knows of one page's address; it outlives widgets that are not drawn.

    values    of the knobs and choices drawn so far, by name
    refusals  what the address asked of them in vain: the value shown instead, and a sentence
    unknown   sentences on names and steps that the page does not have
    """

    values: dict[str, Any] = field(default_factory=dict)
    refusals: dict[str, tuple[Any, str]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


def on_page(name: str) -> None:
    """Say which page is being drawn; called before it is."""
    st.session_state["_page"] = name


def _page() -> _Page:
    """The page that is being drawn."""
    pages: dict[str, _Page] = st.session_state.setdefault("_address", {})
    return pages.setdefault(st.session_state.get("_page", ""), _Page())


def bound(key: str, draw: Callable[[], T | None], *, understand: Callable[[str], Any], allowed: str, default: T) -> T:
    """Draw a widget whose key stands in the address; remember its value, and note what the address asked in vain.

    draw        draws the widget with `key=key, bind="query-params"` and returns its value
    understand  the value that the address's text stands for, NONSENSE or a ValueError for none
    allowed     what would be right, for the sentence: "0 to 1"
    default     what counts where an empty value in the address left the widget without one
    """
    page = _page()
    asked = st.query_params.get(key)
    first = key not in page.values
    if asked is None and not first and key not in st.session_state:
        st.session_state[key] = page.values[key]
    drawn = draw()
    value = default if drawn is None else drawn
    wrong = first and asked is not None and not _same(_understood(understand, asked), value)
    _remember(page, key, value, asked if wrong else None, allowed)
    return value


def select(label: str, options: list[str], *, default: str, required: bool, wrap: bool, **common: Any) -> str:
    """A drop-down with the arguments of a segmented control."""
    return st.selectbox(label, options, index=options.index(default), **common)


def choose(label: str, options: Mapping[str, str], *, key: str, kind: Callable[..., Any] = st.segmented_control) -> str:
    """One of a few named options; `options` maps what the address says to what the reader sees. The first is the default.

    Streamlit's own binding would write what the reader sees, so the address is kept here.
    """
    page = _page()
    names = list(options)
    asked = st.query_params.get(key)
    first = key not in page.values
    if first and asked in options:
        st.session_state.setdefault(key, asked)
    elif not first and key not in st.session_state:
        st.session_state[key] = page.values[key]
    value = kind(
        label,
        names,
        default=names[0],
        required=True,
        format_func=options.__getitem__,
        key=key,
        label_visibility="collapsed",
        wrap=True,
    )
    wrong = first and asked not in options
    _remember(page, key, value, asked if wrong else None, ", ".join(names))
    if value == names[0]:
        st.query_params.pop(key, None)
    elif asked != value:
        st.query_params[key] = value
    return value


def choose_title(label: str, titles: Sequence[str], *, key: str, kind: Callable[..., Any]) -> str:
    """One of a few titles, by `choose`; the address says it in lower case, with hyphens for blanks."""
    names = {in_address(title): title for title in titles}
    return names[choose(label, names, key=key, kind=kind)]


def in_address(title: str) -> str:
    """How the address says a title.

    >>> in_address("On the map")
    'on-the-map'
    """
    return title.lower().replace(" ", "-")


def drawn_names() -> set[str]:
    """The knobs and choices that this page has drawn in this session."""
    return set(_page().values)


def _remember(page: _Page, key: str, value: Any, refused: str | None, allowed: str) -> None:
    """Keep a widget's value; note what the address asked in vain, and forget it once the widget has moved."""
    if refused is not None:
        sentence = f"`{key}` cannot be `{_harmless(refused)}`: it takes {allowed}. `{_short(value)}` is shown."
        page.refusals[key] = value, sentence
    elif key in page.refusals and page.refusals[key][0] != value:
        del page.refusals[key]
    page.values[key] = value


def complain(key: str, asked: str, allowed: str) -> None:
    """Note that the address asked for something there is not."""
    _page().unknown[key] = f"`{key}` cannot be `{_harmless(asked)}`: it takes {allowed}."


def complaints(known: Callable[[str], bool] = lambda name: False) -> None:
    """Say in one box what the address got wrong; `known` tells which names belong to what is not drawn just now."""
    page = _page()
    for name in st.query_params:
        if name not in _NO_KNOBS and name not in page.values and not known(name):
            page.unknown[name] = f"There is no knob `{_harmless(name)}` on this page."
    sentences = [sentence for _, sentence in page.refusals.values()] + list(page.unknown.values())
    if sentences:
        st.warning("The link was not quite right. " + " ".join(sentences[:4]), icon=":material/link_off:")


def _understood(understand: Callable[[str], Any], asked: str) -> Any:
    try:
        return understand(asked)
    except (ValueError, KeyError, OverflowError):
        return NONSENSE


def _same(asked: Any, value: Any) -> bool:
    if isinstance(asked, float) and isinstance(value, int | float):
        return math.isclose(asked, value, rel_tol=1e-9)
    return bool(asked == value)


def _harmless(text: str) -> str:
    return re.sub(r"[^\w.,+\- ]", "?", text)[:40]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else _harmless(str(value))
