"""A Config's knobs on a page: drawn from their declaration, bound to the address, judged by the Config itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import streamlit as st

from lab.experiment import Config, ConfigError
from lab.knobs import Control, controls
from ui.address import NONSENSE, bound
from ui.look import escaped

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

C = TypeVar("C", bound=Config)
VIEW = "view"  # the key of the choice of experiment, in the address and in the session
_SHORT_LIST = 4


def prefix(view: str) -> str:
    """What the knobs and choices of a view, which is one experiment, are called in the address: `plan.rho`."""
    return f"{view}."


def show_view(view: str, /, **values: Any) -> None:
    """Bring another of the room's experiments on stage, with some of its knobs or choices set.

    To be called before they are drawn: in what a button or a click calls, or at the top of the page.
    """
    st.session_state[VIEW] = view
    set_knobs(view, **values)


def set_knobs(view: str, /, **values: Any) -> None:
    """Set some knobs or choices of a view, before they are drawn."""
    for name, value in values.items():
        st.session_state[prefix(view) + name] = value


def knob_value(view: str, name: str, default: Any = None) -> Any:
    """The value of a knob or choice of a view; the default where it was not drawn in this session."""
    return st.session_state.get(prefix(view) + name, default)


def draw(config: type[C], prefix: str) -> C:
    """The primary knobs, the rest in an expander; returns the Config they make.

    Where the values do not go together, says so in one sentence and returns the last Config that did.
    """
    drawn = visible(config)
    values = {control.name: widget(control, prefix) for control in drawn if control.primary}
    if rest := [control for control in drawn if not control.primary]:
        with st.expander("More knobs"):
            values |= {control.name: widget(control, prefix) for control in rest}
    reset(config, prefix, values)
    return together(config, prefix, values, st.container())


def reset(config: type[Config], prefix: str, values: Mapping[str, Any]) -> None:
    """Draw the button that sets all knobs back, off where none was moved."""
    moved = any(values[control.name] != control.default for control in visible(config))
    st.button(
        "Reset the knobs",
        key=f"_reset.{prefix}",
        on_click=put,
        args=(config, prefix, config()),
        type="tertiary",
        icon=":material/restart_alt:",
        disabled=not moved,
    )


def together(config: type[C], prefix: str, values: Mapping[str, Any], messages: DeltaGenerator) -> C:
    """The Config of the knobs' values; where they do not go together, `messages` says so and it is the last that did."""
    last = f"_good.{prefix}"
    try:
        st.session_state[last] = config.parse(values)
    except ConfigError as error:
        messages.error(escaped(str(error)) + " The picture shows the last knobs that went together.")
        st.session_state.setdefault(last, config())
    return st.session_state[last]


def visible(config: type[Config]) -> list[Control]:
    """The knobs a reader sees: private ones (paths, hub ids) only after `lab open --allow-models`."""
    allowed = os.environ.get("LAB_ALLOW_MODELS") == "1"
    return [control for control in controls(config) if allowed or not control.private]


def put(config_type: type[Config], prefix: str, config: Config) -> None:
    """Set all knobs to a Config's values; before they are drawn."""
    values = config.model_dump(mode="json")
    for control in visible(config_type):
        st.session_state[prefix + control.name] = values[control.name]


def widget(control: Control, prefix: str) -> Any:
    """One knob; its value."""
    key = prefix + control.name
    if control.private:
        return _streamlit_widget(control, key=key, bind=None)
    return bound(
        key,
        lambda: _streamlit_widget(control, key=key, bind="query-params"),
        understand=lambda text: understand(control, text),
        allowed=allowed(control),
        default=control.default,
    )


def _streamlit_widget(control: Control, **common: Any) -> Any:
    common |= {"label": escaped(control.label), "help": escaped(control.help)}
    if control.kind == "toggle":
        return st.toggle(value=control.default, **common)
    if control.kind == "text":
        return st.text_input(value=control.default, max_chars=control.max_length, **common)
    if control.kind == "choice":
        if len(control.options) > _SHORT_LIST:
            return st.selectbox(options=control.options, index=control.options.index(control.default), **common)
        return st.segmented_control(
            options=control.options, default=control.default, required=True, wrap=True, **common
        )
    if control.kind == "log":
        now = st.session_state.get(common["key"], control.default)
        options = sorted({*control.options, now, *_asked(control, common["key"])})  # a tour or a link may ask between
        return st.select_slider(options=options, value=control.default, format_func=lambda v: f"{v:g}", **common)
    kind = int if control.kind in ("int", "number") else float
    numbers = {"min_value": control.low, "max_value": control.high, "value": control.default, "step": control.step}
    numbers = {name: kind(value) for name, value in numbers.items() if value is not None}
    return st.number_input(**numbers, **common) if control.kind == "number" else st.slider(**numbers, **common)


def _asked(control: Control, key: str) -> list[float]:
    """The value in the address, if it is one that the knob takes."""
    try:
        value = float(st.query_params.get(key, ""))
    except ValueError:
        return []
    assert control.low is not None and control.high is not None
    return [value] if control.low <= value <= control.high else []


def understand(control: Control, text: str) -> Any:
    """The value that the address's text stands for; NONSENSE or ValueError for none."""
    if control.kind == "toggle":
        return {"true": True, "false": False}.get(text.lower(), NONSENSE)
    if control.kind == "choice":
        return {str(option): option for option in control.options}.get(text, NONSENSE)
    return text if control.kind == "text" else float(text)


def allowed(control: Control) -> str:
    """What a knob takes, in words."""
    if control.kind == "toggle":
        return "true or false"
    if control.kind == "choice":
        return ", ".join(map(str, control.options))
    if control.kind == "text":
        return f"at most {control.max_length} characters"
    whole = "whole numbers from " if control.kind in ("int", "number") else ""
    return f"{whole}{control.low:g} to {control.high:g}"
