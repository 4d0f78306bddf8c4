"""SP²OT's page: each view draws, each knob goes to both ends, wrong links and wrong files get one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from app_pages import Page, finish, pictures, traces, widget

from lab import catalog, results, rooms
from lab.knobs import controls

PAGE = "clustering/sp2ot.py"
LIVE = ["plan", "growth"]


@pytest.mark.parametrize("view", LIVE)
def test_knobs_go_to_both_ends(page: Page, view: str) -> None:
    short = {"growth.steps": "5"} if view == "growth" else {}
    app = page(PAGE, view=view, **short)
    for control in controls(rooms.experiments(catalog.get("sp2ot"))[view].config):
        key = f"{view}.{control.name}"
        values = {"toggle": (True, False), "choice": control.options}.get(control.kind, (control.low, control.high))
        for value in (*values, control.default) if key not in short else ():
            widget(app, key).set_value(value)
            assert traces(app.run()), (key, value)


@pytest.mark.parametrize("view", LIVE)
def test_every_picture_draws(page: Page, view: str) -> None:
    app = page(PAGE, view=view, **({"growth.steps": "5"} if view == "growth" else {}))
    assert all(traces(shown) for shown in pictures(app, view))


def test_the_race_shows_its_record_or_says_what_to_do(page: Page) -> None:
    app = page(PAGE, view="digits")
    experiment = rooms.experiments(catalog.get("sp2ot"))["digits"]
    if results.find(experiment, experiment.config()) is None:
        assert "Press Run" in app.info[0].value and not app.exception
    else:
        assert all(traces(shown) for shown in pictures(app, "digits"))
        assert any("recorded" in caption.value for caption in app.caption)
    widget(app, "digits.imbalance").set_value(50.0)
    assert "Run" in [button.label for button in app.run().button] and not app.exception


def test_a_table_of_one_s_own(page: Page) -> None:
    app = page(PAGE, view="features")
    box = "_file.features"
    app.file_uploader(key=box).set_value(("bad.csv", b"a,b\n1,two words\n3,4\n", "text/csv")).run()
    assert len(app.error) == 1 and "\n" not in app.error[0].value and not app.exception
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(30, 2)), rng.normal(size=(10, 2)) + 6])
    text = "width,height\n" + "\n".join(f"{x:.3f},{y:.3f}" for x, y in rows)
    app.file_uploader(key=box).set_value(("good.csv", text.encode(), "text/csv")).run()
    for name, value in {"n_clusters": 2, "steps": 20, "starts": 1, "neighbors": 5}.items():
        widget(app, f"features.{name}").set_value(value)
    app.run()
    finish(app, "_run.sp2ot.features")
    assert all(traces(shown) for shown in pictures(app, "features"))


def test_links(page: Page) -> None:
    app = page(PAGE, **{"plan.rho": "0.8", "plan.data": "digits"})
    assert widget(app, "plan.rho").value == 0.8 and not app.warning and traces(app)
    assert "no knob `plan.clusters`" in page(PAGE, **{"plan.clusters": "20"}).warning[0].value
    app = page(PAGE, **{"plan.rho": "7", "view": "nowhere"})
    assert "`plan.rho` cannot be `7`" in app.warning[0].value and "nowhere" in app.warning[0].value and traces(app)


def test_views_keep_their_knobs(page: Page) -> None:
    app = page(PAGE)
    widget(app, "plan.rho").set_value(0.6)
    app.run()
    widget(app, "view").set_value("digits")
    app.run()
    widget(app, "view").set_value("plan")
    assert widget(app.run(), "plan.rho").value == 0.6


def test_the_tour_sets_the_knobs(page: Page) -> None:
    tour = catalog.get("sp2ot").tour
    app = page(PAGE)
    app.button(key="_begin").click().run()
    for place, step in enumerate(tour):
        assert traces(app)
        assert any(text.value.startswith(f"**{place + 1}/{len(tour)}**") for text in app.markdown)
        assert app.query_params["step"] == str(place + 1)
        assert widget(app, "view").value == step.experiment
        for name, value in step.config.items():
            assert widget(app, f"{step.experiment}.{name}").value == value
        if place + 1 < len(tour):
            app.button(key="_next").click().run()
    app.button(key="_end").click().run()
    assert "step" not in app.query_params and traces(app)


def test_a_link_into_the_tour(page: Page) -> None:
    step = catalog.get("sp2ot").tour[2]
    app = page(PAGE, step="3")
    assert all(widget(app, f"{step.experiment}.{name}").value == value for name, value in step.config.items())
    moved = page(PAGE, **{"step": "3", "plan.rho": "0.55"})
    assert widget(moved, "plan.rho").value == 0.55, "knobs that the link names win over the step's"
    assert "`step` cannot be `99`" in page(PAGE, step="99").warning[0].value


def test_presenting_hides_what_is_not_the_figure(page: Page) -> None:
    app = page(PAGE, present="1")
    assert traces(app) and app.title[0].value == "SP²OT" and not app.table
    app.button(key="_leave").click().run()
    assert app.title[0].value == catalog.get("sp2ot").headline and app.table
