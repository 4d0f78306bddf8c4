"""The page of a paper whose room is not built: what it is about, and that it is not there yet."""

from __future__ import annotations

import streamlit as st
import ui

from lab.catalog import Card


def show(card: Card) -> None:
    """Identity, picture, references and notes of a planned paper."""
    ui.identity(card)
    st.info(
        "Planned. The lab has no method, no notebook and no measurement for this paper yet; this page only says what "
        "it is about.",
        icon=":material/hourglass_empty:",
    )
    picture, text = st.columns([1, 1.6], gap="large")
    with picture.container(key="planned"):
        st.markdown(ui.thumbnail(card), unsafe_allow_html=True)
    with text:
        ui.references(card)
