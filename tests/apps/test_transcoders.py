"""The Transcoders page: each of its views opens, draws, and complains of nothing."""

from __future__ import annotations

import pytest
from app_pages import Page

PATH = "circuits/transcoders.py"


@pytest.mark.parametrize("view", ["circuit", "years", "features", "wiring", "case"])
def test_a_live_view_opens_and_draws(page: Page, view: str) -> None:
    app = page(PATH, view=view)
    assert not app.exception and not app.error, [*app.exception, *app.error]
    assert app.get("plotly_chart") or view == "case"


def test_a_view_without_a_record_says_so(page: Page) -> None:
    app = page(PATH, view="pareto")
    assert not app.exception and not app.error
    assert any("Nothing is recorded" in info.value for info in app.info) or app.get("plotly_chart")


def test_a_prompt_of_one_s_own_and_one_that_is_too_long(page: Page) -> None:
    app = page(PATH, view="circuit", **{"circuit.prompt": "import os, sys"})
    assert not app.exception and not app.error and app.get("plotly_chart")
    app = page(PATH, view="circuit", **{"circuit.plus": "no such token"})
    assert not app.exception and app.error
