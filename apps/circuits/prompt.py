"""What is read and explained: the knobs of a circuit, in a row above the prompt's tokens, with prompts to try."""

from __future__ import annotations

from typing import Any, Literal

import streamlit as st
from ui import knobs
from ui.look import escaped

from lab.circuits.transcoders.models.languages import EXAMPLES
from lab.circuits.transcoders.views.circuit.experiment import CircuitConfig

PREFIX, READ = knobs.prefix("circuit"), "_circuit.read"
WIDTHS: dict[str, Literal["stretch", "content"] | int] = {"prompt": "stretch", "plus": 150, "minus": 150, "model": 215}
TO_TRY: dict[str, dict[str, str]] = {
    "An argument comes back": {"prompt": "def load(path):↵    with open(", "plus": "path", "minus": "file"},
    "A method names its field": {"prompt": "    def read(self, size):↵        return self.", "plus": "read"},
    "Key, then value": {"prompt": "for key, value in self.data.items():↵    yield key,", "plus": "␣value"},
    "is not None": {"prompt": "if x is not", "plus": "␣None", "minus": "␣sys"},
    "Lasted: a later year": {
        "model": "spans-1l",
        "prompt": "the war lasted from 1732 to 17",
        "plus": "##58",
        "minus": "##11",
    },
    "Rewound: an earlier year": {
        "model": "spans-1l",
        "prompt": "the war rewound from 1732 to 17",
        "plus": "##11",
        "minus": "##58",
    },
}


def draw_knobs(above: Any, more: Any, beside: Any) -> CircuitConfig:
    """Draw them: the primary ones in `above`, the rest folded away in `more`, prompts to try `beside` the tokens.

    Returns the Config they make; where the values do not go together, says so and returns the last that did.
    """
    drawn = {control.name: control for control in knobs.visible(CircuitConfig)}
    with above.container(horizontal=True, gap="small", key="knobs"):
        places = {name: st.container(width=WIDTHS[name], key=f"knob-{name}") for name in CircuitConfig.primary}
    folded = more.expander("More knobs")
    values: dict[str, Any] = {}
    for name in ("model", *(name for name in drawn if name != "model")):  # the prompt hangs on the model
        if name == "prompt":
            _follow(values["model"])
        with places.get(name, folded):
            values[name] = knobs.widget(drawn[name], PREFIX)
    st.session_state[READ] = values
    with more:
        knobs.reset(CircuitConfig, PREFIX, values)
    with beside.popover("Try", type="tertiary", icon=":material/lightbulb:", help="Prompts to begin with."):
        for name in TO_TRY:
            st.button(escaped(name), key=f"_try.{name}", on_click=_try, args=(name,), type="tertiary")
    return knobs.together(CircuitConfig, PREFIX, values, more)


def _follow(model: str) -> None:
    """Another model reads its own example, another prompt is read to its end: settled before their knobs are drawn.

    What was set anew together with them, by a link or a step of the tour, stays as it is.
    """
    before = st.session_state.get(READ, {})
    now = {
        name: knobs.knob_value("circuit", name, before.get(name)) for name in ("prompt", "plus", "minus", "position")
    }
    stays = {name for name in now if before and now[name] == before[name]}
    prompt = now["prompt"] or st.query_params.get(f"{PREFIX}prompt") or EXAMPLES["stdlib-gpt"]
    another = bool(before) and model != before["model"]
    fresh: dict[str, Any] = {}
    if (another and "prompt" in stays) or (prompt in EXAMPLES.values() and prompt != EXAMPLES[model]):
        fresh["prompt"] = EXAMPLES[model]
    if another:
        fresh |= dict.fromkeys(stays & {"plus", "minus"}, "")
    if "position" in stays and (another or "prompt" not in stays):
        fresh["position"] = -1
    knobs.set_knobs("circuit", **fresh)


def _try(name: str) -> None:
    knobs.put(CircuitConfig, PREFIX, CircuitConfig.parse(TO_TRY[name]))
