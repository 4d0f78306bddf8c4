"""Where things lie: what the lab ships (read-only), what other packages bring, what the reader's own runs leave behind."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

PAPERS_GROUP = "paperlab.papers"  # the entry points by which a package's paper joins: slug = "the.package"
RESERVED = frozenset({"ledger"})  # addresses of pages that are no paper's
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


def clone() -> Path:
    """The folder of the clone, where the lab is written; FolderError in an installed lab, which has none.

    >>> (clone() / "lab" / "paths.py").exists()
    True
    """
    if installed():
        raise FolderError("this lab is installed, and only a clone of it can be written; clone the lab's repository")
    return shared("data").parent


def cards_folder() -> Path:
    """The folder of the papers' cards, `lab/papers`."""
    return _PACKAGE / "papers"


def record_file(slug: str) -> Path:
    """The shipped ledger record of a paper: in `data/ledger`, or in the folder of the package that brings the paper."""
    folder = external_folder(slug)
    return folder / "ledger.json" if folder else shared("data") / "ledger" / f"{slug}.json"


def results_folder(slug: str) -> Path:
    """The shipped results of a paper: in `data/results`, or in the folder of the package that brings the paper."""
    folder = external_folder(slug)
    return folder / "results" if folder else shared("data") / "results" / slug


def external_papers() -> dict[str, str]:
    """The papers that other installed packages bring, by entry point: slug -> package. None of their code is run."""
    return {slug: package for slug, (package, _) in _external()[0].items()}


def external_folder(slug: str) -> Path | None:
    """The folder of the package that brings this paper; None for the lab's own papers and for unknown ones."""
    known = _external()[0].get(slug)
    return known[1] if known else None


def external_problems() -> tuple[str, ...]:
    """What is wrong with the entry points of other packages, one sentence each."""
    return _external()[1]


@functools.cache
def _external() -> tuple[dict[str, tuple[str, Path]], tuple[str, ...]]:
    papers: dict[str, tuple[str, Path]] = {}
    problems = []
    for entry in sorted(
        importlib.metadata.entry_points(group=PAPERS_GROUP), key=lambda entry: (entry.name, entry.value)
    ):
        said = f"the paper {entry.name!r} of the package {entry.value!r}"
        folder = _package_folder(entry.value)
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.name):
            problems.append(f"{said} has no slug for a name: small letters, digits and single hyphens")
        elif folder is None:
            problems.append(f"{said} cannot be shown: there is no such package")
        elif entry.name in RESERVED or (cards_folder() / f"{entry.name}.toml").exists():
            problems.append(f"{said} cannot be shown: the lab has something of that name already")
        elif papers.setdefault(entry.name, (entry.value, folder)) != (entry.value, folder):
            problems.append(f"{said} cannot be shown: {papers[entry.name][0]!r} brings a paper of that name too")
    return papers, tuple(problems)


def _package_folder(package: str) -> Path | None:
    """The folder of an installed package, found without importing it or its parents; None where there is none."""
    top, *rest = package.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    name = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(name, list(spec.submodule_search_locations))
    locations = list(spec.submodule_search_locations or ()) if spec else []
    return Path(locations[0]) if locations else None


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
