"""What the page tests share: a page without a browser, its figures, and the ends of its knobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from lab import paths


@pytest.fixture
def page() -> Callable[..., AppTest]:
    """page("clustering/sp2ot.py", view="growth"): the page after its first run, with that address."""

    def opened(path: str = "", **address: str) -> AppTest:
        app = AppTest.from_file(str(paths.shared("apps") / "main.py"), default_timeout=60)
        if path:
            app.run().switch_page(path)
        for name, value in address.items():
            app.query_params[name.replace("__", ".")] = value
        return app.run()

    return opened


@pytest.fixture
def traces() -> Callable[[AppTest], list[dict[str, Any]]]:
    """The traces of the page's only figure; no exception on the page."""

    def found(app: AppTest) -> list[dict[str, Any]]:
        assert not app.exception, app.exception[0].message
        (chart,) = app.get("plotly_chart")
        return json.loads(chart.proto.spec)["data"]

    return found


@pytest.fixture
def ends() -> Callable[[AppTest, str], Iterator[tuple[str, Any]]]:
    """ends(app, "plan."): (key, value) for both ends, or all options, of every knob with that prefix."""

    def walked(app: AppTest, prefix: str) -> Iterator[tuple[str, Any]]:
        from lab import catalog, rooms
        from lab.knobs import controls

        experiment = rooms.experiments(catalog.get("sp2ot"))[prefix.rstrip(".")]
        for control in controls(experiment.config):
            values = {"toggle": (True, False), "choice": control.options}.get(control.kind, (control.low, control.high))
            for value in (*values, control.default):
                yield prefix + control.name, value

    return walked
