"""A Config's knobs as Streamlit controls, bound to the address; what a link gave wrong is replaced, and said."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from lab.experiment import Config, ConfigError
from lab.knobs import Control, controls


def config(kind: type[Config], *, beside: Any, below: Any) -> Config:
    """Draw the primary knobs in `beside`, the rest folded in `below`; returns the Config, or stops with one sentence.

    Widget keys are the fields' names, which are also the address's parameters.
    """
    drawn = [control for control in controls(kind) if not control.private or os.environ.get("LAB_ALLOW_MODELS") == "1"]
    given = {control.name: st.query_params.get(control.name) for control in drawn}
    with beside:
        values = {control.name: _draw(control) for control in drawn if control.primary}
    folded = [control for control in drawn if not control.primary]
    if folded:
        with below.expander("More knobs"):
            values |= {control.name: _draw(control) for control in folded}
    for sentence in replaced(drawn, given, values):
        beside.warning(sentence)
    try:
        return kind.parse(values)
    except ConfigError as error:
        st.error(str(error))
        st.stop()


def replaced(drawn: Sequence[Control], given: Mapping[str, str | None], values: Mapping[str, Any]) -> list[str]:
    """A sentence for every parameter of the address that could not be used as it was."""
    said = []
    for control in drawn:
        text = given[control.name]
        if text is not None and not _same(text, values[control.name]):
            said.append(
                f"The link asked for {control.label} = {text[:40]!r}; that is not possible, so {values[control.name]} is used."
            )
    return said


def _same(text: str, value: Any) -> bool:
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    if isinstance(value, int | float):
        try:
            return abs(float(text) - value) <= 1e-9 * max(1.0, abs(value))
        except ValueError:
            return False
    return text == str(value)


def _draw(control: Control) -> Any:
    common: dict[str, Any] = {"key": control.name, "help": control.help}
    if not control.private:
        common["bind"] = "query-params"
    fresh = control.name not in st.session_state
    if control.kind == "toggle":
        return st.toggle(control.label, **common, **({"value": control.default} if fresh else {}))
    if control.kind == "choice":
        if len(control.options) <= 4:
            start = {"default": control.default} if fresh else {}
            return st.segmented_control(control.label, control.options, required=True, **common, **start)
        start = {"index": control.options.index(control.default)} if fresh else {}
        return st.selectbox(control.label, control.options, **common, **start)
    start = {"value": control.default} if fresh else {}
    if control.kind == "log":
        return st.select_slider(
            control.label, options=control.options, format_func=lambda value: f"{value:g}", **common, **start
        )
    if control.kind == "text":
        return st.text_input(control.label, max_chars=control.max_length, **common, **start)
    draw = st.number_input if control.kind == "number" else st.slider
    number = int if control.kind in ("int", "number") else float
    bounds = {
        "min_value": number(control.low or 0),
        "max_value": number(control.high or 0),
        "step": number(control.step or 1),
    }
    if fresh:
        start = {"value": number(control.default)}
    return draw(control.label, **bounds, **common, **start)
