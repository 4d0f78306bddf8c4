"""The Transcoders page: each view draws with its knobs at both ends, wrong links get a sentence, the tour sets the knobs."""

from __future__ import annotations

from typing import Any

import pytest
from app_pages import Page, finish, pictures, traces, widget
from streamlit.testing.v1 import AppTest

from lab import catalog, results, rooms
from lab.knobs import Control, controls

PATH = "circuits/transcoders.py"
CARD = catalog.get("transcoders")
LIVE = ("circuit", "years", "features", "wiring", "case", "rating")
NO_CHART = {"case", "rating"}
OWN = {
    "layer",
    "feature",
    "position",
    "unit",
    "root",
}  # depend on one another; what is wrong with them has its own test


def sound(app: AppTest) -> AppTest:
    """The page; it raised nothing and complains of nothing."""
    assert not app.exception, app.exception[0].message
    assert not app.error, app.error[0].value
    return app


def end(control: Control, *, last: bool) -> Any:
    """A knob's low or high end, or its first or last choice."""
    values = {"toggle": (True, False), "choice": control.options}.get(control.kind, (control.low, control.high))
    return values[-1 if last else 0]


@pytest.mark.parametrize("view", LIVE)
def test_a_live_view_opens_and_its_knobs_go_to_both_ends(page: Page, view: str) -> None:
    """All at once, once to each end."""
    app = sound(page(PATH, view=view))
    assert app.get("plotly_chart") or view in NO_CHART
    drawn = {element.key for element in app.main if getattr(element, "key", None)}
    knobs = [
        control
        for control in controls(rooms.experiments(CARD)[view].config)
        if control.name not in OWN and control.kind != "text" and f"{view}.{control.name}" in drawn
    ]
    assert knobs
    for last in (False, True):
        for control in knobs:
            widget(app, f"{view}.{control.name}").set_value(end(control, last=last))
        app = sound(app.run())
        assert app.get("plotly_chart") or view in NO_CHART, last


@pytest.mark.parametrize("view", ["circuit", "years", "wiring"])
def test_every_picture_draws(page: Page, view: str) -> None:
    shown = [len(sound(one).get("plotly_chart")) for one in pictures(page(PATH, view=view), view)]
    assert len(shown) >= 3 and all(shown)


def test_a_view_without_a_record_says_so(page: Page) -> None:
    app = page(PATH, view="pareto")
    experiment = rooms.experiments(CARD)["pareto"]
    if results.find(experiment, experiment.config()) is None:
        assert not app.exception and any("Nothing is recorded" in info.value for info in app.info)
    else:
        assert all(traces(one) for one in pictures(app, "pareto"))
    assert any(button.label.startswith("Run") for button in app.button)


def test_a_small_coder_trains_while_one_looks(page: Page) -> None:
    app = page(PATH, view="pareto")
    for name, value in {"steps": 100, "d_sae": 256, "kind": "topk"}.items():
        widget(app, f"pareto.{name}").set_value(value)
    app.run()
    finish(app, "_run.transcoders.pareto", seconds=120)
    assert all(traces(one) for one in pictures(app, "pareto"))


def test_a_prompt_of_one_s_own_and_a_token_that_does_not_exist(page: Page) -> None:
    app = sound(page(PATH, view="circuit", **{"circuit.prompt": "import os, sys"}))
    assert app.get("plotly_chart")
    app = page(PATH, view="circuit", **{"circuit.plus": "no such token"})
    assert not app.exception and app.error and "\n" not in app.error[0].value


@pytest.mark.parametrize(
    ("view", "link"),
    [
        ("circuit", {"position": "300"}),
        ("circuit", {"root": "feature", "layer": "47"}),
        ("circuit", {"root": "feature", "feature": "131071"}),
        ("features", {"unit": "131071"}),
        ("wiring", {"unit": "131071"}),
        ("features", {"model": "spans-1l", "layer": "3"}),
    ],
)
def test_what_a_model_does_not_have_gets_a_sentence(page: Page, view: str, link: dict[str, str]) -> None:
    app = page(PATH, view=view, **{f"{view}.{name}": value for name, value in link.items()})
    assert not app.exception and len(app.error) == 1 and "\n" not in app.error[0].value


def test_wrong_links_get_a_sentence_and_the_picture(page: Page) -> None:
    app = page(PATH, **{"circuit.branches": "900", "view": "nowhere", "circuit.hue": "red"})
    said = app.warning[0].value
    assert "`circuit.branches` cannot be `900`" in said and "nowhere" in said and "no knob `circuit.hue`" in said
    assert app.get("plotly_chart")


def test_the_tour_sets_the_knobs(page: Page) -> None:
    app = page(PATH)
    app.button(key="_begin").click().run()
    for place, step in enumerate(CARD.tour):
        sound(app)
        assert any(text.value.startswith(f"**{place + 1}/{len(CARD.tour)}**") for text in app.markdown)
        assert widget(app, "view").value == step.experiment and app.get("plotly_chart")
        for name, value in step.config.items():
            assert widget(app, f"{step.experiment}.{name}").value == value
        if place + 1 < len(CARD.tour):
            app.button(key="_next").click().run()


def test_a_session_of_the_blind_rating(page: Page) -> None:
    """From the first card to the key: answers, undone ones, and the count that goes on the ledger as the reader's."""
    app = sound(page(PATH, view="rating"))
    app.button(key="_rating.yes").click().run()
    app.button(key="_rating.undo").click().run()
    cards = 0
    while any(button.key == "_rating.maybe" for button in app.button):
        app.button(key="_rating.maybe").click().run()
        cards += 1
    assert cards == 15 and traces(app)
    keys = [button.key for button in app.button if str(button.key).startswith("_rating.look.")]
    assert len(keys) == 15
    app.button(key=keys[-1]).click().run()
    assert widget(app, "view").value == "features" and not app.error and not app.exception


def test_presenting_hides_what_is_not_the_figure(page: Page) -> None:
    app = sound(page(PATH, present="1"))
    assert app.get("plotly_chart") and app.title[0].value == CARD.short and not app.table
    app.button(key="_leave").click().run()
    assert app.title[0].value == CARD.headline
