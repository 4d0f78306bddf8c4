"""Knobs in a notebook: a widget of the right kind for each, a moved one changes the figure, a refused one says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import pytest
from pydantic import model_validator

from lab import widgets
from lab.experiment import Config, Experiment, knob
from lab.plot import DARK, LIGHT, Theme, figure


class AllKinds(Config):
    primary: ClassVar[tuple[str, ...]] = ("points", "noise")

    points: int = knob(5, "how many points", ge=2, le=40)
    noise: float = knob(0.5, "how noisy", ge=0.0, le=1.0, step=0.1)
    scale: float = knob(1.0, "how large", ge=0.1, le=10.0, scale="log")
    budget: int = knob(10_000, "a wide number", ge=1, le=1_000_000)
    lines: bool = knob(False, "join the points")
    shape: Literal["up", "down"] = knob("up", "which way")
    which: Literal["a", "b", "c", "d", "e"] = knob("a", "one of many")
    words: str = knob("Title", "what it says", max_length=8)
    path: str = knob("", "a file", max_length=80, private=True)

    @model_validator(mode="after")
    def _together(self) -> AllKinds:
        if self.points < 4 and self.noise > 0.9:
            raise ValueError("so few points cannot be so <noisy>")
        return self


@dataclass(frozen=True)
class Line:
    y: np.ndarray
    config: AllKinds


def draw(result: Line, theme: Theme = LIGHT) -> go.Figure:
    fig = figure(result.config.words, theme=theme, x="step", y="value")
    fig.add_trace(go.Scatter(y=result.y, mode="lines"))
    if result.config.lines:
        fig.add_trace(go.Bar(y=result.y))
    for place in range(result.config.points):
        fig.add_vline(x=place)
    return fig


def run(config: AllKinds, *, progress: Any) -> Line:
    if config.budget == 1:
        raise ValueError("budget: a single one is too little")
    return Line(np.arange(config.points) * config.scale, config)


def experiment(**options: Any) -> Experiment:
    options = {"cost": "live", "run": run} | options
    return Experiment("sp2ot", "toy", "A toy", config=AllKinds, result=Line, **options)


def explore(**options: Any) -> widgets.Explorer:
    return widgets.explore(experiment(), draw, **options)


def test_a_widget_for_every_kind() -> None:
    kinds = {name: type(widget) for name, widget in explore().knobs.items()}
    assert kinds == {
        "points": ipywidgets.IntSlider,
        "noise": ipywidgets.FloatSlider,
        "scale": ipywidgets.SelectionSlider,
        "budget": ipywidgets.BoundedIntText,
        "lines": ipywidgets.Checkbox,
        "shape": ipywidgets.ToggleButtons,
        "which": ipywidgets.Dropdown,
        "words": ipywidgets.Text,
    }  # the private one is not drawn


def test_bounds_steps_help_and_start() -> None:
    shown = explore(start=AllKinds(points=7, scale=0.123, path="kept"))
    points, scale = shown.knobs["points"], shown.knobs["scale"]
    assert (points.min, points.max, points.value, points.tooltip) == (2, 40, 7, "how many points")
    assert scale.value == 0.123  # not on the slider's grid, and yet it can stand there
    assert shown.config == AllKinds(points=7, scale=0.123, path="kept")
    assert shown.knobs["noise"].step == pytest.approx(0.1)


def test_primary_knobs_are_shown_and_the_others_folded() -> None:
    row, more, *_ = explore().children
    assert [widget.description for widget in row.children] == ["points", "noise"]
    assert isinstance(more, ipywidgets.Accordion) and more.selected_index is None
    assert len(more.children[0].children) == 6


def test_moving_a_knob_changes_the_figure_in_place() -> None:
    shown = explore()
    first = shown.figure
    shown.knobs["points"].value = 9
    assert shown.figure is first
    assert len(first.data[0].y) == len(first.layout.shapes) == 9
    shown.knobs["words"].value = "Other"
    shown.knobs["points"].value = 3
    assert first.layout.title.text == "Other" and len(first.data[0].y) == len(first.layout.shapes) == 3


def test_other_traces_make_a_new_figure() -> None:
    shown = explore()
    first = shown.figure
    shown.knobs["lines"].value = True
    assert shown.figure is not first and [trace.type for trace in shown.figure.data] == ["scatter", "bar"]


def test_what_is_refused_gets_one_sentence_and_the_last_figure_stays() -> None:
    shown = explore()
    shown.knobs["points"].value = 3
    shown.knobs["noise"].value = 1.0
    assert "so few points cannot be so &lt;noisy&gt;" in shown.message.value
    assert len(shown.figure.data[0].y) == 3
    shown.knobs["points"].value = 8
    assert shown.message.value == "" and len(shown.figure.data[0].y) == 8
    shown.knobs["budget"].value = 1
    assert "a single one is too little" in shown.message.value
    shown.knobs["budget"].value = 2
    shown.knobs["words"].value = "far too many letters"
    assert "words: String should have at most 8 characters" in shown.message.value
    assert shown.figure.layout.title.text == "Title"


def test_the_theme_reaches_the_figure() -> None:
    assert explore(theme=DARK).figure.layout.font.color == DARK.ink


def test_what_is_too_long_or_needs_a_file_is_left_to_the_page() -> None:
    with pytest.raises(
        ValueError, match="takes too long to follow a moving knob: run it on its page, `lab open sp2ot`"
    ):
        widgets.explore(experiment(cost="run"), draw)
    with pytest.raises(ValueError, match="needs a file: run it on its page"):
        widgets.explore(experiment(inputs=object), draw)


def test_a_start_that_is_wrong_is_refused() -> None:
    class Other(Config):
        pass

    with pytest.raises(TypeError, match="start: must be a AllKinds, not Other"):
        explore(start=Other())
    with pytest.raises(ValueError, match="a single one is too little"):
        explore(start=AllKinds(budget=1))


def test_figures_with_frames_are_refused() -> None:
    def played(result: Line, theme: Theme = LIGHT) -> go.Figure:
        return go.Figure(frames=[go.Frame(name="1")], data=[go.Scatter(y=result.y)])

    with pytest.raises(ValueError, match="figure has frames"):
        widgets.explore(experiment(), played)


def test_images_are_stored_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_STORE_PNG", raising=False)
    assert widgets.notebook_renderer() == "plotly_mimetype"
    assert "image/png" not in explore()._repr_mimebundle_()
    monkeypatch.setattr(go.FigureWidget, "to_image", lambda self, *_, **__: b"picture")
    started: list[bool] = []
    monkeypatch.setenv("LAB_STORE_PNG", "1")
    kaleido = pytest.importorskip("kaleido")
    monkeypatch.setattr(kaleido, "start_sync_server", lambda **_: started.append(True))
    assert widgets.notebook_renderer() == "plotly_mimetype+png" and started == [True]
    bundle = explore()._repr_mimebundle_()
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(bundle)
