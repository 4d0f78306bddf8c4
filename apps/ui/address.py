"""What the page's address carries: knobs and choices, kept while other views are open, and what a link got wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import streamlit as st

T = TypeVar("T")
NONSENSE = object()  # equal to no value of a knob
_OTHER = frozenset({"present", "step"})


def _page(kind: str) -> dict[str, Any]:
    """This page's notebook of one kind ("kept" values, "wrong" values), which outlives widgets that are not drawn."""
    place = st.session_state.setdefault("_address", {}).setdefault(st.session_state.get("_page", ""), {})
    return place.setdefault(kind, {})


def bound(key: str, draw: Callable[[], T | None], *, understand: Callable[[str], Any], allowed: str, default: T) -> T:
    """Draw a widget whose key stands in the address; remember its value, and note what the address asked in vain.

    draw        draws the widget with `key=key, bind="query-params"` and returns its value
    understand  the value that the address's text stands for, NONSENSE or a ValueError for none
    allowed     what would be right, for the sentence: "0 to 1"
    default     what counts where an empty value in the address left the widget without one
    """
    kept, wrong = _page("kept"), _page("wrong")
    asked = st.query_params.get(key)
    first = key not in kept
    if asked is None and not first and key not in st.session_state:
        st.session_state[key] = kept[key]
    value = draw()
    value = default if value is None else value
    if first and asked is not None and not _same(_understood(understand, asked), value):
        wrong[key] = (value, _refusal(key, asked, allowed, value))
    elif key in wrong and wrong[key][0] != value:
        del wrong[key]
    kept[key] = value
    return value


def select(label: str, options: list[str], *, default: str, required: bool, wrap: bool, **common: Any) -> str:
    """A drop-down with the arguments of a segmented control."""
    return st.selectbox(label, options, index=options.index(default), **common)


def choose(label: str, options: Mapping[str, str], *, key: str, kind: Callable[..., Any] = st.segmented_control) -> str:
    """One of a few named options; `options` maps what the address says to what the reader sees. The first is the default.

    Streamlit's own binding would write what the reader sees, so the address is kept here.
    """
    names = list(options)
    kept, wrong = _page("kept"), _page("wrong")
    asked = st.query_params.get(key)
    if key not in kept and asked in options:
        st.session_state.setdefault(key, asked)
    elif key in kept and key not in st.session_state:
        st.session_state[key] = kept[key]
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
    if key not in kept and asked is not None and asked not in options:
        wrong[key] = (value, _refusal(key, asked, ", ".join(names), value))
    elif key in wrong and wrong[key][0] != value:
        del wrong[key]
    kept[key] = value
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
    return set(_page("kept"))


def complain(key: str, asked: str, allowed: str) -> None:
    """Note that the address asked for something there is not."""
    _page("strangers")[key] = f"`{key}` cannot be `{_harmless(asked)}`: it takes {allowed}."


def complaints(known: Callable[[str], bool] = lambda name: False) -> None:
    """Say in one box what the address got wrong; `known` tells which names belong to what is not drawn just now."""
    sentences = [sentence for _, sentence in _page("wrong").values()]
    drawn, strangers = _page("kept"), _page("strangers")
    for name in st.query_params:
        if name not in _OTHER and name not in drawn and not known(name):
            strangers[name] = f"There is no knob `{_harmless(name)}` on this page."
    sentences += strangers.values()
    if sentences:
        st.warning("The link was not quite right. " + " ".join(sentences[:4]), icon=":material/link_off:")


def _refusal(key: str, asked: str, allowed: str, value: Any) -> str:
    return f"`{key}` cannot be `{_harmless(asked)}`: it takes {allowed}. `{_short(value)}` is shown."


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
