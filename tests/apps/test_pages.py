"""Every paper's page: knobs at both ends, pictures, records, the tour, links, present mode.

What the views that draw themselves do besides is tested with their papers' pages.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from app_pages import Page, pictures, sound, widget
from papers import READY, each_paper, experiment, views
from streamlit.testing.v1 import AppTest

from lab import results
from lab.catalog import Card
from lab.knobs import Control, controls

VIEWS = [(card, view.experiment) for card in READY for view in views(card.slug)]
each_view = pytest.mark.parametrize(("card", "key"), VIEWS, ids=[f"{card.slug}-{key}" for card, key in VIEWS])
LAYER = {
    "task",
    "block",
    "layer",
    "seed",
    "outliers",
}  # which layer it is all quantization papers share: PB-LLM tries it
# Knobs that stay at their defaults when all others go to their ends: they depend on one another (what is wrong with them
# has tests of its own), or load a larger model.
STAY = {
    "transcoders": {"layer", "feature", "position", "unit", "root"},
    "pb-llm": {"task", "subject", "part", "layer"},
    "ptq1-61": LAYER,
    "flexround": LAYER,
}
# Views that show no figure before their reader has answered.
WITHOUT_FIGURES = {("transcoders", "case"), ("transcoders", "rating")}


def path(card: Card) -> str:
    """A paper's page, as the navigation knows it."""
    return f"{card.theme}/{card.room}.py"


def drawn(app: AppTest, card: Card, key: str) -> AppTest:
    """The page; it complains of nothing, and shows a view's figure, or several where the view draws itself."""
    pictured = next(view for view in views(card.slug) if view.experiment == key).pictures
    charts = len(sound(app).get("plotly_chart"))
    assert charts == 1 if pictured else charts or (card.slug, key) in WITHOUT_FIGURES
    return app


def first(card: Card) -> str:
    """The key of the view that a page opens with."""
    return views(card.slug)[0].experiment


def knobs(app: AppTest, card: Card, key: str) -> list[Control]:
    """The controls that the view draws and that may go to their ends."""
    there = {element.key for element in app.main if getattr(element, "key", None)}
    shown = experiment(card.slug, key)
    stay = STAY.get(card.slug, set()) | set(shown.small)
    return [
        control
        for control in controls(shown.config)
        if f"{key}.{control.name}" in there and control.kind != "text" and control.name not in stay
    ]


def end(control: Control, *, last: bool) -> Any:
    """A knob's low or high end, or its first or last choice."""
    values = {"toggle": (True, False), "choice": control.options}.get(control.kind, (control.low, control.high))
    return values[-1 if last else 0]


@each_view
def test_a_view_draws_its_pictures_and_all_its_knobs_go_to_both_ends(page: Page, card: Card, key: str) -> None:
    """All at once. A live view draws each time; a run shows its record, and offers to run what is not recorded."""
    shown = experiment(card.slug, key)
    small = {f"{key}.{name}": str(value) for name, value in shown.small.items()} if shown.cost == "live" else {}
    app = sound(page(path(card), view=key, **small))
    if shown.inputs is not None:
        assert app.get("file_uploader") and not app.get("plotly_chart")
        return
    if shown.cost == "run":
        assert results.find(shown, shown.config()), f"lab measure {card.slug} --record"
        assert any("recorded" in caption.value for caption in app.caption)
    drawn(app, card, key)
    if len(next(view for view in views(card.slug) if view.experiment == key).pictures) > 1:
        for each in pictures(app, key):
            drawn(each, card, key)
    for last in (False, True):
        for control in knobs(app, card, key):
            widget(app, f"{key}.{control.name}").set_value(end(control, last=last))
        app = sound(app.run())
        if shown.cost == "live":
            drawn(app, card, key)
        else:
            assert any(button.label.startswith("Run") for button in app.button)


@each_paper
def test_the_tour_sets_view_and_knobs(page: Page, card: Card) -> None:
    app = page(path(card))
    app.button(key="_begin").click().run()
    for number, step in enumerate(card.tour, 1):
        drawn(app, card, step.experiment)
        assert any(text.value.startswith(f"**{number}/{len(card.tour)}**") for text in app.markdown)
        assert app.query_params["step"] == str(number)
        assert widget(app, "view").value == step.experiment
        for name, value in step.config.items():
            assert widget(app, f"{step.experiment}.{name}").value == value
        if number < len(card.tour):
            app.button(key="_next").click().run()
    app.button(key="_end").click().run()
    assert "step" not in app.query_params and sound(app).get("plotly_chart")


@each_paper
def test_links(page: Page, card: Card) -> None:
    """A link into the tour sets its knobs; one with nonsense gets one warning that names all of it, and the figure."""
    number, step = next((at, step) for at, step in enumerate(card.tour, 1) if step.config)
    app = drawn(page(path(card), step=str(number)), card, step.experiment)
    assert not app.warning and widget(app, "view").value == step.experiment
    assert all(widget(app, f"{step.experiment}.{name}").value == value for name, value in step.config.items())
    key = first(card)
    knob = next(each.name for each in controls(experiment(card.slug, key).config) if each.kind != "text")
    app = page(path(card), **{"view": "nowhere", f"{key}.{knob}": "a quarter", f"{key}.hue": "red"})
    (said,) = app.warning
    assert f"`{key}.{knob}` cannot be `a quarter`" in said.value and "`view` cannot be `nowhere`" in said.value
    assert f"no knob `{key}.hue`" in said.value and "\n\n" not in said.value
    drawn(app, card, key)


@each_paper
def test_views_keep_their_knobs(page: Page, card: Card) -> None:
    app = page(path(card))
    key, other = (view.experiment for view in views(card.slug)[:2])
    control = next(each for each in knobs(app, card, key) if each.primary)
    value = next(end(control, last=last) for last in (False, True) if end(control, last=last) != control.default)
    widget(app, f"{key}.{control.name}").set_value(value)
    for view in (other, key):
        app.run()
        widget(app, "view").set_value(view)
    assert widget(app.run(), f"{key}.{control.name}").value == value


@each_paper
def test_presenting_hides_what_is_not_the_figure(page: Page, card: Card) -> None:
    app = drawn(page(path(card), present="1"), card, first(card))
    assert app.title[0].value == card.short and not app.table
    app.button(key="_leave").click().run()
    assert app.title[0].value == card.headline and app.table
    assert "How it works" in [each.label for each in app.expander]
    written = card.page.with_suffix(".md")
    titles = re.findall(r"^## (.+)$", written.read_text(encoding="utf-8"), re.MULTILINE) if written.exists() else []
    assert {f"**{title}**" for title in titles} <= {text.value for text in app.markdown}
