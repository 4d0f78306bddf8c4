"""What the page tests share: a page without a browser."""

from __future__ import annotations

from collections.abc import Callable

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
            app.query_params[name] = value
        return app.run()

    return opened
