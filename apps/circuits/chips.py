"""A prompt as a row of clickable tokens: the one that is read to stands out, those behind it are faint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import streamlit as st

_HTML = """
<div class="row" role="radiogroup" aria-label="Read the prompt up to this token"></div>
"""
_CSS = """
.row {display: flex; flex-wrap: wrap; gap: 4px; padding: 2px;}
.row.one-line {flex-wrap: nowrap; overflow-x: auto; scrollbar-width: none;}
.row.one-line button {flex: none;}
button {
  font: 0.84rem/1.25 var(--st-code-font), monospace; color: var(--st-text-color); white-space: pre; cursor: pointer;
  background: var(--st-secondary-background-color); padding: 4px 7px; min-height: 30px; min-width: 26px;
  border: 1px solid var(--st-border-color); border-radius: 7px; border-bottom-width: 3px;
}
button:hover, button:focus-visible {border-color: var(--st-primary-color); outline: none;}
button.used {border-bottom-color: var(--st-primary-color);}
button.unread {opacity: .5;}
button[aria-checked=true] {
  background: var(--st-primary-color); border-color: var(--st-primary-color); color: var(--st-background-color);
}
"""
_JS = """
export default function({parentElement, data, setTriggerValue}) {
  const row = parentElement.querySelector(".row")
  row.classList.toggle("one-line", data.one_line)
  row.replaceChildren(...data.pieces.map((piece, place) => {
    const chip = document.createElement("button")
    chip.textContent = piece
    chip.type = "button"
    chip.setAttribute("role", "radio")
    chip.setAttribute("aria-checked", place === data.position)
    chip.classList.toggle("used", data.used.includes(place))
    chip.classList.toggle("unread", place > data.position)
    chip.title = place > data.position ? "not read; click to read up to here" : "click to read up to here"
    chip.onclick = () => setTriggerValue("chosen", place)
    return chip
  }))
  const current = row.children[data.position]
  if (data.one_line && current) row.scrollLeft = current.offsetLeft - row.offsetLeft - row.clientWidth / 2
}
"""
_CHIPS = st.components.v2.component("lab.chips", html=_HTML, css=_CSS, js=_JS)


def chips(
    pieces: Sequence[str],
    position: int,
    *,
    key: str,
    used: Collection[int] = (),
    one_line: bool = False,
    chosen: Callable[[int], None],
) -> None:
    """Draw the tokens.

    position  the last one that is read
    used      underlined: those that matter
    one_line  scrolls sideways instead of taking a second line
    chosen    called with a token's place when it is clicked, before the page runs again
    """

    def clicked() -> None:
        place = st.session_state[key].chosen
        if place is not None:
            chosen(int(place))

    data = {"pieces": list(pieces), "position": position, "used": sorted(used), "one_line": one_line}
    _CHIPS(key=key, data=data, on_chosen_change=clicked)
