"""`lab new` in a copied clone: the room's skeleton is sound, runs from end to end, and is told what it lacks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab import catalog, paths
from lab.cli import app
from lab.commands import new

REPOSITORY = paths.clone()
PLANNED = [card for card in catalog.cards() if not card.has_room]
SLUG = "program-translation"
PAGE = """
from streamlit.testing.v1 import AppTest

from lab import catalog, paths

app = AppTest.from_file(str(paths.shared("apps") / "main.py"), default_timeout=60).run()
app.switch_page("language/program_translation.py").run()
assert not app.exception, app.exception
assert len(app.get("plotly_chart")) == 1 and not app.warning
"""


class Clone:
    """A copy of the lab without its tests, in which a room can be begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("lab", "apps"):
            shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy2(REPOSITORY / name, folder / name)
        (folder / "tests").mkdir()
        shutil.copy2(REPOSITORY / "tests" / "typing_hook.py", folder / "tests" / "typing_hook.py")
        (folder / "notebooks").mkdir()
        (folder / "data").symlink_to(paths.shared("data"))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        search = os.pathsep.join([str(self.folder), str(self.folder / "apps")])
        env = os.environ | {"PYTHONPATH": search, "COLUMNS": "300", "OMP_NUM_THREADS": "1"}
        line = [sys.executable, "-m", *command] if command[0] != "-c" else [sys.executable, *command]
        return subprocess.run(line, cwd=self.folder, env=env, capture_output=True, text=True, check=False)

    def passes(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copied clone with the skeleton of one planned paper."""
    made = Clone(tmp_path_factory.mktemp("clone") / "lab")
    said = made.passes("lab", "new", SLUG)
    assert "lab/language/program_translation/method.py" in said and f"lab check {SLUG}" in said
    return made


def test_it_is_planned_until_it_is_ready(clone: Clone) -> None:
    status = {row["slug"]: row["status"] for row in json.loads(clone.passes("lab", "list", "--json"))}
    assert status[SLUG] == "planned"
    done = clone.run("lab", "check", SLUG)
    assert done.returncode == 1 and not done.stderr
    for lack in ("no claims", "no tour", "no minutes", "nothing is recorded", "1 of 3 exercises", "stores no figure"):
        assert lack in done.stdout
    assert "method.py says TODO" in done.stdout and "cannot be used" not in done.stdout
    assert "docstring" not in done.stdout, "the example has what it asks for"


def test_its_tests_pass_and_its_examples_run(clone: Clone) -> None:
    room = ("tests/language/program_translation", "lab/language/program_translation")
    assert " passed" in clone.passes("pytest", "-q", *room)


def test_its_page_draws(clone: Clone) -> None:
    clone.passes("-c", PAGE)


def test_its_notebook_runs(clone: Clone) -> None:
    options = ("--nbval-lax", "--nbval-current-env", "-o", "addopts=")
    clone.passes("pytest", "-q", *options, f"notebooks/language/{SLUG}.ipynb")


def test_nothing_is_replaced(clone: Clone) -> None:
    before = {path: path.stat().st_mtime_ns for path in clone.folder.rglob("*.py")}
    done = clone.run("lab", "new", SLUG)
    assert done.returncode == 2 and "replaces nothing" in done.stderr and len(done.stderr.splitlines()) == 1
    assert before == {path: path.stat().st_mtime_ns for path in clone.folder.rglob("*.py")}


def test_every_planned_paper_s_skeleton_keeps_the_house_s_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "clone", lambda: tmp_path)
    for card in PLANNED:
        new.new_room(card)
    shutil.copy2(REPOSITORY / "pyproject.toml", tmp_path)
    for path in (REPOSITORY / "lab").glob("*.py"):  # by these ruff knows whose the imports are
        shutil.copy2(path, tmp_path / "lab")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "{{" in path.read_text(encoding="utf-8")]
    assert left == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sp2ot"], "replaces nothing"),
        (["spot"], "there is no paper 'spot'"),
        (["pb-llm", "--package", "FOLDER"], "choose another one"),
        (["Not A Slug", "--package", "FOLDER"], "is not a slug"),
        (["a", "--package", "FILE"], "cannot write to"),
    ],
)
def test_a_wrong_call_is_one_sentence(tmp_path: Path, words: list[str], says: str) -> None:
    (tmp_path / "file").write_text("")
    places = {"FOLDER": str(tmp_path / "folder"), "FILE": str(tmp_path / "file")}
    result = CliRunner().invoke(app, ["new", *(places.get(word, word) for word in words)])
    assert result.exit_code == 2 and says in result.stderr and len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_installed_lab_says_that_it_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "installed", lambda: True)
    result = CliRunner().invoke(app, ["new", PLANNED[0].slug])
    assert result.exit_code == 2 and "only a clone" in result.stderr
