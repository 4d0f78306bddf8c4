"""An experiment that takes longer: the recorded result at once, Run and Stop, progress, where the numbers come from."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from lab import paths, provenance, results
from lab.experiment import Config, Experiment, Progress
from lab.provenance import Record, opened_files
from lab.results import Stored
from ui.jobs import Job
from ui.look import escaped
from ui.verdicts import stale_chip

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

Show = Callable[[Any], None]  # draws a result
Run = tuple[tuple[str, str], Stored]  # what was run: fingerprints of knobs and inputs; its result
TICK = 0.5
REDRAW = 2.0  # seconds between two pictures of a run that is under way


def recorded(
    experiment: Experiment, config: Config, inputs: Any, note: DeltaGenerator, left: DeltaGenerator, show: Show
) -> None:
    """Show what is known of these knobs; run them when asked. `note` takes captions and buttons, `left` the picture."""
    name = f"{experiment.slug}.{experiment.key}"
    job: Job | None = st.session_state.get(f"_job.{name}")
    exact = _exact(name, experiment, config, inputs)
    stored = exact or _earlier(name, experiment, inputs)
    with note:
        if job is not None:
            st.fragment(_watch, run_every=TICK)(name)
        else:
            st.button(
                "Run again" if exact else "Run",
                key=f"_run.{name}",
                icon=":material/play_arrow:",
                on_click=_start,
                args=(name, experiment, config, inputs),
                type="secondary" if exact else "primary",
            )
        if trouble := st.session_state.get(f"_trouble.{name}"):
            st.error(escaped(trouble))
        if stored is not None:
            _origin(stored, exact=exact is not None)
    if job is not None and job.partial is not None:
        show(job.partial)
    elif stored is not None:
        show(stored.result)
    else:
        left.info("Nothing is recorded for these knobs yet. Press Run.", icon=":material/play_arrow:")


def _exact(name: str, experiment: Experiment, config: Config, inputs: Any) -> Stored | None:
    """The result of exactly these knobs: this session's, else the reader's stored one, else the shipped one."""
    last = _last_run(name)
    if last is not None and last[0] == _identity(config, inputs):
        return last[1]
    return results.find(experiment, config) if inputs is None else None


def _earlier(name: str, experiment: Experiment, inputs: Any) -> Stored | None:
    """What to look at until these knobs have run: this session's last run, else the record of the default knobs."""
    last = _last_run(name)
    if last is not None and (inputs is None or last[0][1] == inputs.fingerprint()):
        return last[1]
    return results.find(experiment, experiment.config()) if inputs is None else None


def _last_run(name: str) -> Run | None:
    """What this session ran last in an experiment."""
    run: Run | None = st.session_state.get(f"_last_run.{name}")
    return run


def _identity(config: Config, inputs: Any) -> tuple[str, str]:
    return config.fingerprint(), inputs.fingerprint() if inputs is not None else ""


def _origin(stored: Stored, *, exact: bool) -> None:
    """Whose run it is that is shown, where and when it was recorded."""
    if not exact:
        st.info("These knobs have not run yet: the picture shows an earlier run. Press Run for yours.")
    whose = "Your run" if stored.origin == "yours" else "The lab's run"
    st.caption(f"{whose}, {escaped(provenance.describe(stored.record))}{stale_chip(stored.record.stale)}")


def _start(name: str, experiment: Experiment, config: Config, inputs: Any) -> None:
    state = st.session_state
    if f"_job.{name}" in state:  # a second click
        return
    state[f"_trouble.{name}"] = ""
    identity = _identity(config, inputs)
    state[f"_job.{name}"] = Job(
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


def _watch(name: str) -> None:
    """Twice a second: progress and Stop; the whole page again when there is a new picture or the end."""
    state = st.session_state
    job: Job | None = state.get(f"_job.{name}")
    if job is None:
        return
    if job.done:
        del state[f"_job.{name}"]
        state[f"_trouble.{name}"] = job.trouble
        if not job.trouble:
            state[f"_last_run.{name}"] = job.result
        st.rerun()
    drawn, when = state.get(f"_drawn.{name}", (None, 0.0))
    if job.partial is not drawn and time.monotonic() - when > REDRAW:
        state[f"_drawn.{name}"] = (job.partial, time.monotonic())
        st.rerun()
    st.progress(job.fraction, text=escaped(f"{job.note} · {job.seconds:.0f} s"))
    st.button("Stop run", key=f"_stop.{name}", on_click=job.stop, icon=":material/stop:")
