"""What the browser tests share: a reader's tab in the one Chromium, and a list of whatever goes wrong in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from browser import screenshots
from conftest import require
from filelock import FileLock

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Page, ViewportSize

PATIENCE = 60_000  # milliseconds until an effect that never comes is a failure; the first page loads torch
AT_A_DESK: ViewportSize = {"width": 1280, "height": 900}
HERE = ("127.0.0.1", "localhost")
# Below every page Streamlit's client looks for its server there first, and Chromium notes that it is not.
LOOKING_FOR_THE_SERVER = re.compile(r"^/[^/]+/_stcore/(health|host-config)$")


def stays(url: str) -> bool:
    """The address needs no other machine."""
    parts = urlsplit(url)
    return parts.hostname in HERE or parts.scheme in ("data", "blob")


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base address of a running dashboard."""
    with screenshots.dashboard(LAB_HOME=str(tmp_path_factory.mktemp("home")), OMP_NUM_THREADS="1") as address:
        yield address


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The system's Chromium, driven by playwright: one at a time, whichever worker asks.

    It ends with the file: while it is there, playwright's event loop runs in this thread, and no other can.
    """
    path = screenshots.chromium()
    require(path, "no Chromium found; install it to run the browser tests")
    from playwright.sync_api import sync_playwright

    with FileLock(tmp_path_factory.getbasetemp().parent / "browser.lock"), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=screenshots.QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def heard() -> list[str]:
    """What the tabs complained of since the list was last emptied."""
    return []


@pytest.fixture(scope="module")
def reader(chromium: Any, heard: list[str]) -> Iterator[BrowserContext]:
    """A reader whose tabs are listened to: console errors, uncaught errors, requests to other machines."""

    def console(message: ConsoleMessage) -> None:
        if message.type == "error" and not LOOKING_FOR_THE_SERVER.match(urlsplit(message.location["url"]).path):
            heard.append(f"console: {message.text} ({message.location['url']})")

    def asks(url: str) -> None:
        if not stays(url):
            heard.append(f"request: {url}")

    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    context.on("console", console)
    context.on("weberror", lambda error: heard.append(f"uncaught: {error.error}"))
    context.on("request", lambda request: asks(request.url))
    context.on("page", lambda page: page.on("websocket", lambda socket: asks(socket.url)))
    yield context
    context.close()


@pytest.fixture(scope="module")
def tab(reader: BrowserContext) -> Page:
    """The tab that all tests go on using: a new one reads plotly's five megabytes again."""
    return reader.new_page()


@pytest.fixture
def troubles(heard: list[str]) -> Iterator[list[str]]:
    """What went wrong in the tabs during this test; it must end without."""
    heard.clear()
    yield heard
    assert not heard


@pytest.fixture
def visit(tab: Page, dashboard: str, troubles: list[str]) -> Iterator[Callable[..., Page]]:
    """visit("sp2ot?view=growth"): the tab once it has loaded that page anew; `another=True` opens it beside the first."""
    beside: list[Page] = []

    def visited(address: str = "", size: ViewportSize = AT_A_DESK, *, another: bool = False) -> Page:
        url = f"{dashboard}/{address}"
        if another:
            with tab.expect_popup() as opened:
                tab.evaluate("url => { window.open(url) }", url)
            beside.append(opened.value)
            return opened.value
        tab.set_viewport_size(size)
        tab.goto(url)
        return tab

    yield visited
    for page in beside:
        page.close()
