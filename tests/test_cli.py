"""The command line: JSON that others read, one sentence and exit code 2 for what a reader gets wrong, light imports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import typing
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab import catalog, ledger
from lab.cli import app
from lab.commands import serve

runner = CliRunner()


def test_list_json() -> None:
    rows = json.loads(runner.invoke(app, ["list", "--json"]).stdout)
    assert len(rows) == 24
    assert all(set(row) == {"slug", "theme", "title", "status"} for row in rows)
    assert {row["status"] for row in rows} <= {"ready", "planned"}


def test_show_json() -> None:
    card = json.loads(runner.invoke(app, ["show", "sp2ot", "--json"]).stdout)
    assert card["slug"] == "sp2ot" and card["arxiv"] == "2404.03446"
    needed = {"key", "paper", "rule", "unit", "n", "lab", "interval", "verdict", "stale"}
    assert all(needed <= set(claim) for claim in card["claims"])


def test_every_card_is_complete() -> None:
    cards = catalog.cards()
    assert len({card.slug for card in cards}) == 24
    for card in cards:
        assert card.idea.count(". ") >= 1 and card.theme in catalog.THEMES
        assert runner.invoke(app, ["show", card.slug]).exit_code == 0


@pytest.mark.parametrize("command", [["show"], ["open"], ["notebook"], ["measure"], ["bench"], ["run"]])
def test_an_unknown_paper_gets_the_nearest_match(command: list[str]) -> None:
    result = runner.invoke(app, [*command, "spot"])
    assert result.exit_code == 2
    assert "there is no paper 'spot'" in result.stderr and "'sp2ot'" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["open", "notebook"])
def test_a_taken_port_is_one_sentence(command: str) -> None:
    with socket.socket() as other:
        other.bind((serve.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        result = runner.invoke(app, [command, "--port", str(port)])
    assert result.exit_code == 2
    assert f"port {port} is taken" in result.stderr and len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "how"), [("open", signal.SIGINT), ("open", signal.SIGTERM), ("notebook", signal.SIGTERM)]
)
def test_a_server_answers_and_ends_when_told(command: str, how: signal.Signals) -> None:
    line = [sys.executable, "-m", "lab", command, "--no-browser", "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            address = said.partition(" is at ")[2].split()[0]
            assert address.startswith("http://localhost:")
            with urllib.request.urlopen(address, timeout=20) as answer:
                assert answer.status == 200
            process.send_signal(how)
            assert process.wait(20) == 0 and process.stdout.read() == ""
        finally:
            process.terminate()  # if it has not ended: the block waits for it
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=5)


def test_a_server_that_cannot_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "dashboard_command", lambda port: [sys.executable, "-c", "raise SystemExit(3)"])
    result = runner.invoke(app, ["open", "--no-browser", "--port", "0"])
    assert result.exit_code == 2 and result.stderr == "lab: the server ended with code 3 before it answered\n"


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    env = os.environ | {"LAB_HOME": str(blocked / "below")}
    done = subprocess.run([sys.executable, "-m", "lab", "doctor"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """A small table with two clear clusters."""
    path = tmp_path / "my animals.csv"
    path.write_text("a,b\n" + "\n".join(f"{i % 2 * 9 + i / 50},{i % 3}" for i in range(40)))
    return path


def test_a_method_on_one_s_own_file(animals: Path) -> None:
    options = ["--n-clusters", "2", "--steps", "20", "--starts", "1"]
    result = runner.invoke(app, ["run", "sp2ot", str(animals), *options])
    assert result.exit_code == 0, result.stderr
    written = (animals.parent / "my animals-sp2ot.csv").read_text().splitlines()
    assert written[0] == "row,cluster,confidence" and len(written) == 41
    assert sorted(path.name for path in animals.parent.glob("*animals*")) == ["my animals-sp2ot.csv", "my animals.csv"]


def test_results_replace_nothing_unasked_and_follow_links(animals: Path) -> None:
    options = [str(animals), "--n-clusters", "2", "--steps", "20", "--starts", "1"]
    first = animals.with_name("my animals-sp2ot.csv")
    first.write_text("precious")
    assert runner.invoke(app, ["run", "sp2ot", *options]).exit_code == 0
    assert first.read_text() == "precious" and animals.with_name("my animals-sp2ot-2.csv").exists()
    (animals.parent / "elsewhere").mkdir()
    named = animals.parent / "elsewhere" / "named.csv"
    named.symlink_to(animals)
    assert runner.invoke(app, ["run", "sp2ot", str(named), *options[1:]]).exit_code == 0
    assert named.with_name("named-sp2ot.csv").exists(), "beside the name that was given"
    link = animals.with_name("link.csv")
    link.symlink_to(first)
    assert runner.invoke(app, ["run", "sp2ot", *options, "--out", str(link)]).exit_code == 0
    assert link.is_symlink() and first.read_text().startswith("row,cluster")
    assert runner.invoke(app, ["run", "sp2ot", *options, "--out", os.devnull]).exit_code == 0
    assert not Path(os.devnull).is_file(), "a device stays one"


def test_a_terminal_that_cannot_show_a_sign(own_home: Path) -> None:
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    for command in (["list"], ["show", "sp2ot"], ["doctor"]):
        done = subprocess.run([sys.executable, "-m", "lab", *command], capture_output=True, env=env, check=False)
        assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.csv"], "there is no file 'nowhere.csv'"),
        (["ANIMALS", "--out", "ANIMALS"], "names your own file 'my animals.csv'"),
        (["ANIMALS", "--out", "FOLDER"], "names the folder"),
        (["ANIMALS", "--out", "ANIMALS/below.csv"], "cannot write to"),
        (["ANIMALS", "--out", "x" * 300], "is no file's name"),
        (["x" * 300], "is no file's name"),
        (["ANIMALS", "--n-clusters", "1"], "n_clusters: Input should be greater than or equal to 2 (you gave 1)."),
        (["ANIMALS", "--n-clusters", "50"], "n_clusters=50 exceeds the number of samples"),
        (["ANIMALS", "--rho0", "nan"], "rho0"),
    ],
)
def test_a_wrong_run_is_one_sentence_and_loses_nothing(animals: Path, arguments: list[str], says: str) -> None:
    before = animals.read_bytes()
    words = {"ANIMALS": str(animals), "FOLDER": str(animals.parent), "ANIMALS/below.csv": str(animals / "below.csv")}
    result = runner.invoke(app, ["run", "sp2ot", *(words.get(word, word) for word in arguments)])
    assert result.exit_code == 2 and says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert animals.read_bytes() == before


def test_a_planned_paper_says_so() -> None:
    planned = next(card for card in catalog.cards() if not card.has_room)
    result = runner.invoke(app, ["measure", planned.slug])
    assert result.exit_code == 2 and "is planned" in result.stderr


@pytest.mark.parametrize(
    "command", ["list", "show", "open", "notebook", "measure", "bench", "check", "doctor", "run", "readme", "new"]
)
def test_help_teaches(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0 and len(result.stdout) > 150


def test_light_commands_load_no_heavy_library() -> None:
    code = (
        "import sys; import lab.cli, lab.ledger, lab.results, lab.knobs, lab.files, lab.catalog as c; c.cards();"
        "heavy = {'torch','pandas','sklearn','transformers','plotly','streamlit','scipy','ot'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["list", "show sp2ot", "doctor", "assets", "readme", "run --help", "new --help"])
def test_light_commands_answer_without_a_heavy_library(command: str) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from lab.cli import app;"
        f"result = CliRunner().invoke(app, {command.split()}); assert result.exit_code == 0, result.output;"
        "heavy = {'torch','pandas','sklearn','transformers','plotly','streamlit','ot'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_verdict_has_a_meaning_and_no_other_word() -> None:
    assert list(ledger.VERDICTS) == list(typing.get_args(catalog.Verdict))
