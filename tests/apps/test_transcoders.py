"""The Transcoders page, beside what all pages must do: its own views' pictures, prompts, a small training, a rating."""

from __future__ import annotations

import pytest
from app_pages import Page, finish, pictures, sound, traces, widget

PATH = "circuits/transcoders.py"


@pytest.mark.parametrize("view", ["circuit", "wiring"])
def test_every_picture_draws(page: Page, view: str) -> None:
    shown = [len(sound(one).get("plotly_chart")) for one in pictures(page(PATH, view=view), view)]
    assert len(shown) >= 3 and all(shown)


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
