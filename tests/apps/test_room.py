"""A page's views: choices are declared, so that links to other views are understood; clicks and buttons lead to views."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest
from app_pages import widget
from streamlit.testing.v1 import AppTest
from ui.picture import selected

Page = Callable[..., AppTest]
IDLE = "features"  # a view that computes nothing before it is given a file


def script(choices):  # no annotations: the script runs in a namespace of its own
    import streamlit as st
    import ui

    @ui.own_view("plan", choices=choices)
    def draw(room):
        ui.choose("Way", {"there": "There", "back": "Back"}, key="plan.way")
        st.button("Go", key="go", on_click=lambda: ui.show_view("growth", steps=9))
        st.caption(f"{room.view.tab}: rho is {ui.knob_value('plan', 'rho', 'unknown')}")

    room = ui.open_paper("sp2ot", draw)
    if room.view.experiment in ("plan", "features"):
        ui.stage(room)
    ui.close_paper(room)


def opened(choices: Collection[str], **address: str) -> AppTest:
    app = AppTest.from_function(script, args=(choices,), default_timeout=60)
    for name, value in (address | {"present": "1"}).items():  # presented, a page has no links to other pages
        app.query_params[name] = value
    return app.run()


def test_a_view_of_its_own_is_drawn_by_its_function() -> None:
    app = opened(["way"], **{"plan.way": "back"})
    assert not app.exception and not app.warning and widget(app, "plan.way").value == "back"
    assert "One plan: rho is unknown" in [caption.value for caption in app.caption]
    app.button(key="go").click().run()
    assert widget(app, "view").value == "growth" and app.session_state["growth.steps"] == 9


def test_a_choice_of_another_view_is_known_before_it_is_drawn(page: Page) -> None:
    assert not opened(["way"], view=IDLE, **{"plan.way": "back"}).warning
    assert "no knob `plan.way`" in opened([], view=IDLE, **{"plan.way": "back"}).warning[0].value
    shared = page("clustering/sp2ot.py", view=IDLE, **{"digits.method": "gmm", "digits.picture": "confusion"})
    assert not shared.warning and not shared.exception
    wrong = page("clustering/sp2ot.py", view=IDLE, **{"plan.method": "gmm"})
    assert "no knob `plan.method`" in wrong.warning[0].value


def test_a_choice_that_is_drawn_must_be_declared() -> None:
    assert "plan.way" in opened([]).exception[0].message


@pytest.mark.parametrize(
    ("points", "data"), [([{"customdata": ["node", 3]}], ["node", 3]), ([{"x": 1}], None), ([], None)]
)
def test_a_click_gives_the_point_s_own_data(points: list[dict[str, object]], data: object) -> None:
    assert selected({"selection": {"points": points}}) == data
