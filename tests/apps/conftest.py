"""What the page tests share: a page without a browser."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from lab import paths


@pytest.fixture(scope="session", autouse=True)
def packages_are_searched_once() -> Iterator[None]:
    """Each AppTest looks for components in every installed package: a quarter of a second, always with the same answer."""
    with pytest.MonkeyPatch.context() as patch:
        found = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", found)
        yield


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
