"""Does the dashboard work in a real browser? Figures are drawn, knobs move them, links carry them, nothing complains.

Each test also fails, at its end, for a console error, an uncaught error or a request to another machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import contents
import pytest
from playwright.sync_api import Locator, Page, expect

from lab import catalog
from lab.catalog import Card

Visit = Callable[..., Page]

OPEN = [card.slug for card in catalog.cards() if contents.opens(card)]
PHONE, PROJECTOR = (390, 844), (1280, 720)
IDLE = "[data-testid=stApp][data-test-script-state=notRunning]"
DRAWN = ".js-plotly-plot .main-svg"
CONTROL = "[data-testid=stElementContainer]:has([data-testid=stWidgetLabel]):not([data-testid=stExpander] *)"
FAILED, WARNED = "[data-testid=stAlertContentError]", "[data-testid=stAlertContentWarning]"
ENDLESS = "view=features&features.steps=1000&features.starts=10"  # minutes, if nobody stops it

STANDS_STILL = """() => {
  const text = document.querySelector('.slider-label').textContent, now = performance.now()
  if (window.lastText !== text) [window.lastText, window.since] = [text, now]
  return now - window.since > 1050  // three frames of the animation
}"""
CLICK_AGAIN = """() => {  // a click while the progress is being redrawn may be lost
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


def test_the_gallery_leads_to_a_paper(visit: Visit) -> None:
    page = idle(visit())
    tiles = page.locator(".st-key-gallery [data-testid=stPageLink]")
    expect(tiles).to_have_count(24)
    box = page.get_by_placeholder("Search")
    box.fill("imbalanced clustering")
    box.press("Enter")
    expect(tiles).to_have_count(1)
    tiles.get_by_role("link").click()
    expect(page).to_have_url(re.compile(r"/sp2ot$"))
    expect(page.locator("h1")).to_have_text(catalog.get("sp2ot").headline)
    drawn(page)


@pytest.mark.parametrize("slug", OPEN)
def test_every_picture_is_drawn(visit: Visit, troubles: list[str], slug: str) -> None:
    page = drawn(visit(slug))
    pictures = page.get_by_role("radiogroup", name="Picture").get_by_role("radio")
    for name in pictures.all_inner_texts():
        pictures.filter(has_text=name).click()
        key = name.lower().replace(" ", "-")
        expect(page.locator(f"[class*=st-key-figure-{slug}-][class*='-{key} '] {DRAWN}").first).to_be_visible()
    text = idle(page).content()
    assert "WebGL is not supported" not in text and "Traceback" not in text
    assert not troubles


@pytest.mark.parametrize("address", [*OPEN, "sp2ot?view=growth", "sp2ot?step=5"])
def test_a_presenter_need_not_scroll(visit: Visit, address: str) -> None:
    page = drawn(visit(f"{address}{'&' if '?' in address else '?'}present=1", size=PROJECTOR))
    controls = page.locator(CONTROL).all()
    assert controls
    for part in (page.locator("h1"), page.locator(".js-plotly-plot"), *controls):
        box = part.bounding_box()
        assert box is not None
        assert box["x"] >= 0 and box["x"] + box["width"] <= PROJECTOR[0], (part, box)
        assert box["y"] >= 0 and box["y"] + box["height"] <= PROJECTOR[1], (part, box)
    for chrome in ("stHeader", "stSidebar", "stToolbar"):
        expect(page.get_by_test_id(chrome)).to_be_hidden()


@pytest.mark.parametrize("address", ["", "ledger", *OPEN])
def test_a_phone_never_scrolls_sideways(visit: Visit, address: str) -> None:
    page = visit(address, size=PHONE)
    (drawn if address in OPEN else idle)(page)
    for part in ("document.scrollingElement", "document.querySelector('[data-testid=stMain]')"):
        assert page.evaluate(f"{part}.scrollWidth") <= PHONE[0], part


def test_a_knob_moves_finding_and_address(visit: Visit) -> None:
    page = drawn(visit("sp2ot?plan.picture=the-plan"))
    expect(finding(page)).to_contain_text("30% of the mass is handed out")
    mass(page).press("ArrowRight")
    expect(finding(page)).to_contain_text("35% of the mass is handed out")
    expect(page).to_have_url(re.compile(r"[?&]plan\.rho=0\.35(&|$)"))
    said, address = finding(page).inner_text(), page.url.rpartition("/")[2]
    page = drawn(visit(address))
    expect(finding(page)).to_have_text(said)
    expect(mass(page)).to_have_value("0.35")


def test_a_wrong_link_gets_one_sentence_and_the_figure(visit: Visit) -> None:
    page = drawn(visit("sp2ot?plan.rho=7&view=nowhere"))
    expect(page.locator(WARNED)).to_have_count(1)
    expect(page.locator(WARNED)).to_contain_text("plan.rho cannot be 7")
    expect(page.locator(WARNED)).to_contain_text("view cannot be nowhere")
    expect(page.locator(FAILED)).to_have_count(0)
    assert "Traceback" not in page.content()
    expect(mass(page)).to_have_value("0.3")


def test_play_pause_and_slider_move_through_a_training(visit: Visit) -> None:
    page = drawn(visit("sp2ot?view=growth"))
    says = page.locator(".slider-label").first
    rail = page.locator(".slider-rail-touch-rect")
    box = rail.bounding_box()
    assert box is not None
    start = says.text_content()
    rail.click(position={"x": box["width"] * 0.4, "y": box["height"] / 2})
    expect(says).not_to_have_text(start)
    dragged = says.text_content()
    page.locator(".updatemenu-button", has_text="▶").click()
    expect(says).not_to_have_text(dragged)
    page.locator(".updatemenu-button", has_text="❚❚").click()
    page.wait_for_function(STANDS_STILL)
    expect(says).not_to_have_text("mass handed out: 100%")


def test_two_tabs_keep_their_own_knobs(visit: Visit) -> None:
    left, right = (drawn(visit("sp2ot?plan.picture=the-plan", another=another)) for another in (False, True))
    mass(left).press("ArrowRight")
    expect(finding(left)).to_contain_text("35% of the mass")
    expect(finding(right)).to_contain_text("30% of the mass")
    mass(right).press("ArrowLeft")
    expect(finding(right)).to_contain_text("25% of the mass")
    for picture, says in (("Sizes", "too large"), ("The plan", "35% of the mass")):
        left.get_by_role("radio", name=picture).click()
        expect(finding(left)).to_contain_text(says)
    expect(left).to_have_url(re.compile(r"plan\.rho=0\.35"))
    expect(right).to_have_url(re.compile(r"plan\.rho=0\.25"))


def test_a_long_run_tells_its_progress_and_stops(visit: Visit) -> None:
    page = idle(visit(f"sp2ot?{ENDLESS}"))
    page.get_by_role("button", name="Try the sample").click()
    page.get_by_role("button", name="Run", exact=True).click()
    progress = page.get_by_test_id("stProgress")
    expect(progress).to_contain_text(re.compile(r"step \d+ of 10000"))
    step = re.search(r"step \d+", progress.inner_text())
    assert step
    expect(progress).to_contain_text(re.compile(rf"step (?!{step[0][5:]} )\d+ of 10000"))
    stop = page.get_by_role("button", name="Stop run")
    stop.click()
    page.wait_for_function(CLICK_AGAIN, polling=2000)
    expect(page.locator(FAILED)).to_have_text(["Stopped; nothing was kept of this run."])
    expect(stop).to_have_count(0)
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()


def test_the_figure_s_numbers_and_the_figure_come_as_files(visit: Visit, tmp_path: Path) -> None:
    page = drawn(visit("sp2ot"))
    points, said = page.locator(".scatterlayer path.point").count(), finding(page).inner_text()
    with page.expect_download() as csv:
        page.get_by_role("button", name="CSV", exact=True).click()
    lines = Path(csv.value.path()).read_text(encoding="utf-8").splitlines()
    assert csv.value.suggested_filename == "sp2ot-plan-on-the-map.csv"
    assert lines[0] == "trace,x,y,value" and len(lines) - 1 == points > 100
    with page.expect_download() as html:
        page.get_by_role("button", name="HTML", exact=True).click()
    html.value.save_as(tmp_path / "figure.html")
    page.goto((tmp_path / "figure.html").as_uri())
    expect(page.locator(DRAWN).first).to_be_visible()
    expect(page.locator(".gtitle")).to_have_text(said)
