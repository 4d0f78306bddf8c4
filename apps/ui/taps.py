"""Taps on charts whose points are clicked.

Plotly answers a touch with what was under the touch before it, and keeps a finger from scrolling the page. Browsers make
mouse events of a tap that nobody handles, and those it gets right: so touches are kept from it.
"""

from __future__ import annotations

import streamlit as st

_JS = """
export default function({data}) {
  const mine = event => event.target.closest?.(`.${data.chart} .nsewdrag`) && event.stopImmediatePropagation()
  document.addEventListener("touchstart", mine, {capture: true})
  return () => document.removeEventListener("touchstart", mine, {capture: true})
}
"""
_TAPS = st.components.v2.component("lab.taps", js=_JS)


def taps(chart: str) -> None:
    """Make taps on a chart count at once; `chart` is the key it was drawn with."""
    _TAPS(
        key=f"_taps.{chart}", data={"chart": "st-key-" + "".join(c if c.isalnum() or c in "-_" else "-" for c in chart)}
    )
