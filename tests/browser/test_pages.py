"""Does the dashboard work in a real browser? Figures are drawn, knobs move them, links carry them, nothing complains.

Each test also fails, at its end, for a console error, an uncaught error or a request to another machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Locator, Page, expect

from lab import catalog, rooms

Visit = Callable[..., Page]

OPEN = [card.slug for card in catalog.ready()]
DESK, PHONE, PROJECTOR = (
    {"width": width, "height": height} for width, height in ((1280, 900), (390, 844), (1280, 720))
)
IDLE = "[data-testid=stApp][data-test-script-state=notRunning]"
DRAWN = ".js-plotly-plot .main-svg"
CONTROL = "[data-testid=stElementContainer]:has([data-testid=stWidgetLabel]):not([data-testid=stExpander] *)"
FAILED, WARNED = "[data-testid=stAlertContentError]", "[data-testid=stAlertContentWarning]"
ENDLESS = "view=features&features.steps=1000&features.starts=10"  # minutes, if nobody stops it
INTERRUPTED = (
    "uncaught: undefined"  # plotly rejects the promise of an animation that is paused, and no one can catch it
)
STANDS_STILL = """() => {
  const text = document.querySelector('.slider-label').textContent, now = performance.now()
  if (window.lastText !== text) [window.lastText, window.since] = [text, now]
  return now - window.since > 1050  // three frames of the animation
}"""
TICKS = """() => new Promise(resolve => {  // how often the script starts or ends within one and a half seconds
  let turns = 0
  new MutationObserver(() => turns++).observe(document.querySelector('[data-testid=stApp]'),
    {attributes: true, attributeFilter: ['data-test-script-state']})
  setTimeout(() => resolve(turns), 1500)
})"""
CLICKED_UNTIL_GONE = """() => {  // a click while the progress is being redrawn may be lost
  const stop = [...document.querySelectorAll('button')].find(button => button.textContent.includes('Stop run'))
  stop?.click()
  return !stop
}"""


def idle(page: Page) -> Page:
    """The page once its script has ended with a heading on it."""
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator(IDLE)).to_be_attached()
    return page


def drawn(page: Page) -> Page:
    """The page once its script has ended and its figure stands."""
    expect(page.locator(DRAWN).first).to_be_visible()
    return idle(page)


def finding(page: Page) -> Locator:
    """The sentence above the figure."""
    return page.locator(".st-key-finding")


def mass(page: Page) -> Locator:
    """The mass slider of view `plan`."""
    return page.get_by_role("slider", name="mass ρ")


def nothing_sideways(page: Page) -> None:
    """A phone need not scroll sideways."""
    for part in ("document.scrollingElement", "document.querySelector('[data-testid=stMain]')"):
        assert page.evaluate(f"{part}.scrollWidth") <= PHONE["width"], part


def all_in_view(page: Page) -> None:
    """A presenter need not scroll to title, finding, figure or any control that is not folded away; no chrome."""
    for chrome in ("stHeader", "stSidebar", "stToolbar"):
        expect(page.get_by_test_id(chrome)).to_be_hidden()
    controls = drawn(page).locator(CONTROL).all()
    assert controls
    for part in (page.locator("h1"), finding(page), page.locator(".js-plotly-plot"), *controls):
        expect(part).to_be_in_viewport(ratio=1)


def test_the_gallery_leads_to_a_paper(visit: Visit) -> None:
    page = idle(visit("", PHONE))
    tiles = page.locator(".st-key-gallery [data-testid=stPageLink]")
    expect(tiles).to_have_count(24)
    nothing_sideways(page)
    page.set_viewport_size(DESK)
    box = page.get_by_placeholder("Search")
    box.fill("imbalanced clustering")
    box.press("Enter")
    expect(tiles).to_have_count(1)
    tiles.get_by_role("link").click()
    expect(page).to_have_url(re.compile(r"/sp2ot$"))
    expect(page.locator("h1")).to_have_text(catalog.get("sp2ot").headline)
    drawn(page)


def test_the_ledger_fits_a_phone(visit: Visit) -> None:
    nothing_sideways(idle(visit("ledger", PHONE)))


@pytest.mark.parametrize("slug", OPEN)
def test_a_paper_s_page(visit: Visit, troubles: list[str], slug: str) -> None:
    """On a phone, and on a projector with every picture, presented with and without the tour."""
    page = drawn(visit(f"{slug}?{small(slug)}", PHONE))
    nothing_sideways(page)
    page.set_viewport_size(PROJECTOR)
    pictures = page.get_by_role("radiogroup", name="Picture")
    for name in pictures.get_by_role("radio").all_inner_texts()[1:]:
        pictures.get_by_role("radio", name=name, exact=True).click()
        key = re.sub(r"[^a-z0-9_-]", "-", name.lower())
        expect(page.locator(f"[class*=st-key-figure-{slug}-][class*='-{key} '] {DRAWN}").first).to_be_visible()
    idle(page).get_by_role("button", name="Present").click()
    expect(page).to_have_url(re.compile(r"[?&]present=1"))
    all_in_view(page)
    page.get_by_role("button", name="Tour").click()
    expect(page.locator(".st-key-tour")).to_be_in_viewport(ratio=1)
    all_in_view(page)
    text = page.content()
    assert "WebGL is not supported" not in text and "Traceback" not in text
    assert not troubles


def small(slug: str) -> str:
    """The address of a page's first view with the knobs that tests run it with."""
    card = catalog.get(slug)
    shown = rooms.experiments(card)[rooms.figures(card).VIEWS[0].experiment]
    return urlencode({f"{shown.key}.{name}": value for name, value in shown.small.items()})


