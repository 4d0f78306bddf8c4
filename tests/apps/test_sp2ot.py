"""SP²OT's page: each view draws, each knob goes to both ends, wrong links and wrong files get one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

PAGE = "clustering/sp2ot.py"
Page = Callable[..., AppTest]
Traces = Callable[[AppTest], list[dict[str, Any]]]
Ends = Callable[[AppTest, str], Iterator[tuple[str, Any]]]


def pictures(app: AppTest, view: str) -> list[str]:
    return list(app.pills(key=f"{view}.picture").options) if hasattr(app, "pills") else []


def widget(app: AppTest, key: str) -> Any:
    for element in app.main:
        if getattr(element, "key", None) == key:
            return element
    raise KeyError(key)


def move(app: AppTest, key: str, value: Any) -> AppTest:
    widget(app, key).set_value(value)
    return app.run()


@pytest.mark.parametrize("view", ["plan", "growth"])
def test_knobs_go_to_both_ends(page: Page, traces: Traces, ends: Ends, view: str) -> None:
    app = page(PAGE, view=view, **({"growth__steps": "5"} if view == "growth" else {}))
    drawn = traces(app)
    assert drawn
    for key, value in ends(app, f"{view}."):
        if key != "growth.steps":
            move(app, key, value)
            assert traces(app), (key, value)
            assert not app.error, (key, value)


@pytest.mark.parametrize("view", ["plan", "growth"])
def test_every_picture_draws(page: Page, traces: Traces, view: str) -> None:
    app = page(PAGE, view=view, **({"growth__steps": "5"} if view == "growth" else {}))
    titles = set()
    for name in widget(app, f"{view}.picture").options:
        move(app, f"{view}.picture", name.lower().replace(" ", "-"))
        assert traces(app), name
        titles.add(app.get("plotly_chart")[0].proto.alt if hasattr(app.get("plotly_chart")[0].proto, "alt") else name)
    assert len(titles) == len(widget(app, f"{view}.picture").options)
