"""The wheel: built from the clone's files, installed in a bare environment outside the clone, it is the whole lab.

The environment sees the dependencies of this one and nothing else of it: not the clone, not its editable install.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tomllib
import urllib.error
import urllib.parse
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import require

from lab import paths
from lab.commands import check, serve

CLONE = Path(__file__).resolve().parents[1]
MAX_WHEEL = 100 * 2**20
SHIPPED = {"lab": "lab", "apps": "lab/_share/apps", "notebooks": "lab/_share/notebooks", "data": "lab/_share/data"}
NOT_INHERITED = ("PYTHON", "VIRTUAL_ENV", "LAB_", "JUPYTER", "IPYTHON", "STREAMLIT", "XDG_")
NOTEBOOK = "clustering/sp2ot.ipynb"


@dataclass(frozen=True)
class Installed:
    """An installed wheel: where it was built and unpacked, and how to run its commands."""

    source: Path
    wheel: Path
    environment: Path
    elsewhere: Path

    @property
    def package(self) -> Path:
        return Path(sysconfig.get_path("purelib", "venv", {"base": str(self.environment)})) / "lab"

    def command(self, *words: str) -> dict[str, Any]:
        """Arguments for subprocess: a program of the environment, run far from the clone, in the test's own LAB_HOME."""
        programs = self.environment / "bin"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        own = {
            "PATH": f"{programs}{os.pathsep}{os.defpath}",
            "HOME": str(self.elsewhere),
            "COLUMNS": "1000",
            "LAB_HOME": os.environ["LAB_HOME"],
            "OMP_NUM_THREADS": "1",
        }
        return {"args": [str(programs / words[0]), *words[1:]], "env": kept | own, "cwd": self.elsewhere}

    def lab(self, *words: str) -> str:
        """What `lab ...` prints; it must succeed."""
        done = subprocess.run(**self.command("lab", *words), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def served(self, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
        """The address that `lab ...` prints once its server answers, and the process."""
        command = self.command("lab", *words, "--no-browser", "--port", "0")
        process = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().partition(" is at ")[2].split()[0], process
        finally:
            process.terminate()
            process.communicate(timeout=20)

    def state(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file of the package but Python's own caches."""
        return {
            str(path): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in self.package.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }


def checked(*command: str | Path, cwd: Path) -> None:
    """Run a program of this environment; its output is the message when it fails."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The wheel, built and installed; its package may not be written."""
    require(shutil.which("git") and (CLONE / ".git").exists(), "not a git clone: which files are the lab's is unknown")
    root = tmp_path_factory.mktemp("wheel")
    source, environment, elsewhere = root / "source", root / "environment", root / "elsewhere"
    elsewhere.mkdir()
    listed = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=CLONE, text=True)
    for name in filter(None, listed.split("\0")):
        if (CLONE / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CLONE / name, source / name)
    checked("build", "--wheel", "--no-isolation", "--outdir", root, source, cwd=root)
    (built,) = root.glob("*.whl")
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    checked("pip", "--python", python, "install", "-q", "--no-index", "--no-deps", built, cwd=root)
    made = Installed(source, built, environment, elsewhere)
    see_dependencies(made)
    permit(made.package, 0o555)
    yield made
    permit(made.package, 0o755)


def see_dependencies(made: Installed) -> None:
    """Put this environment's packages behind the wheel's. A .pth file within them, an editable install's, is not read."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (made.package.parent / "dependencies.pth").write_text("\n".join(folders) + "\n")
    for data in ("share", "etc"):
        if (Path(sys.prefix) / data / "jupyter").exists():
            (made.environment / data).mkdir(exist_ok=True)
            (made.environment / data / "jupyter").symlink_to(Path(sys.prefix) / data / "jupyter")


def permit(package: Path, mode: int) -> None:
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        folder.chmod(mode)


@pytest.fixture
def installed(wheel: Installed) -> Iterator[Installed]:
    """The installed wheel; a test may leave nothing in its package."""
    before = wheel.state()
    yield wheel
    assert wheel.state() == before


def test_every_shipped_file_travels_byte_for_byte(installed: Installed, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        f"{place}/{path.relative_to(installed.source / folder).as_posix()}": path.read_bytes()
        for folder, place in SHIPPED.items()
        for path in (installed.source / folder).rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(installed.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == set(expected)
        assert [name for name in names if archive.read(name) != expected[name]] == []
    size = installed.wheel.stat().st_size
    with capsys.disabled():
        print(f"\n{installed.wheel.name}: {size / 2**20:.1f} MB, {len(names)} files")
    assert size < MAX_WHEEL


def test_it_is_the_wheel_that_runs_not_the_clone(installed: Installed) -> None:
    code = (
        "import json, sys, lab; from importlib import metadata; found = metadata.distribution('paperlab');"
        "print(json.dumps([lab.__file__, str(found.locate_file('')), found.version, lab.__version__, sys.path]))"
    )
    said = subprocess.check_output(**installed.command("python", "-P", "-c", code), text=True)
    file, place, version, own_version, path = json.loads(said)
    assert Path(file) == installed.package / "__init__.py" and Path(place) == installed.package.parent
    assert version == own_version and f"-{version}-" in installed.wheel.name
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    assert [entry for entry in path if entry not in dependencies and Path(entry).is_relative_to(CLONE)] == []


def test_the_light_commands(installed: Installed) -> None:
    assert len(json.loads(installed.lab("list", "--json"))) == 24
    shown = json.loads(installed.lab("show", "sp2ot", "--json"))
    assert shown["status"] == "ready" and "not measured" not in {claim["verdict"] for claim in shown["claims"]}
    assert str(Path(os.environ["LAB_HOME"])) in installed.lab("doctor")
    assert "stdlib-gpt" in installed.lab("assets")


def test_check_finds_what_it_finds_in_the_clone(installed: Installed) -> None:
    done = subprocess.run(**installed.command("lab", "check"), capture_output=True, text=True, check=False)
    found = [line.removeprefix("· ") for line in done.stdout.splitlines() if line.startswith("· ")]
    assert not done.stderr and done.returncode == bool(found)
    assert found == [finding for finding in check.findings() if not finding.startswith("README.md")]


def test_there_is_no_readme_to_write(installed: Installed) -> None:
    command = installed.command("lab", "readme", "--write")
    done = subprocess.run(**command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "only a clone" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_measurement_lands_in_the_reader_s_folder(installed: Installed, own_home: Path) -> None:
    said = installed.lab("measure", "sp2ot", "--seeds", "1", "--study", "certificate")
    assert "your verdict" in said
    (stored,) = (own_home / "ledger" / "sp2ot" / "certificate").rglob("*.json")
    assert json.loads(stored.read_text())


def test_the_dashboard_serves_a_page(installed: Installed) -> None:
    with installed.served("open", "sp2ot") as (address, process):
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert answer.status == 200
        text = page_text(address, "sp2ot")
        settings = tomllib.loads((installed.source / "apps/.streamlit/config.toml").read_text())
        assert settings["theme"]["light"]["primaryColor"] in text, "the lab's settings travel too"
        assert "SP²OT" in text and "plotly_chart" in text and "exception {" not in text and "stumbled" not in text
        ends(process, signal.SIGINT, address)


def page_text(address: str, page: str) -> str:
    """Run a page of the dashboard as a browser would; all that it sends, as text."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect

    opened = BackMsg()
    opened.rerun_script.page_name = page
    sent: list[str] = []
    stream = f"ws://{urllib.parse.urlsplit(address).netloc}/_stcore/stream"
    with connect(stream, max_size=None, proxy=None) as socket:
        socket.send(opened.SerializeToString())
        while True:
            message = ForwardMsg.FromString(socket.recv(timeout=60))
            if message.WhichOneof("type") == "script_finished":
                return "\n".join(sent)
            sent.append(repr(message))


def test_jupyterlab_opens_the_reader_s_copy(installed: Installed, own_home: Path) -> None:
    with installed.served("notebook", "sp2ot") as (address, process):
        parts = urllib.parse.urlsplit(address)
        assert parts.path == f"/lab/tree/{NOTEBOOK}"
        token = urllib.parse.parse_qs(parts.query)["token"][0]
        contents = f"http://{parts.netloc}/api/contents/{NOTEBOOK}"
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert answer.status == 200 and b"JupyterLab" in answer.read()
        headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(contents, headers=headers), timeout=20) as answer:
            notebook = json.load(answer)
        assert notebook["type"] == "notebook" and notebook["writable"]
        notebook["content"]["cells"][0]["source"] = "my own words"
        saved = json.dumps({"type": "notebook", "content": notebook["content"]}).encode()
        request = urllib.request.Request(contents, saved, headers, method="PUT")
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 200
        assert "my own words" in (own_home / "notebooks" / NOTEBOOK).read_text()
        ends(process, signal.SIGTERM, address)


def ends(process: subprocess.Popen[str], how: signal.Signals, address: str) -> None:
    """Told to end, the server is gone, with code 0 and without a word."""
    process.send_signal(how)
    assert process.wait(20) == 0 and process.stdout is not None and process.stdout.read() == ""
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=5)


