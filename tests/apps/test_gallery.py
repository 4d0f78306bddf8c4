"""Gallery, ledger and planned pages: all 24 papers are there, and can be searched, filtered and opened."""

from __future__ import annotations

from collections.abc import Callable

import contents
import pytest
from streamlit.testing.v1 import AppTest

from lab import catalog, ledger
from lab.catalog import Card, Claim, OutOfReach

Page = Callable[..., AppTest]


def shown(app: AppTest) -> list[str]:
    assert not app.exception
    return [link.proto.label for link in app.get("page_link")]


def test_all_papers_are_in_the_gallery_and_in_the_navigation(page: Page) -> None:
    assert shown(page()) == [card.short for card in catalog.cards()]
    entries = contents.navigation()
    assert sum(len(pages) for pages in entries.values()) == 26
    assert list(entries)[1:] == list(catalog.THEMES.values())


@pytest.mark.parametrize("words", ["sp2ot", "IMBALANCED clustering", "chuyu zhang", "virtual cluster"])
def test_search_looks_at_names_titles_authors_and_ideas(page: Page, words: str) -> None:
    app = page()
    app.text_input(key="q").set_value(words).run()
    assert shown(app) == ["SP²OT"]


def test_search_and_theme_stand_in_the_address(page: Page) -> None:
    assert shown(page(q="sp2ot")) == ["SP²OT"]
    themed = shown(page(theme="quantization"))
    assert themed == [card.short for card in catalog.cards() if card.theme == "quantization"]
    nothing = page(q="[x](http://example.org)")
    assert shown(nothing) == [] and "No paper matches" in nothing.info[0].value
    assert "[x](" not in nothing.info[0].value, "a search is shown letter by letter, not as a link"
    for address in ("www.example.org", "https\\://example.org", "a@example.org"):
        assert address not in page(q=address.replace("\\", "")).info[0].value, "nor is a bare address"


def test_the_address_is_told_what_it_got_wrong(page: Page) -> None:
    app = page(theme="alchemy", colour="red")
    assert len(shown(app)) == 24
    assert "alchemy" in app.warning[0].value and "colour" in app.warning[0].value


@pytest.mark.parametrize(
    "card", [card for card in catalog.cards() if not contents.opens(card)], ids=lambda card: card.slug
)
def test_planned_pages_say_so(card: Card) -> None:
    def script(slug: str) -> None:
        import planned

        from lab import catalog

        planned.show(catalog.get(slug))

    app = AppTest.from_function(script, args=(card.slug,)).run()
    assert not app.exception
    assert app.info[0].value.startswith("Planned.") and app.title[0].value == card.short


def test_ledger_without_claims_says_what_to_run(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "all_standings", lambda: [])
    app = page("claims.py")
    assert not app.exception and "lab measure" in app.info[0].value


def test_ledger_filters_and_shows_why(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Claim(
        key="big",
        paper="Best on a million photographs",
        figure="61 %",
        where="table 2",
        metric="accuracy",
        unit="%",
        rule=OutOfReach(name="out_of_reach", why="86 million parameters"),
    )
    line = ledger.Standing(catalog.get("sp2ot"), claim, ledger.judge(claim, None), None, None)
    monkeypatch.setattr(ledger, "all_standings", lambda: [line])
    app = page("claims.py")
    table = app.table[0].value.astype(str).to_string()
    assert "out of reach" in table and "86 million parameters" in table and "61 %" in table
    assert not page("claims.py", verdict="shown").get("arrow_table")
    assert not page("claims.py", theme="tables").get("arrow_table")
    assert page("claims.py", theme="clustering", verdict="out of reach").table
