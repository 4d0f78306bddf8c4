"""A paper of another package: found by its entry point, without running its code; damaged, it leaves the lab as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import catalog, paths
from lab.commands import new

SLUG = "tiny-paper"
CARD = """
slug = "tiny-paper"
title = "A Tiny Paper"
short = "Tiny"
theme = "sparse"
authors = ["A. Author"]
year = 2026
idea = "Noise hides what is sparse. Pull everything to zero."
headline = "Pull, and the noise is gone."
minutes = 10
prerequisites = ["a derivative"]

[[claims]]
key = "less-noise"
paper = "Pulling takes noise away."
figure = "half of it"
where = "table 1"
metric = "mean squared error"
unit = "error"
better = "lower"
study = "noise"
method = "pulled_error"
baseline = "noisy_error"
rule = { name = "not_worse", margin = 10 }
replication = "data"

[[tour]]
text = "A strong pull."
experiment = "shrink"
config = { level = 2.0 }
"""
PAGES = """
import contents
from streamlit.testing.v1 import AppTest

from lab import catalog, paths

app = AppTest.from_file(str(paths.shared("apps") / "main.py"), default_timeout=60).run()
assert not app.exception and "Tiny" in [link.proto.label for link in app.get("page_link")]
app.switch_page(str(catalog.get("tiny-paper").page)).run()
assert not app.exception, app.exception
assert app.title[0].value == "Pull, and the noise is gone."
assert len(app.get("plotly_chart")) == 1
"""


class Site:
    """A folder of installed packages, before everything else on the path of the programs that are run here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, name: str, *entries: str) -> None:
        """What an installer leaves of a package besides its code: `entries` are lines like slug = package."""
        info = self.folder / f"{name}-0.1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text("[paperlab.papers]\n" + "\n".join(entries) + "\n")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        search = os.pathsep.join([str(self.folder), str(paths.clone()), str(paths.clone() / "apps")])
        env = os.environ | {"PYTHONPATH": search, "COLUMNS": "300", "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, check=False)

    def lab(self, *words: str) -> str:
        done = self.run("-m", "lab", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """With the tiny paper installed, as `lab new` makes it, its card filled in."""
    site = Site(tmp_path / "site")
    new.new_package(SLUG, site.folder)
    (site.folder / "tiny_paper" / "card.toml").write_text(CARD)
    site.install("tiny_paper", "tiny-paper = tiny_paper")
    return site


def test_card_room_measurement_and_notebook(site: Site, own_home: Path) -> None:
    (row,) = [row for row in json.loads(site.lab("list", "--json")) if row["slug"] == SLUG]
    assert row == {"slug": SLUG, "theme": "sparse", "title": "A Tiny Paper", "status": "planned"}
    assert "direction only" in site.lab("measure", SLUG, "--seeds", "2", "--study", "noise"), "two seeds are not enough"
    assert len(list((own_home / "ledger" / SLUG / "noise").rglob("*.json"))) == 2
    site.lab("measure", SLUG, "--record")
    folder = site.folder / "tiny_paper"
    assert set(json.loads((folder / "ledger.json").read_text())) == {"noise", "minimum"}
    shown = json.loads(site.lab("show", SLUG, "--json"))
    assert shown["status"] == "ready" and [(c["verdict"], c["stale"]) for c in shown["claims"]] == [("shown", "")]
    code = (
        "from lab import catalog, rooms; from lab.commands import serve; card = catalog.get('tiny-paper');"
        "print(rooms.method(card).shrink.__module__, *serve.notebook_place(card), card.thumbnail.name)"
    )
    module, place, name, picture = site.run("-c", code).stdout.split()
    assert (module, name, picture) == ("tiny_paper.method", "tiny-paper.ipynb", "thumbnail.svg")
    assert (Path(place) / name).exists() and Path(place) == own_home / "notebooks" / SLUG
    method = folder / "method.py"
    method.write_text(method.read_text().replace("- level, 0.0)", "- 2 * level, 0.0)"))
    (claim,) = json.loads(site.lab("show", SLUG, "--json"))["claims"]
    assert claim["stale"] == "recorded by older code"
    (folder / "studies.py").write_text("def")
    (claim,) = json.loads(site.lab("show", SLUG, "--json"))["claims"]
    assert (claim["verdict"], claim["stale"]) == ("shown", "recorded by older code")


def test_page_stands_in_the_navigation_and_draws(site: Site) -> None:
    done = site.run("-c", PAGES)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (None, "card.toml: No such file or directory"),
        ("slug = ", "card.toml: Invalid value"),
        ('slug = "tiny-paper"', "card.toml: title: Field required"),
        (CARD.replace('"tiny-paper"', '"other"'), "card.toml holds the slug 'other'"),
        (CARD.replace('"sparse"', '"alchemy"'), "theme 'alchemy' is none of"),
        (b"\xff", "card.toml: "),
    ],
)
def test_a_damaged_card_is_one_sentence(site: Site, card: str | bytes | None, says: str) -> None:
    path = site.folder / "tiny_paper" / "card.toml"
    path.unlink()
    if card is not None:
        path.write_bytes(card if isinstance(card, bytes) else card.encode())
    done = site.run("-m", "lab", "list", "--json")
    assert done.returncode == 0 and len(json.loads(done.stdout)) == 24
    (line,) = done.stderr.splitlines()
    assert line.startswith("lab: the paper 'tiny-paper' of the package 'tiny_paper' cannot be shown: ") and says in line


def test_what_joins_under_another_s_name_or_from_nowhere_is_refused(site: Site) -> None:
    entries = ("sp2ot = tiny_paper", "ledger = tiny_paper", "Tiny! = tiny_paper", "gone = not_there.at_all")
    site.install("others", *entries, "tiny-paper = json")
    done = site.run("-m", "lab", "list", "--json")
    assert [row["title"] for row in json.loads(done.stdout) if row["slug"] == "sp2ot"] == [catalog.get("sp2ot").title]
    assert len(json.loads(done.stdout)) == 24 and len(done.stderr.splitlines()) == 5 + 1
    found = site.run("-m", "lab", "doctor")
    assert "there is no such package" in found.stdout and "Traceback" not in found.stderr


def test_its_code_is_not_run_to_list_it_and_may_be_broken(site: Site) -> None:
    folder = site.folder / "tiny_paper"
    (folder / "__init__.py").write_text("raise RuntimeError('run')")
    assert SLUG in site.lab("list")
    (folder / "ledger.json").write_text("{}}")
    (folder / "studies.py").write_text("def")
    assert "tiny_paper is damaged" in json.loads(site.lab("show", SLUG, "--json"))["claims"][0]["reason"]
    assert "the room cannot be used" in site.run("-m", "lab", "check", SLUG).stdout
