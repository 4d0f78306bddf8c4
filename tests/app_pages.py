"""What tests of a paper's page, run without a browser, ask of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from streamlit.testing.v1 import AppTest

Page = Callable[..., AppTest]


def sound(app: AppTest) -> AppTest:
    """The page; it raised nothing and complains of nothing."""
    assert not app.exception, app.exception[0].message
    assert not app.error, app.error[0].value
    return app


def traces(app: AppTest) -> list[dict[str, Any]]:
    """The traces of the page's only figure; no exception and no complaint on the page."""
    (chart,) = sound(app).get("plotly_chart")
    return json.loads(chart.proto.spec)["data"]


def widget(app: AppTest, key: str) -> Any:
    """Any control by its key."""
    return next(element for element in app.main if getattr(element, "key", None) == key)


def pictures(app: AppTest, view: str) -> Iterator[AppTest]:
    """The page with each of a view's pictures."""
    for name in [name.lower().replace(" ", "-") for name in widget(app, f"{view}.picture").options]:
        widget(app, f"{view}.picture").set_value(name)
        yield app.run()


def finish(app: AppTest, key: str, seconds: float = 60) -> None:
    """Press a run's button and wait for its figure."""
    app.button(key=key).click().run()
    deadline = time.monotonic() + seconds
    while not app.get("plotly_chart") and time.monotonic() < deadline:
        time.sleep(0.05)
        app.run()
