"""What a reader brings: a file, read within bounds; a wrong one gives one sentence and leaves the last good one in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from lab.experiment import Experiment
from ui.jobs import sentence
from ui.look import escaped


@dataclass(frozen=True)
class Sample:
    """A file to try: its name, its bytes, made when asked for, what it holds, and its MIME type."""

    name: str
    content: Callable[[], bytes]
    description: str
    mime: str = "text/csv"


def bring(experiment: Experiment, sample: Sample | None) -> Any | None:
    """The upload box with the sample beside it; returns the experiment's inputs, None while there are none."""
    kind = experiment.inputs
    assert kind is not None
    key = f"_inputs.{experiment.slug}.{experiment.key}"
    suffixes = [suffix.lstrip(".") for suffix in kind.accept]
    file = st.file_uploader(
        f"**Your file**: {', '.join(suffixes)}, up to {kind.max_megabytes} MB",
        type=suffixes,
        max_upload_size=kind.max_megabytes,
        key=f"_file.{experiment.key}",
        help="It stays on this machine and is forgotten when you close the page.",
    )
    if file is not None and st.session_state.get(f"{key}.id") != file.file_id:
        _read(key, file.file_id, lambda: kind.read(file.getvalue(), name=file.name), file.name)
    if sample is not None:
        with st.container(horizontal=True, gap="small"):
            if st.button(
                "Try the sample",
                type="tertiary",
                icon=":material/science:",
                key=f"_sample.{experiment.key}",
                help=sample.description,
            ):
                _read(key, "sample", lambda: kind.read(sample.content(), name=sample.name), sample.name)
            st.download_button(
                "Get it",
                sample.content,
                file_name=sample.name,
                mime=sample.mime,
                on_click="ignore",
                type="tertiary",
                icon=":material/download:",
                help="A file of the right form, to look at.",
                key=f"_get.{experiment.key}",
            )
    if trouble := st.session_state.get(f"{key}.trouble"):
        last_good = st.session_state.get(f"{key}.name")
        st.error(escaped(trouble) + (f" The page still shows {escaped(last_good)}." if last_good else ""))
    elif name := st.session_state.get(f"{key}.name"):
        st.caption(f"From {escaped(name)}")
    return st.session_state.get(key)


def _read(key: str, file_id: str, read: Callable[[], Any], name: str) -> None:
    """Read a file into the session; where that fails, the last good one stays and the trouble is kept as a sentence."""
    state = st.session_state
    state[f"{key}.id"] = file_id
    try:
        state[key] = read()
        state[f"{key}.name"] = name
        state[f"{key}.trouble"] = ""
    except Exception as error:  # a file is hostile until proven otherwise: whatever its reader raises is one sentence
        state[f"{key}.trouble"] = sentence(error)
