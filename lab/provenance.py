"""Where a number comes from: the code that made it (a hash), the versions, the machine, the moment."""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import os
import platform
import tokenize
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from lab import catalog

_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "transformers", "tokenizers", "POT")
_ROOT = Path(__file__).resolve().parent
_NOT_METHOD = ("figures.py", "exercises.py")  # ends of names


@runtime_checkable
class Made(Protocol):
    """What says where it was made."""

    @property
    def machine(self) -> dict[str, Any]: ...
    @property
    def versions(self) -> dict[str, str]: ...


class Record(BaseModel):
    """What is kept beside every stored number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slug: str
    key: str
    config: dict[str, Any] = {}
    code: str
    seconds: float
    recorded: str
    machine: dict[str, Any]
    versions: dict[str, str]

    @classmethod
    def now(cls, slug: str, key: str, seconds: float, config: dict[str, Any] | None = None) -> Record:
        """A record of something that has just been measured here."""
        return cls(
            slug=slug,
            key=key,
            config=config or {},
            code=code_hash(slug),
            seconds=round(seconds, 3),
            recorded=now(),
            machine=machine(),
            versions=versions(),
        )

    def made_on(self, rows: Sequence[Made]) -> Record:
        """The same record, with the machines and libraries that the rows were made on instead of this one's."""
        machine = together([row.machine for row in rows])
        versions = together([row.versions for row in rows])
        return self.model_copy(update={"machine": machine, "versions": versions})

    @property
    def stale(self) -> bool:
        """Recorded by older code of the room."""
        return self.code != code_hash(self.slug)


def now() -> str:
    """The moment, in UTC, to the second: what records and cards are stamped with."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.cache
def code_hash(slug: str) -> str:
    """Hash of a room's code and of the lab's data sets and models that it imports; comments and docstrings left out.

    Pictures (`figures.py`, `..._figures.py`) and exercises make no number and do not count.
    """
    room = catalog.get(slug).folder
    pending = sorted(path for path in room.rglob("*.py") if not path.name.endswith(_NOT_METHOD))
    seen: dict[Path, str] = {}
    while pending:
        path = pending.pop()
        if path in seen:
            continue
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        seen[path] = _bare(source, tree)
        pending += [found for found in _lab_imports(tree) if found not in seen and not found.name.endswith(_NOT_METHOD)]
    text = "\n".join(f"{path.relative_to(_ROOT).as_posix()}:{seen[path]}" for path in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def lab_code() -> str:
    """Hash of all of the lab's code, to the letter: machines that work together must have the same."""
    digest = hashlib.sha256()
    for path in sorted(_ROOT.rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _bare(source: str, tree: ast.Module) -> str:
    """The source without comments, docstrings and blank lines: text, so that every Python hashes it alike."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines[first.lineno - 1 : first.end_lineno] = [""] * (
                    (first.end_lineno or first.lineno) - first.lineno + 1
                )
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _lab_imports(tree: ast.Module) -> list[Path]:
    """Files of `lab/<folder>/...` that a module imports: data sets, models, other rooms; the house (`lab/*.py`) is left out."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    found = []
    for name in names:
        parts = name.split(".")
        if parts[0] == "lab" and len(parts) > 2:
            stem = _ROOT.joinpath(*parts[1:])
            found += [path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.exists()]
    return found


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, the lab and the libraries that make numbers."""
    found = {"python": platform.python_version()}
    for name in ("paperlab", *_PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def machine() -> dict[str, Any]:
    """Processor, cores, memory (GiB), system: what a reader needs to compare seconds."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def together(machines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several machines have in common, and for the rest each one's word: how a joint record names them.

    >>> together([{"processor": "A", "cores": 2}, {"processor": "B", "cores": 2}])
    {'processor': 'A + B', 'cores': 2}
    """
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in machines for name in one):
        values = list(dict.fromkeys(one.get(name) for one in machines))
        found[name] = values[0] if len(values) == 1 else " + ".join(map(str, values))
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return None


def describe(record: Record) -> str:
    """One line for a caption: when, where, how long.

    >>> record = Record(slug="sp2ot", key="toy", code="", seconds=3.14, recorded="2026-01-31T10:00:00+00:00",
    ...                 machine={"processor": "a CPU", "cores": 2}, versions={})
    >>> describe(record)
    'recorded 2026-01-31 in 3.1 s on a CPU, 2 cores'
    """
    cores = f", {record.machine['cores']} cores" if "cores" in record.machine else ""
    processor = record.machine.get("processor", "an unnamed machine")
    return f"recorded {record.recorded[:10]} in {record.seconds:.1f} s on {processor}{cores}"
