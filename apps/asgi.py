"""The dashboard's entry: `streamlit run apps/asgi.py`. An unforeseen error becomes one sentence, never a traceback."""

import logging
from pathlib import Path

import streamlit as st


def one_sentence(error: Exception) -> bool:
    """Log what happened for the one who runs the server; tell the reader what to do. True: nothing else is shown."""
    logging.getLogger("lab").error("a page failed", exc_info=error)
    st.error(
        f"This page stumbled over something it did not foresee ({type(error).__name__}). Reload it, or reset its knobs."
    )
    return True


app = st.App(str(Path(__file__).with_name("main.py")), on_script_error=one_sentence)