def test_the_numbers_of_a_figure_are_downloaded(visit: Visit) -> None:
    page = drawn(visit("sp2ot"))
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    header, *rows = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert header == "trace,x,y,value" and rows


def test_an_address_opens_the_same_picture_in_a_tab_of_its_own(visit: Visit) -> None:
    left = drawn(visit("sp2ot?plan.picture=the-plan"))
    expect(finding(left)).to_contain_text("30% of the mass is handed out")
    mass(left).press("ArrowRight")
    expect(finding(left)).to_contain_text("35% of the mass is handed out")
    expect(left).to_have_url(re.compile(r"[?&]plan\.rho=0\.35(&|$)"))
    said = finding(left).inner_text()
    right = drawn(visit(left.url.rpartition("/")[2], another=True))
    expect(finding(right)).to_have_text(said)
    expect(mass(right)).to_have_value("0.35")
    mass(right).press("ArrowRight")
    expect(finding(right)).to_contain_text("40% of the mass is handed out")
    left.bring_to_front()
    for picture, says in (("Sizes", "too large"), ("The plan", said)):
        left.get_by_role("radio", name=picture).click()
        expect(finding(left)).to_contain_text(says)
    expect(left).to_have_url(re.compile(r"[?&]plan\.rho=0\.35(&|$)"))
    expect(right).to_have_url(re.compile(r"[?&]plan\.rho=0\.4(&|$)"))


def test_a_wrong_link_gets_one_warning_and_the_figure(visit: Visit) -> None:
    page = drawn(visit("sp2ot?plan.rho=7&view=nowhere"))
    expect(page.locator(WARNED)).to_have_count(1)
    expect(page.locator(WARNED)).to_contain_text("plan.rho cannot be 7")
    expect(page.locator(WARNED)).to_contain_text("view cannot be nowhere")
    expect(page.locator(FAILED)).to_have_count(0)
    assert "Traceback" not in page.content()
    expect(mass(page)).to_have_value("0.3")


def test_a_presenter_plays_and_pauses_a_training(visit: Visit, troubles: list[str]) -> None:
    page = visit("sp2ot?view=growth&present=1", PROJECTOR)
    all_in_view(page)
    says, rail = page.locator(".slider-label").first, page.locator(".slider-rail-touch-rect")

    def labelled() -> int:
        found = re.fullmatch(r"mass handed out: (\d+)%", says.text_content() or "")
        assert found
        return int(found[1])

    start, box = labelled(), rail.bounding_box()
    assert box
    rail.click(position={"x": box["width"] * 0.4, "y": box["height"] / 2})
    expect(says).not_to_have_text(f"mass handed out: {start}%")
    dragged = labelled()
    page.locator(".updatemenu-button", has_text="▶").click()
    expect(says).not_to_have_text(f"mass handed out: {dragged}%")
    played = labelled()
    page.locator(".updatemenu-button", has_text="❚❚").click()
    page.wait_for_function(STANDS_STILL)
    assert start < dragged < played <= labelled() < 100
    troubles[:] = [trouble for trouble in troubles if trouble != INTERRUPTED]


def test_a_presenter_plays_the_tour_hands_free(visit: Visit) -> None:
    """It turns two steps by itself and stops at the end; played anew and paused, its clock stands still."""
    last = len(catalog.get("sp2ot").tour)
    page = drawn(visit(f"sp2ot?step={last - 2}&present=1", PROJECTOR))
    tour = page.locator(".st-key-tour")
    play, pause = (page.get_by_role("button", name=name) for name in ("play_arrow", "pause"))
    play.click()
    for step in (last - 1, last):
        expect(pause).to_be_visible()
        expect(tour).to_contain_text(f"{step}/{last}")
    expect(play).to_be_visible()
    expect(page).to_have_url(re.compile(rf"[?&]step={last}(&|$)"))
    all_in_view(page)
    play.click()
    expect(tour).to_contain_text(f"1/{last}")
    assert page.evaluate(TICKS) > 0
    pause.click()
    expect(play).to_be_visible()
    idle(page)
    assert page.evaluate(TICKS) == 0


def test_a_long_run_tells_its_progress_and_stops(visit: Visit) -> None:
    page = idle(visit(f"sp2ot?{ENDLESS}"))
    page.get_by_role("button", name="Try the sample").click()
    run, stop = (page.get_by_role("button", name=name, exact=True) for name in ("Run", "Stop run"))
    run.click()
    progress = page.get_by_test_id("stProgress")
    expect(progress).to_contain_text(re.compile(r"step \d+ of 10000"))
    earlier = progress.inner_text().partition(" of ")[0]
    expect(progress).to_contain_text(re.compile(rf"(?<!{earlier}) of 10000"))
    stop.click()
    page.wait_for_function(CLICKED_UNTIL_GONE, polling=700)
    expect(page.locator(FAILED)).to_have_text(["Stopped; nothing was kept of this run."])
    expect(run).to_be_enabled()
