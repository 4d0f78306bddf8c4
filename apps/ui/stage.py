"""One experiment on a page: figure left, knobs right. A `live` one follows its knobs; a `run` one shows what is
recorded, and has Run and Stop."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from lab.experiment import Config, Experiment
from lab.views import View
from ui import knobs, runs
from ui.address import choose_title, in_address, select
from ui.jobs import sentence
from ui.look import escaped, presenting, theme
from ui.picture import picture
from ui.upload import Sample, bring

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

PATIENCE = 0.4  # seconds until a bar appears
MAX_ANSWERS = 48
_answers: dict[tuple[str, ...], tuple[Any, float]] = {}
_lock = threading.Lock()


def show_experiment(experiment: Experiment, view: View, *, sample: Sample | None = None) -> None:
    """Draw an experiment.

    view    its pictures, of which the reader sees one at a time
    sample  a file to try, where the experiment takes files
    """
    left, right = st.columns([2.4, 1], gap="medium" if presenting() else "large")
    with right:
        inputs = bring(experiment, sample) if experiment.inputs else None
        config = knobs.draw(experiment.config, knobs.prefix(experiment.key))
        note = st.container()
    if experiment.inputs and inputs is None:
        with left:
            _nothing_yet(experiment, sample)
        return

    def show(result: Any) -> None:
        with left:
            _show(experiment, view, result)

    if experiment.cost == "live":
        live(experiment, config, inputs, note, show)
    else:
        runs.recorded(experiment, config, inputs, note, left, show)


def _show(experiment: Experiment, view: View, result: Any) -> None:
    """The choice of picture, the picture, and the result as a file."""
    names = view.shown(result)
    name = names[0]
    if len(names) > 1:
        name = choose_title("Picture", names, key=f"{view.experiment}.picture", kind=st.pills)
    option = ""
    if options := view.options(name, result):
        label = view.picture(name).choose
        option = choose_title(label, options, key=f"{view.experiment}.{in_address(label)}", kind=select)
    fig = view.draw(name, result, theme(), chosen=option, presenting=presenting())
    picture(fig, key=f"{experiment.slug}-{experiment.key}-{in_address(name)}")
    if experiment.write is not None and not presenting():
        st.download_button(
            "The result as a file",
            lambda: _written(experiment, result),
            mime="text/csv",
            on_click="ignore",
            file_name=f"{experiment.slug}-{experiment.key}.csv",
            icon=":material/table:",
        )


def _written(experiment: Experiment, result: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.csv"
        experiment.write(result, path)  # type: ignore[misc]
        return path.read_bytes()


def _nothing_yet(experiment: Experiment, sample: Sample | None) -> None:
    """What to bring and what comes of it, where the picture will be."""
    kind = experiment.inputs
    st.subheader(experiment.title, anchor=False)
    lines = [f"1. Bring a file. {escaped(' '.join((kind.__doc__ or '').split()))}"]
    if sample is not None:
        lines[0] += f" Or try the sample: {escaped(sample.description)}."
    lines.append("2. Set the knobs." if experiment.cost == "live" else "2. Set the knobs and press **Run**.")
    lines.append("3. Look at the pictures, and take the result home as a file.")
    st.markdown("\n".join(lines))
    st.caption("Your file stays on this machine and is forgotten when you close the page.")


def live(experiment: Experiment, config: Config, inputs: Any, note: DeltaGenerator, show: runs.Show) -> None:
    """Compute (or remember) the answer; where that fails, say why and keep the last picture that there was."""
    key = (experiment.slug, experiment.key, config.fingerprint(), inputs.fingerprint() if inputs is not None else "")
    try:
        answer = _answers.get(key)
        if answer is None:
            with note:
                answer = _timed(experiment, config, inputs)
            _remember(key, answer)
        st.session_state[_last(experiment)] = answer
    except Exception as error:  # whatever a method raises, the reader gets one sentence and keeps the page
        note.error(escaped(sentence(error)))
    answer = st.session_state.get(_last(experiment))
    if answer is not None:
        result, seconds = answer
        note.caption(f"Computed on this machine in {seconds:.2g}\u00a0s")
        show(result)


def last_result(experiment: Experiment) -> Any | None:
    """What a `live` experiment answered last in this session, whatever its knobs were; None where it never did."""
    answer = st.session_state.get(_last(experiment))
    return None if answer is None else answer[0]


def _last(experiment: Experiment) -> str:
    """Where the session keeps the last answer of an experiment, with its seconds."""
    return f"_last.{experiment.slug}.{experiment.key}"


def _timed(experiment: Experiment, config: Config, inputs: Any) -> tuple[Any, float]:
    """Result and seconds. A bar appears when it takes long; touching it lets a moving knob break off the old run."""
    start = told = time.perf_counter()
    bar = st.empty()

    def progress(fraction: float, note: str = "", partial: Any | None = None) -> None:
        nonlocal told
        now = time.perf_counter()
        if now - start > PATIENCE and now - told > PATIENCE / 4:
            told = now
            bar.progress(min(max(fraction, 0.0), 1.0), text=escaped(note))

    result = experiment(config, inputs, progress=progress)
    bar.empty()
    return result, time.perf_counter() - start


def _remember(key: tuple[str, ...], answer: tuple[Any, float]) -> None:
    """Keep the newest answers for all sessions; they are only read."""
    with _lock:
        _answers[key] = answer
        while len(_answers) > MAX_ANSWERS:
            del _answers[next(iter(_answers))]
