"""The page of a paper whose room is not built: what it is, and that it is not there yet."""

import streamlit as st
import ui

from lab.catalog import Card


def show(card: Card) -> None:
    """Identity, idea and notes of a planned paper."""
    ui.header(card)
    st.info("This paper is planned. Its method, notebook, page and measured claims are not built yet.")
    if svg := ui.thumbnail(card):
        st.markdown(f"<div style='max-width:420px'>{svg}</div>", unsafe_allow_html=True)
    ui.notes(card)
