"""An experiment that takes longer: the recorded result at once, Run and Stop, progress, where the numbers come from."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from lab import paths, provenance, results
from lab.experiment import Config, Experiment, Progress
from lab.provenance import Record, opened_files
from lab.results import Stored
from ui.jobs import Job
from ui.look import escaped
from ui.verdicts import STALE

TICK = 0.5
REDRAW = 2.0  # seconds between two pictures of a run that is under way


def recorded(
    experiment: Experiment, config: Config, inputs: Any, note: Any, place: Any, show: Callable[[Any], None]
) -> None:
    """Show what is known of these knobs; run them when asked. `note` takes captions and buttons, `place` the picture."""
    root = f"{experiment.slug}.{experiment.key}"
    job: Job | None = st.session_state.get(f"_job.{root}")
    stored = _known(root, experiment, config, inputs)
    shown = stored or _fallback(root, experiment, inputs)
    with note:
        if job is not None:
            st.fragment(_watch, run_every=TICK)(root)
        else:
            st.button(
                "Run again" if stored else "Run",
                key=f"_run.{root}",
                icon=":material/play_arrow:",
                on_click=_start,
                args=(root, experiment, config, inputs),
                type="secondary" if stored else "primary",
            )
        if trouble := st.session_state.get(f"_trouble.{root}"):
            st.error(escaped(trouble))
        if shown is not None:
            _say(shown, exact=stored is not None)
    if job is not None and job.partial is not None:
        show(job.partial)
    elif shown is not None:
        show(shown.result)
    else:
        place.info("Nothing is recorded for these knobs yet. Press Run.", icon=":material/play_arrow:")


def _known(root: str, experiment: Experiment, config: Config, inputs: Any) -> Stored | None:
    """The result of exactly these knobs: this session's, else the reader's stored one, else the shipped one."""
    mine = st.session_state.get(f"_mine.{root}")
    if mine is not None and mine[0] == _identity(config, inputs):
        return mine[1]
    return results.find(experiment, config) if inputs is None else None


def _fallback(root: str, experiment: Experiment, inputs: Any) -> Stored | None:
    """What to look at until these knobs have run: this session's last run, else the record of the default knobs."""
    mine = st.session_state.get(f"_mine.{root}")
    if mine is not None and (inputs is None or mine[0][1] == inputs.fingerprint()):
        return mine[1]
    return results.find(experiment, experiment.config()) if inputs is None else None


def _identity(config: Config, inputs: Any) -> tuple[str, str]:
    return config.fingerprint(), inputs.fingerprint() if inputs is not None else ""


def _say(shown: Stored, *, exact: bool) -> None:
    if not exact:
        st.info("These knobs have not run yet: the picture shows an earlier run. Press Run for yours.")
    whose = "Your run" if shown.origin == "yours" else "The lab's run"
    st.caption(f"{whose}, {escaped(provenance.describe(shown.record))}{' ' + STALE if shown.record.stale else ''}")


def _start(root: str, experiment: Experiment, config: Config, inputs: Any) -> None:
    state = st.session_state
    if f"_job.{root}" in state:  # a second click
        return
    state[f"_trouble.{root}"] = ""
    identity = _identity(config, inputs)
    state[f"_job.{root}"] = Job(
        lambda progress: (identity, _run(experiment, config, inputs, progress)), alive=_session_alive()
    )


def _run(experiment: Experiment, config: Config, inputs: Any, progress: Progress) -> Stored:
    """Run and keep; where nothing is or can be kept (the reader's own file, a full disk) the session alone holds it."""
    if inputs is None and _can_keep(experiment):
        return results.run_and_store(experiment, config, progress=progress)
    start = time.perf_counter()
    with opened_files() as opened:
        result = experiment(config, inputs, progress=progress)
    return Stored(result, Record.now(experiment, time.perf_counter() - start, opened=opened), "yours")


def _can_keep(experiment: Experiment) -> bool:
    try:
        paths.user_folder("results", experiment.slug)
    except paths.FolderError:
        return False
    return True


def _session_alive() -> Callable[[], bool]:
    """A function that says, from any thread, whether the reader's session still exists."""
    context = get_script_run_ctx()
    if context is None or not runtime.exists():
        return lambda: True
    server, session = runtime.get_instance(), context.session_id
    return lambda: server.is_active_session(session)


def _watch(root: str) -> None:
    """Twice a second: progress and Stop; the whole page again when there is a new picture or the end."""
    state = st.session_state
    job: Job | None = state.get(f"_job.{root}")
    if job is None:
        return
    if job.done:
        del state[f"_job.{root}"]
        state[f"_trouble.{root}"] = job.trouble
        if not job.trouble:
            state[f"_mine.{root}"] = job.result
        st.rerun()
    drawn, when = state.get(f"_drawn.{root}", (None, 0.0))
    if job.partial is not drawn and time.monotonic() - when > REDRAW:
        state[f"_drawn.{root}"] = (job.partial, time.monotonic())
        st.rerun()
    st.progress(job.fraction, text=escaped(f"{job.note} · {job.seconds:.0f} s"))
    st.button("Stop run", key=f"_stop.{root}", on_click=job.stop, icon=":material/stop:")
