"""The stage with a toy experiment: live and run, wrong knobs, failing methods, links, uploads, the tour."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pytest
from pydantic import model_validator
from streamlit.testing.v1 import AppTest

from lab import catalog
from lab.catalog import Card, Step
from lab.experiment import Config, Experiment, Progress, knob
from lab.files import FileError
from lab.plot import Theme, figure
from lab.views import View


class ToyConfig(Config):
    """Knobs of every kind."""

    primary: ClassVar[tuple[str, ...]] = ("n", "eps", "kind", "on")

    n: int = knob(5, "points", ge=2, le=50)
    eps: float = knob(0.1, "noise", ge=0.01, le=1.0, scale="log", label="noise ε")
    kind: Literal["line", "wave"] = knob("line", "shape")
    on: bool = knob(False, "upside down")
    seed: int = knob(0, "draws the noise", ge=0, le=10**6)
    share: float = knob(0.5, "share", ge=0.0, le=1.0, step=0.1)
    name: str = knob("", "a name", max_length=9)
    path: str = knob("", "a folder", max_length=99, private=True)

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.kind == "wave" and self.n < 4:
            raise ValueError("a wave needs n of 4 or more")
        return self


@dataclass(frozen=True)
class ToyResult:
    """The points."""

    y: np.ndarray


@dataclass(frozen=True)
class ToyInputs:
    """One number in a text file."""

    accept: ClassVar[tuple[str, ...]] = (".csv",)
    max_megabytes: ClassVar[int] = 1

    height: float

    @classmethod
    def read(cls, source: Path | bytes, *, name: str) -> Self:
        try:
            return cls(float(source))  # type: ignore[arg-type]
        except ValueError:
            raise FileError(f"{name}: it must hold one number") from None

    def fingerprint(self) -> str:
        return str(self.height)


def run(config: ToyConfig, inputs: ToyInputs | None = None, *, progress: Progress) -> ToyResult:
    progress(0.5, "half")
    if config.n == 13:
        raise ZeroDivisionError("thirteen")
    noise = np.random.default_rng(config.seed).normal(size=config.n) * config.eps
    return ToyResult((inputs.height if inputs else 1.0) * np.arange(config.n) + noise)


def draw(result: ToyResult, theme: Theme) -> Any:
    fig = figure(f"{len(result.y)} points", theme=theme, x="place", y="height (m)")
    return fig.add_scatter(y=result.y, name="toy")


def write(result: ToyResult, path: Path) -> None:
    np.savetxt(path, result.y)


LIVE = Experiment("sp2ot", "toy", "A toy", run, "live", ToyConfig, ToyResult)
RUN = Experiment("sp2ot", "toy", "A toy", run, "run", ToyConfig, ToyResult)
FILE = Experiment("sp2ot", "toy", "A toy", run, "live", ToyConfig, ToyResult, inputs=ToyInputs, write=write)
VIEW = View("toy", "A toy", {"Curve": draw, "Same again": draw})


def script(experiment, view):  # no annotations: the script runs in a namespace of its own
    import streamlit as st
    import ui
    from ui.stage import show_experiment

    box = st.container()
    show_experiment(experiment, view, sample=ui.Sample("toy.csv", lambda: b"3", "a number"))
    with box:
        ui.complaints()


def stage(experiment: Experiment, **address: str) -> AppTest:
    app = AppTest.from_function(script, args=(experiment, VIEW), default_timeout=20)
    for name, value in address.items():
        app.query_params[f"toy.{name}"] = value
    return app.run()


def title(app: AppTest) -> str:
    assert not app.exception, app.exception[0].message
    (_chart,) = app.get("plotly_chart")
    texts = [element.value for element in app.markdown]
    assert any("points" in text for text in texts)
    return next(text for text in texts if "points" in text)


def test_live_follows_its_knobs() -> None:
    app = stage(LIVE)
    assert title(app) == "5 points"
    app.slider(key="toy.n").set_value(7).run()
    assert title(app) == "7 points"
    app.select_slider(key="toy.eps").set_value(0.01).run()
    app.toggle(key="toy.on").set_value(True).run()
    app.number_input(key="toy.seed").set_value(10**6).run()
    app.text_input(key="toy.name").set_value("Ada").run()
    assert title(app) == "7 points" and not app.error
    app.button(key="_reset.toy.").click().run()
    assert title(app) == "5 points" and app.toggle(key="toy.on").value is False


def test_a_link_may_ask_between_the_marks_of_a_slider() -> None:
    app = stage(LIVE, eps="0.123")
    assert app.select_slider(key="toy.eps").value == 0.123 and not app.warning and title(app) == "5 points"


def test_a_good_link_sets_the_knobs() -> None:
    app = stage(
        LIVE, n="9", eps="0.05", kind="wave", on="true", seed="77", share="0.7", name="Ada", picture="same-again"
    )
    assert title(app) == "9 points" and not app.warning
    assert app.select_slider(key="toy.eps").value == 0.05 and app.toggle(key="toy.on").value
    assert app.pills(key="toy.picture").value == "same-again" if hasattr(app, "pills") else True


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n": "7000"}, "`toy.n` cannot be `7000`: it takes whole numbers from 2 to 50. `5` is shown."),
        ({"n": "many"}, "`toy.n` cannot be `many`"),
        ({"n": "nan"}, "`toy.n` cannot be `nan`"),
        ({"eps": "4"}, "`toy.eps` cannot be `4`: it takes 0.01 to 1. `0.1` is shown."),
        ({"kind": "cube"}, "`toy.kind` cannot be `cube`: it takes line, wave."),
        ({"on": "perhaps"}, "`toy.on` cannot be `perhaps`"),
        ({"share": "-1"}, "`toy.share` cannot be `-1`"),
        ({"picture": "none"}, "`toy.picture` cannot be `none`: it takes curve, same-again."),
        ({"nn": "1"}, "There is no knob `toy.nn` on this page."),
        ({"kind": ""}, "`toy.kind` cannot be ``: it takes line, wave. `line` is shown."),
        ({"path": "/etc"}, "There is no knob `toy.path` on this page."),
        ({"n": "`[x](http://example.org)`"}, "`??x??http???example.org??`"),
    ],
)
def test_a_wrong_link_is_answered_in_a_sentence(wrong: dict[str, str], says: str) -> None:
    app = stage(LIVE, **wrong)
    assert title(app) == "5 points"
    assert says in app.warning[0].value
    app.slider(key="toy.n").set_value(8).run()
    assert title(app) == "8 points"
    if "n" in wrong:
        assert not app.warning, "once the knob has moved, the warning is gone"


def test_knobs_that_do_not_go_together_keep_the_last_picture() -> None:
    app = stage(LIVE, kind="wave", n="6")
    app.slider(key="toy.n").set_value(3).run()
    assert "a wave needs n of 4 or more" in app.error[0].value
    assert title(app) == "6 points"


def test_a_failing_method_gives_a_sentence_and_keeps_the_last_picture() -> None:
    app = stage(LIVE, n="6")
    app.slider(key="toy.n").set_value(13).run()
    assert "ZeroDivisionError" in app.error[0].value and "Traceback" not in app.error[0].value
    assert title(app) == "6 points"


def test_private_knobs_are_drawn_only_when_allowed_and_never_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "toy.path" not in [box.key for box in stage(LIVE).text_input]
    monkeypatch.setenv("LAB_ALLOW_MODELS", "1")
    app = stage(LIVE)
    app.text_input(key="toy.path").set_value("/models").run()
    assert not app.query_params and title(app) == "5 points"


def finished(app: AppTest) -> AppTest:
    for _ in range(200):
        if not [button for button in app.button if button.label == "Stop run"]:
            return app
        time.sleep(0.02)
        app.run()
    raise AssertionError("the run never ended")


def test_run_and_run_again(own_home: Path) -> None:
    app = stage(RUN)
    assert "Press Run" in app.info[0].value and not app.get("plotly_chart")
    app.button(key="_run.sp2ot.toy").click().run()
    assert title(finished(app)) == "5 points"
    assert any("Your run, recorded" in caption.value for caption in app.caption)
    assert list(own_home.rglob("record.json")), "a reader's run is kept"
    app.slider(key="toy.n").set_value(9).run()
    assert "earlier run" in app.info[0].value and title(app) == "5 points"
    app.button(key="_run.sp2ot.toy").click().run()
    assert title(finished(app)) == "9 points" and not app.info
    assert title(stage(RUN, n="9")) == "9 points", "another session finds it"


def test_a_failing_run_gives_a_sentence() -> None:
    app = stage(RUN, n="13")
    app.button(key="_run.sp2ot.toy").click().run()
    assert "ZeroDivisionError\\: thirteen" in finished(app).error[0].value and not app.exception


def test_a_run_works_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "file"))
    app = stage(RUN)
    app.button(key="_run.sp2ot.toy").click().run()
    assert title(finished(app)) == "5 points"


def test_files_are_read_and_wrong_ones_leave_the_last_good_one() -> None:
    app = stage(FILE)
    assert "Bring a file" in " ".join(text.value for text in app.markdown) and not app.get("plotly_chart")
    app.file_uploader(key="_file.toy").set_value(("good.csv", b"2", "text/csv")).run()
    assert title(app) == "5 points" and not app.error
    app.file_uploader(key="_file.toy").set_value(("![x](http://e.org/p.csv", b"two", "text/csv")).run()
    assert "it must hold one number" in app.error[0].value and "![x](" not in app.error[0].value
    assert title(app) == "5 points"
    app.button(key="_sample.toy").click().run()
    assert title(app) == "5 points" and not app.error


def test_a_figure_s_numbers_as_csv() -> None:
    import plotly.graph_objects as go
    from ui.picture import as_csv, as_html

    fig = figure("three", x="x", y="y").add_scatter(x=[1.0, 2.0], y=[3.0, 0.1 + 0.2], name="a, b")
    fig.add_trace(go.Heatmap(z=[[1, 2], [3, 4]], x=["p", "q"]))
    lines = as_csv(fig).splitlines()
    assert lines[0] == "trace,x,y,value" and lines[2] == '"a, b",2,0.3,'
    assert lines[3:] == ["heatmap 2,p,0,1", "heatmap 2,q,0,2", "heatmap 2,p,1,3", "heatmap 2,q,1,4"]
    page = as_html(fig, "Three and four")
    assert "Three and four" in page and "cdn.plot" not in page.split("<body>")[1][:300]


GUIDED = catalog.get("sp2ot").model_copy(
    update={"tour": tuple(Step(text=f"Look at {n}.", experiment="toy", config={"n": n}) for n in (6, 7, 8))}
)


def guided(card, experiment, view):
    from ui import tour
    from ui.stage import show_experiment

    tour.find(card)
    tour.apply(card, {"toy": experiment})
    tour.begin_button(card)
    tour.bar(card)
    show_experiment(experiment, view)


def on_tour(step: str, card: Card = GUIDED) -> AppTest:
    app = AppTest.from_function(guided, args=(card, LIVE, View("toy", "A toy", {"Curve": draw})), default_timeout=20)
    app.query_params["step"] = step
    return app.run()


PLAY, PAUSE = (":material/play_arrow:", "Play hands-free"), (":material/pause:", "Pause")


def stands(app: AppTest, step: int, *, playing: bool) -> bool:
    """The step's sentence, knobs and address are there, and the button says what it would do."""
    button = app.button(key="_play")
    return (
        any(text.value.startswith(f"**{step}/3** Look at {5 + step}") for text in app.markdown)
        and app.slider(key="toy.n").value == 5 + step
        and app.query_params["step"] == str(step)
        and (button.icon, button.help) == (PAUSE if playing else PLAY)
    )


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """seconds(3): from now on, each run of a page is followed by three ticks of its clocks."""

    def pass_by(count: int) -> None:
        def fragment(tick: Callable[..., None], *, run_every: float) -> Callable[..., None]:
            def ticking(*given: Any) -> None:
                for _ in range(1 + count):
                    tick(*given)

            assert run_every == 1.0
            return ticking

        monkeypatch.setattr("streamlit.fragment", fragment)

    return pass_by