def test_a_reader_s_notebook_outlives_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "shipped"
    (shipped / "theme").mkdir(parents=True)
    monkeypatch.setattr(paths, "shared", lambda name: shipped)
    monkeypatch.setattr(paths, "installed", lambda: True)
    for name in ("theme/mine.ipynb", "theme/untouched.ipynb", "theme/deleted.ipynb"):
        (shipped / name).write_text("old")
    copy = serve.notebooks_root()
    assert copy == paths.user_folder("notebooks")
    (copy / "theme/mine.ipynb").write_text("my work")
    (copy / "theme/deleted.ipynb").unlink()
    for path in shipped.rglob("*.ipynb"):
        path.write_text("new")
    for _ in range(2):
        serve.notebooks_root()
        found = {path.stem: path.read_text() for path in copy.rglob("*.ipynb")}
        assert found == {"mine": "my work", "untouched": "new", "deleted": "new"}
    (copy / ".copied.json").write_text("damaged")
    (shipped / "theme/untouched.ipynb").write_text("newer")
    serve.notebooks_root()
    assert (copy / "theme/untouched.ipynb").read_text() == "new", "nothing known, nothing replaced"


def test_a_clone_s_notebooks_are_opened_in_place() -> None:
    assert serve.notebooks_root() == CLONE / "notebooks"
