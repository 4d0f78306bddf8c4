"""Starting the dashboard and JupyterLab, bound to this machine alone."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import paths
from lab.catalog import Card

HOST = "127.0.0.1"
_COPIED = ".copied.json"


class PortTaken(OSError):
    """Something else listens on the port that was asked for."""


class ServerFailed(RuntimeError):
    """The server ended, or stayed silent, before it could be used."""


def free_port(wanted: int) -> int:
    """`wanted`, if nothing listens there; PortTaken otherwise. 0 asks for any free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            why = "may not be used without the right to" if isinstance(error, PermissionError) else "is taken"
            raise PortTaken(f"port {wanted} {why}; close what uses it or choose another with --port") from error
        return int(probe.getsockname()[1])


def dashboard_command(port: int) -> list[str]:
    """The command that serves the dashboard on 127.0.0.1:port."""
    options = {
        "server.address": HOST,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": "localhost",
    }
    entry = paths.shared("apps") / "asgi.py"
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "streamlit", "run", str(entry), *flags]


def notebook_command(port: int, token: str, root: Path) -> list[str]:
    """The command that serves JupyterLab on 127.0.0.1:port with `root` as its folder."""
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        f"--ServerApp.ip={HOST}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={root}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    return command


def wait_until_up(process: subprocess.Popen[bytes], url: str, seconds: float = 60.0) -> None:
    """Return once `url` answers; ServerFailed if the server ends or stays silent."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"the server ended with code {process.returncode} before it answered")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise ServerFailed(f"the server did not answer within {seconds:.0f} s")


def run_dashboard(path: str, port: int, browser: bool, announce: Callable[[str], None]) -> int:
    """Serve the dashboard until Ctrl-C; announce(url) once it answers. Returns the exit code."""
    port = free_port(port)
    process = subprocess.Popen(dashboard_command(port), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    url = f"http://localhost:{port}/{path}"
    return _serve(process, f"http://{HOST}:{port}/_stcore/health", url, browser, announce)


def run_notebook(card: Card | None, port: int, browser: bool, announce: Callable[[str], None]) -> int:
    """Serve JupyterLab with a paper's notebook, or the folder of all, until Ctrl-C; announce(url) once it answers.

    Returns the exit code.
    """
    port = free_port(port)
    token = secrets.token_urlsafe(16)
    root, name = notebook_place(card) if card else (notebooks_root(), "")
    process = subprocess.Popen(notebook_command(port, token, root), stdin=subprocess.DEVNULL)
    tree = f"/tree/{name}" if name else ""
    url = f"http://localhost:{port}/lab{tree}?token={token}"
    return _serve(process, f"http://{HOST}:{port}/api/status?token={token}", url, browser, announce)


def notebook_place(card: Card) -> tuple[Path, str]:
    """The folder that JupyterLab shows for a paper, and the notebook's name in it; another package's is copied first."""
    if card.package:
        copy = paths.user_folder("notebooks", card.slug)
        return _copy_notebooks(card.folder, [card.notebook], copy), card.notebook.name
    return notebooks_root(), card.notebook.relative_to(paths.shared("notebooks")).as_posix()


def notebooks_root() -> Path:
    """The clone's notebooks; in an installed lab, or where those cannot be written, a copy in the reader's folder."""
    shipped = paths.shared("notebooks")
    if not paths.installed() and os.access(shipped, os.W_OK):
        return shipped
    files = sorted(path for path in shipped.rglob("*") if path.is_file())
    return _copy_notebooks(shipped, files, paths.user_folder("notebooks"))


def _copy_notebooks(folder: Path, files: Sequence[Path], copy: Path) -> Path:
    """Copy files of `folder` to `copy`, which is returned.

    What the reader changed in the copy is kept; what is as it was copied follows the original when that is upgraded.
    """
    copied = _copied(copy)
    for file in files:
        name = file.relative_to(folder).as_posix()
        target, content = copy / name, file.read_bytes()
        if name.startswith(".") or "/." in name:
            continue
        if not target.exists() or copied.get(name) == _sha256(target.read_bytes()):
            copied[name] = _sha256(content)
            paths.write_atomic(target, content)
    paths.write_atomic(copy / _COPIED, json.dumps(copied, indent=1) + "\n")
    return copy


def _copied(copy: Path) -> dict[str, str]:
    """The checksum that each notebook had when it was copied; empty when nothing is known, so that nothing is replaced."""
    try:
        found = json.loads((copy / _COPIED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _serve(
    process: subprocess.Popen[bytes], health: str, url: str, browser: bool, announce: Callable[[str], None]
) -> int:
    asked = False

    def end(*_: object) -> None:
        nonlocal asked
        asked = True
        process.terminate()

    signal.signal(signal.SIGTERM, end)  # a shell's background job ignores SIGINT; SIGTERM must end the server too
    try:
        wait_until_up(process, health)
        announce(url)
        if browser:
            webbrowser.open(url)
        code = process.wait()
        return 0 if asked else code
    except KeyboardInterrupt:
        end()
        process.wait(10)
        return 0
    except ServerFailed:
        if asked:
            return 0
        raise
    finally:
        if process.poll() is None:
            process.terminate()
