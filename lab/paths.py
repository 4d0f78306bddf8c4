"""Where things lie: what the lab ships (read-only) and what the reader's own runs leave behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


class FolderError(OSError):
    """A folder the lab must write to cannot be written; one sentence a reader can act on."""


def shared(name: str) -> Path:
    """The shipped folder `name` (apps, notebooks, data): beside the package in a clone, inside it in a wheel.

    Raises FileNotFoundError naming both places when neither exists.

    >>> shared("data").name
    'data'
    """
    inside, clone = _PACKAGE / "_share" / name, _PACKAGE.parent / name
    if inside.exists():
        return inside
    if clone.exists() and (_PACKAGE.parent / "pyproject.toml").exists():
        return clone
    raise FileNotFoundError(f"the folder {name!r} is neither at {inside} nor at {clone}; reinstall paperlab")


def installed() -> bool:
    """The lab was installed from a wheel: what it ships lies inside the package and is not the reader's to edit.

    >>> installed() == (shared("data").parent.name == "_share")
    True
    """
    return (_PACKAGE / "_share").exists()


def cards_folder() -> Path:
    """The folder of the papers' cards, `lab/papers`."""
    return _PACKAGE / "papers"


def user_folder(*parts: str) -> Path:
    """The reader's own folder for results and measurements, created on first use; LAB_HOME moves it.

    Raises FolderError, in one sentence, when it cannot be created or written.
    """
    from platformdirs import user_data_path

    root = Path(os.environ["LAB_HOME"]) if os.environ.get("LAB_HOME") else user_data_path("paperlab", appauthor=False)
    return writable(root.joinpath(*parts))


def writable(folder: Path) -> Path:
    """`folder`, created if need be and proven writable; FolderError otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or str(error)
        raise FolderError(
            f"cannot write to {folder} ({reason}); make it writable or set LAB_HOME to a folder that is"
        ) from error


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees the old or the new content, never half of it."""
    raw = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def replace_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a new folder beside `target`, then put it in target's place.

    A crash while it is written leaves the old one. There is a moment between two renames when neither is in place; a kill
    just then leaves the old one beside it, as `.<name>.old.*/old`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        fill(fresh)
        os.chmod(fresh, 0o755)
        retired = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
        if target.exists():
            os.replace(target, retired / "old")
        os.replace(fresh, target)
        shutil.rmtree(retired, ignore_errors=True)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
