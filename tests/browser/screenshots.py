"""Pictures of every page, light and dark, at a desk's, a phone's and a projector's size: to be looked at, not a test.

    python tests/browser/screenshots.py [NAME ...]      # into screenshots/; NAME: part of a picture's name, e.g. plan-dark
    python tests/browser/screenshots.py --readme        # the README's two pictures, into apps/pictures/

It serves the dashboard itself and needs Chromium.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUT = Path("screenshots")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PLACES = {
    "home": "",
    "ledger": "ledger",
    "planned": "smash",
    "plan": "sp2ot",
    "plan-image": "sp2ot?plan.picture=the-plan",
    "plan-sizes": "sp2ot?plan.picture=sizes",
    "plan-descent": "sp2ot?step=5&plan.data=digits&plan.semantic_weight=1&plan.picture=descent",
    "plan-solvers": "sp2ot?plan.picture=solvers",
    "growth": "sp2ot?view=growth",
    "growth-precision": "sp2ot?view=growth&growth.picture=precision",
    "growth-sizes": "sp2ot?view=growth&growth.picture=sizes",
    "digits": "sp2ot?view=digits",
    "digits-tail": "sp2ot?view=digits&digits.picture=head-to-tail",
    "digits-confusion": "sp2ot?view=digits&digits.picture=confusion",
    "digits-precision": "sp2ot?view=digits&digits.picture=precision",
    "digits-map": "sp2ot?view=digits&digits.picture=on-the-map",
    "features": "sp2ot?view=features",
    "tour": "sp2ot?step=1",
    "tc-circuit": "transcoders",
    "tc-waterfall": "transcoders?circuit.picture=waterfall",
    "tc-influence": "transcoders?circuit.method=influence",
    "tc-spans": "transcoders?circuit.model=spans-1l",
    "tc-years": "transcoders?view=years",
    "tc-years-few": "transcoders?view=years&years.picture=few-units",
    "tc-years-writes": "transcoders?view=years&years.picture=what-units-write",
    "tc-pareto": "transcoders?view=pareto",
    "tc-features": "transcoders?view=features",
    "tc-wiring": "transcoders?view=wiring",
    "tc-wiring-features": "transcoders?view=wiring&wiring.picture=features",
    "tc-wiring-spans": "transcoders?view=wiring&wiring.model=spans-1l&wiring.layer=0&wiring.unit=689",
    "tc-case": "transcoders?view=case",
    "tc-rating": "transcoders?view=rating",
    "tc-sae": "transcoders?view=features&features.kind=sae&features.layer=2",
    "tc-tour": "transcoders?step=6",
    "pb-layer": "pb-llm",
    "pb-layer-weights": "pb-llm?layer.picture=the-weights",
    "pb-layer-bill": "pb-llm?layer.picture=the-bill",
    "pb-layer-channels": "pb-llm?layer.picture=channels",
    "pb-layer-histogram": "pb-llm?layer.picture=histogram",
    "pb-model": "pb-llm?view=model",
    "pb-model-names": "pb-llm?view=model&model.picture=by-name",
    "pb-model-blocks": "pb-llm?view=model&model.picture=block-by-block",
    "pb-model-seeds": "pb-llm?view=model&model.picture=over-seeds",
    "pb-model-seeds-names": "pb-llm?view=model&model.picture=seeds-by-name",
    "pb-search": "pb-llm?view=search",
    "pb-search-all": "pb-llm?view=search&search.picture=all-documents",
    "pb-training": "pb-llm?view=training",
    "pb-training-ends": "pb-llm?view=training&training.picture=perplexity",
    "pb-matrix": "pb-llm?view=matrix",
    "pb-tour": "pb-llm?step=1",
    "ptq-layer": "ptq1-61",
    "ptq-layer-weights": "ptq1-61?layer.picture=the-weights",
    "ptq-bill": "ptq1-61?view=bill",
    "ptq-bill-width": "ptq1-61?view=bill&bill.picture=width",
    "ptq-model": "ptq1-61?view=model",
    "ptq-search": "ptq1-61?view=search",
    "ptq-preprocess": "ptq1-61?view=preprocess",
    "ptq-preprocess-largest": "ptq1-61?view=preprocess&preprocess.picture=largest-weights",
    "flex-layer": "flexround",
    "flex-layer-weights": "flexround?layer.picture=the-weights",
    "flex-rounding": "flexround?view=rounding",
    "flex-rounding-all": "flexround?view=rounding&rounding.picture=all-weights",
    "flex-rounding-who": "flexround?view=rounding&rounding.picture=who-moves",
    "flex-rounding-size": "flexround?view=rounding&rounding.picture=by-size",
    "flex-rounding-points": "flexround?view=rounding&rounding.picture=points",
    "flex-rounding-race": "flexround?view=rounding&rounding.picture=race",
    "flex-model": "flexround?view=model",
    "flex-digits": "flexround?view=digits",
    "flex-digits-error": "flexround?view=digits&digits.picture=error",
    "flex-digits-factors": "flexround?view=digits&digits.picture=channel-factors",
    "flex-search": "flexround?view=search",
}
README_PLACE, README_FOLDER = "sp2ot?plan.data=digits&plan.rho=0.5&present=1", Path("apps/pictures")
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
PRESENTED = (
    "plan",
    "plan-image",
    "growth",
    "digits",
    "tour",
    "pb-layer",
    "pb-layer-weights",
    "pb-model",
    "pb-model-names",
    "pb-search",
    "pb-training",
    "pb-tour",
    "ptq-layer",
    "ptq-bill",
    "ptq-preprocess",
    "flex-layer",
    "flex-rounding",
    "flex-rounding-all",
    "flex-digits",
    "tc-circuit",
    "tc-years",
    "tc-tour",
)


@contextlib.contextmanager
def dashboard(**environment: str) -> Iterator[str]:
    """The base address of a dashboard that ends with the block; `environment` adds to this process's."""
    from lab.commands import serve

    port = serve.free_port(0)
    process = subprocess.Popen(
        serve.dashboard_command(port), env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        serve.wait_until_up(process, f"http://127.0.0.1:{port}/_stcore/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def settled(page: Any) -> None:
    """Wait until the script has run and every figure is drawn."""
    page.wait_for_selector("h1, h2, h3", timeout=60_000)
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
        " && !document.querySelector('[data-testid=stSkeleton], [data-testid=stSpinner]')"
        " && [...document.querySelectorAll('[data-testid=stPlotlyChart]')].every(e => e.querySelector('.main-svg'))",
        timeout=60_000,
    )
    page.wait_for_timeout(800)


def for_readme(base: str) -> list[Path]:
    """The README's picture, light and dark, with 200 colours: small enough to be fetched with a page of text."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    made = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        for scheme in ("light", "dark"):
            page = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 640}).new_page()
            page.goto(f"{base}/{README_PLACE}")
            settled(page)
            made.append(README_FOLDER / f"sp2ot-{scheme}.png")
            page.screenshot(path=made[-1])
            Image.open(made[-1]).convert("RGB").quantize(200).save(made[-1], optimize=True)
        browser.close()
    return made


def chromium() -> str | None:
    """The system's Chromium."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def take(base: str, wanted: list[str]) -> list[Path]:
    """One PNG a place, mode and size; full height, but for present mode, where one screen must do."""
    from playwright.sync_api import sync_playwright

    OUT.mkdir(exist_ok=True)
    made = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        for scheme in ("light", "dark"):
            for size, (width, height) in (SIZES | {"present": (1280, 720)}).items():
                context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
                for place, address in PLACES.items():
                    name = f"{place}-{scheme}-{size}"
                    if wanted and not any(part in name for part in wanted):
                        continue
                    if size == "present":
                        if place not in PRESENTED:
                            continue
                        address += ("&" if "?" in address else "?") + "present=1"
                    page = context.new_page()
                    page.goto(f"{base}/{address}")
                    settled(page)
                    if (
                        size != "present"
                    ):  # the page scrolls inside the browser's window: make the window as high as it is
                        tall = page.evaluate(
                            "() => Math.max(...[...document.querySelectorAll('[data-testid=stMain], "
                            "[data-testid=stMainBlockContainer]')].map(e => e.scrollHeight))"
                        )
                        page.set_viewport_size({"width": width, "height": min(int(tall) + 40, 6000)})
                        page.wait_for_timeout(500)
                    made.append(OUT / f"{name}.png")
                    page.screenshot(path=made[-1])
                    page.close()
                context.close()
        browser.close()
    return made


if __name__ == "__main__":
    with dashboard() as base:
        for path in for_readme(base) if sys.argv[1:] == ["--readme"] else take(base, sys.argv[1:]):
            print(path)