def test_a_tour_plays_to_its_end_and_from_there_begins_again(seconds: Callable[[int], None]) -> None:
    from ui.tour import READING_SECONDS

    app = on_tour("1")
    assert stands(app, 1, playing=False)
    seconds(READING_SECONDS)
    app.button(key="_play").click().run()
    assert stands(app, 3, playing=False) and title(app) == "8 points"
    assert stands(app.run(), 3, playing=False)
    seconds(0)
    app.button(key="_play").click().run()
    assert stands(app, 1, playing=True)
    app.button(key="_next").click().run()
    assert stands(app, 2, playing=True)
    app.button(key="_next").click().run()
    assert stands(app, 3, playing=False)
    app.button(key="_back").click().run()
    assert stands(app, 2, playing=False), "the play that ended is not taken up again"


def test_a_tour_waits_for_its_reader(seconds: Callable[[int], None]) -> None:
    from ui.tour import READING_SECONDS

    app = on_tour("1")
    seconds(READING_SECONDS - 1)
    app.button(key="_play").click().run()
    assert stands(app, 1, playing=True)
    app.slider(key="toy.n").set_value(20).run()
    assert title(app) == "20 points" and app.query_params["step"] == "1", "a knob moved by hand gets its time as well"
    app.button(key="_play").click().run()
    seconds(READING_SECONDS)
    assert title(app.run()) == "20 points" and app.query_params["step"] == "1"
    app.button(key="_play").click().run()
    assert stands(app, 3, playing=False)


def test_closing_a_tour_ends_its_play(seconds: Callable[[int], None]) -> None:
    app = on_tour("1")
    seconds(0)
    app.button(key="_play").click().run()
    app.button(key="_end").click().run()
    assert "step" not in app.query_params and title(app) == "6 points"
    app.button(key="_begin").click().run()
    assert stands(app, 1, playing=False)
