"""The reader's own names of units: one beside each dashboard, and a file of them to bring or to take home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st
from ui.jobs import sentence
from ui.look import escaped

if TYPE_CHECKING:
    from lab.circuits.transcoders.models.languages import LanguageName
    from lab.circuits.transcoders.units.activations import UnitKind
    from lab.circuits.transcoders.units.labels import Labels
    from lab.circuits.transcoders.views.features.experiment import FeatureResult

TROUBLE, DONE, VERSION = "_label.trouble", "_label.done", "_label.version"


def labels(model: LanguageName, kind: UnitKind) -> Labels:
    """The reader's labels; where their file is damaged, it is said, and there are none."""
    from lab.circuits.transcoders.units.labels import Labels
    from lab.circuits.transcoders.views.own_labels import own_labels

    try:
        return own_labels(model, kind)
    except (ValueError, OSError) as error:
        st.session_state[TROUBLE] = sentence(error)
        return Labels()


def edit(known: Labels, board: FeatureResult) -> None:
    """A line to name the unit that is shown, and the door to the file."""
    version = st.session_state.get(VERSION, 0)
    key = f"_label.{version}.{board.model}.{board.kind}.{board.layer}.{board.unit}"
    st.text_input(
        "Your label",
        value=known.get((board.layer, board.unit), ""),
        max_chars=200,
        key=key,
        on_change=_name,
        args=(key, board),
        placeholder="what does it stand for?",
        help="Kept in your folder on this machine; circuits and scatter plots show it.",
    )
    with st.popover(f"Labels file ({len(known)})", type="tertiary", icon=":material/label:"):
        st.download_button(
            "Your labels as JSON",
            known.to_json,
            file_name=f"labels-{board.model}-{board.kind}.json",
            mime="application/json",
            on_click="ignore",
            icon=":material/download:",
            key="_label.get",
        )
        file = st.file_uploader(
            "**Labels to add**: JSON or CSV with layer, feature and label, up to 5 MB",
            type=["json", "csv"],
            max_upload_size=5,
            key=f"_label.file.{board.model}.{board.kind}",
        )
        if file is not None and st.session_state.get("_label.taken") != file.file_id:
            _take(file, board)
            st.rerun()
        st.caption("They replace yours of the same units, and stay on this machine.")
    if trouble := st.session_state.pop(TROUBLE, ""):
        st.error(escaped(trouble))
    if done := st.session_state.pop(DONE, ""):
        st.success(escaped(done))


def _name(key: str, board: FeatureResult) -> None:
    from lab.circuits.transcoders.views.own_labels import put_label

    try:
        put_label(board.model, board.kind, board.layer, board.unit, st.session_state[key])
    except (ValueError, OSError) as error:
        st.session_state[TROUBLE] = sentence(error)


def _take(file: Any, board: FeatureResult) -> None:
    from lab.circuits.transcoders.units.labels import Labels
    from lab.circuits.transcoders.views.own_labels import add_labels

    st.session_state["_label.taken"] = file.file_id
    try:
        fresh, replaced = add_labels(board.model, board.kind, Labels.read(file.getvalue(), name=file.name))
    except Exception as error:  # a file is hostile until proven otherwise: whatever its reader raises is one sentence
        st.session_state[TROUBLE] = sentence(error)
        return
    st.session_state[DONE] = f"{fresh:,} new, {replaced:,} replaced."
    st.session_state[VERSION] = st.session_state.get(VERSION, 0) + 1  # what was typed before gives way to the file
