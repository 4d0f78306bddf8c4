"""What the lab trains and ships (`data/checkpoints/<name>/`): found, verified before it is used, repaired, made again.

`manifest.json` holds the checksum of every file of every asset. What is missing or changed is never loaded: the error
names the file and the command that repairs it. A reader's own trainings go to the reader's folder, under the same
rules, and stand in for a shipped asset that is damaged.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lab import code_hash, paths, provenance
from lab.experiment import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from lab.train import Recipe, Training

MAX_BYTES = 8 * 2**20  # of one asset
CARD, MANIFEST, WEIGHTS = "card.json", "manifest.json", "model.safetensors"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
Origin = Literal["shipped", "yours"]


class AssetError(ValueError):
    """An asset is unknown, missing or damaged; one sentence with the command that helps."""


class Entry(BaseModel):
    """One line of the register `lab/assets.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    recipe: str


@dataclass(frozen=True)
class Maker:
    """Makes an asset in one go, where there is no loss for the training loop to go down.

    make    make(folder, progress) writes the files and returns what the card says of them: metrics, and steps, batch,
            curve, evaluations or samples if there are any
    """

    name: str
    make: Callable[[Path, Progress], Mapping[str, Any]]
    config: Mapping[str, Any]
    data: str
    licence: str
    seed: int = 0


class AssetCard(BaseModel):
    """What is known of a trained asset: data, settings, cost, what it reached, and how the loss fell.

    curve: (step, mean loss since the point before); evaluations: (step, numbers); metrics: of the files as shipped. What
    was made in one go has no steps. code: hash of the code that its recipe depends on (`lab.code_hash`), empty for a recipe
    that is not in the register; opened: checksums of the assets and corpora it was trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    title: str
    data: str
    licence: str
    config: dict[str, Any]
    seed: int
    steps: int = 0
    batch: int = 0
    minutes: float
    recorded: str
    machine: dict[str, Any]
    versions: dict[str, str]
    metrics: dict[str, float]
    samples: tuple[str, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    evaluations: tuple[tuple[int, dict[str, float]], ...] = ()
    command: str
    code: str = ""
    opened: dict[str, str] = {}

    @property
    def stale(self) -> str:
        """Why a training today may give another asset, in a few words; empty when nothing that made it has changed."""
        if self.code != code_of(self.name):
            return "trained by older code"
        other = [name for name, checksum in self.opened.items() if checksum != provenance.checksum_of(name)]
        return f"trained on another {' and '.join(other)}" if other else ""


@functools.cache
def register() -> dict[str, Entry]:
    """All assets by name, from `lab/assets.toml`; no recipe is imported.

    >>> register()["stdlib-gpt"].recipe
    'lab.models.stdlib_gpt:RECIPE'
    """
    with (Path(__file__).with_name("assets.toml")).open("rb") as file:
        return {named(name): Entry(**entry) for name, entry in tomllib.load(file).items()}


def named(name: str) -> str:
    """`name` if it can be an asset's: small letters, digits, single hyphens. AssetError otherwise.

    >>> named("../secrets")
    Traceback (most recent call last):
    lab.assets.AssetError: an asset's name has small letters, digits and hyphens only, not '../secrets'
    """
    if not _NAME.fullmatch(name):
        raise AssetError(f"an asset's name has small letters, digits and hyphens only, not {name[:60]!r}")
    return name


def recipe(name: str) -> Recipe | Maker:
    """The recipe of an asset, or of your own: `package.module:NAME` names a `Recipe` that Python can import from here, or a
    `Maker`."""
    from lab.train import Recipe

    place = name if ":" in name else _entry(name).recipe
    module, _, attribute = place.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise AssetError(f"no recipe at {place[:80]!r}; write it as package.module:NAME")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise AssetError(f"no recipe at {place[:80]!r} ({said}); write it as package.module:NAME") from error
    if not isinstance(found, Recipe | Maker):
        raise AssetError(f"{place[:80]!r} is a {type(found).__name__}, not a lab.train.Recipe")
    named(found.name)
    return found


def code_of(name: str) -> str:
    """Hash of the code that a registered recipe depends on; "" for a recipe that is not in the register, or not the lab's."""
    module, _, attribute = register()[name].recipe.partition(":") if name in register() else ("", "", "")
    return code_hash.code_hash(module, attribute) if module.startswith("lab.") else ""


def folder(name: str) -> Path:
    """The verified folder of an asset: the shipped one, else the reader's own.

    Raises AssetError for an unknown name, and for an asset that is missing or damaged in both places.

    >>> sorted(path.name for path in folder("stdlib-gpt").iterdir())[:2]
    ['card.json', 'config.json']
    """
    _entry(name)
    complaints = []
    for _, root in _roots():
        found = damage(name, root)
        if not found:
            provenance.note_opened(f"asset {name}", provenance.asset_checksum(_manifest(root)[name]))
            return root / name
        complaints.append(found)
    raise AssetError(f"{complaints[0]}; `lab assets --repair` restores it or makes it again")


def card(name: str) -> AssetCard:
    """The card of a verified asset; AssetError when it is one of another version of the lab."""
    path = folder(name) / CARD
    try:
        return AssetCard.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise AssetError(f"{path} is no card that this lab reads; `lab train {name} --fresh` makes one") from error


def tensors(name: str) -> dict[str, Tensor]:
    """The tensors of a verified asset's `model.safetensors`."""
    from safetensors.torch import load_file

    return load_file(folder(name) / WEIGHTS)


def damage(name: str, root: Path | None = None) -> str:
    """What is wrong with an asset's files by the manifest, in a few words that name the file; empty when all is well."""
    root = shipped() if root is None else root
    try:
        checksums = _manifest(root).get(named(name))
    except AssetError as error:
        return str(error)
    if checksums is None:
        return f"the asset {name} is not in {root}"
    for file, checksum in checksums.items():
        path = root / name / file
        try:
            if _checksum(path, path.stat().st_mtime_ns, path.stat().st_size) != checksum:
                return f"{path} has another checksum than the manifest says"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
    extra = strangers(root / name, checksums)
    return f"{extra[0]} is not in the manifest" if extra else ""


def strangers(folder: Path, checksums: Mapping[str, str]) -> list[Path]:
    """What lies in an asset's folder beside its files; names that begin with a dot are the system's and do not count."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.name not in checksums and not path.name.startswith("."))


def write(
    recipe: Recipe, training: Training, root: Path, *, title: str, command: str, opened: Mapping[str, str] | None = None
) -> AssetCard:
    """Put a finished training among the assets of `root`: its files, its card, its line in the manifest; atomic.

    `opened` names the assets and corpora that the training read (`lab.provenance.opened_files`).
    Raises AssetError when the recipe writes nothing, more than an asset may have, or what a card does not know.
    """
    check_writable(recipe)

    def fill(fresh: Path) -> dict[str, Any]:
        assert recipe.write is not None
        more = recipe.write(training.model, fresh)
        return {
            "steps": recipe.steps,
            "batch": recipe.batch,
            "minutes": round(training.seconds / 60, 2),
            "metrics": training.evaluations[-1][1] if training.evaluations else {},
            "curve": [(step, round(loss, 5)) for step, loss in training.curve],
            "evaluations": training.evaluations,
            "opened": dict(opened or {}),
            **more,
        }

    return _put(recipe, fill, root, title=title, command=command)


def make(maker: Maker, root: Path, *, title: str, command: str, progress: Progress) -> AssetCard:
    """Let a maker write its files and put them among the assets of `root`, as `write` does; nothing is left half done."""
    check_writable(maker)

    def fill(fresh: Path) -> dict[str, Any]:
        began = time.monotonic()
        with provenance.opened_files() as opened:
            more = maker.make(fresh, progress)
        return {"minutes": round((time.monotonic() - began) / 60, 2), "opened": opened, **more}

    return _put(maker, fill, root, title=title, command=command)


def _put(
    made_by: Recipe | Maker, fill_files: Callable[[Path], dict[str, Any]], root: Path, *, title: str, command: str
) -> AssetCard:
    made: list[AssetCard] = []

    def fill(fresh: Path) -> None:
        facts = {
            "name": made_by.name,
            "title": title,
            "data": made_by.data,
            "licence": made_by.licence,
            "config": dict(made_by.config),
            "seed": made_by.seed,
            "recorded": provenance.now(),
            "machine": provenance.machine(),
            "versions": provenance.versions(),
            "command": command,
            "code": code_of(made_by.name),
        }
        try:
            made.append(AssetCard.model_validate(facts | fill_files(fresh)))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise AssetError(f"the card of {made_by.name} cannot say {place}: {first['msg']}") from error
        (fresh / CARD).write_text(_a_line_a_field(made[0]), encoding="utf-8")
        for path in fresh.iterdir():
            if not path.is_file():
                raise AssetError(
                    f"the recipe {made_by.name} writes {path.name}, which is no file; an asset has no folders"
                )
            path.chmod(0o644)
        size = sum(path.stat().st_size for path in fresh.iterdir())
        if root == shipped() and size > MAX_BYTES:
            raise AssetError(f"{made_by.name} has {size / 2**20:.1f} MB; what is shipped has at most {MAX_BYTES >> 20}")

    target = paths.writable(root) / named(made_by.name)
    paths.replace_folder(target, fill)
    checksums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(target.iterdir())}
    _write_manifest(root, _manifest(root) | {made_by.name: checksums})
    return made[0]


def check_writable(recipe: Recipe | Maker) -> None:
    """Raise AssetError for a recipe whose result could not be kept: better before its training than after."""
    if not isinstance(recipe, Maker) and recipe.write is None:
        raise AssetError(f"the recipe {recipe.name} does not say how its result is written (write=...)")
    try:
        json.dumps(dict(recipe.config), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssetError(f"the config of {recipe.name} cannot stand on a card ({error}); use JSON values") from error


def _a_line_a_field(card: AssetCard) -> str:
    fields = card.model_dump(mode="json").items()
    lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields)
    return "{\n" + ",\n".join(lines) + "\n}\n"


def restore(name: str) -> bool:
    """Bring back the manifest and an asset's shipped files from the clone's last commit; True when it is whole again.

    Each file is replaced atomically and only by what has the manifest's checksum: it can be interrupted and repeated.
    False without a clone, and when its last commit does not have the asset.
    """
    root = shipped()
    content = _committed(MANIFEST)
    if content is None:
        return False
    if not (root / MANIFEST).is_file() or (root / MANIFEST).read_bytes() != content:
        paths.write_atomic(root / MANIFEST, content)
    wanted = _manifest(root).get(name)
    if not wanted:
        return False
    folder = root / name
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    for file, checksum in wanted.items():
        path = folder / file
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum:
            continue
        content = _committed(f"{name}/{file}")
        if content is None or hashlib.sha256(content).hexdigest() != checksum:
            return False
        if path.is_dir():
            shutil.rmtree(path)
        paths.write_atomic(path, content)
    for path in strangers(folder, wanted):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return not damage(name)


def shipped() -> Path:
    """The folder of the shipped assets."""
    return paths.shared("data") / "checkpoints"


def own() -> Path:
    """The folder of the reader's own assets."""
    return paths.user_folder("checkpoints")


def _roots() -> Iterator[tuple[Origin, Path]]:
    yield "shipped", shipped()
    yield "yours", own()


def _entry(name: str) -> Entry:
    if named(name) not in register():
        raise AssetError(f"there is no asset {name!r}; there are {', '.join(sorted(register()))}")
    return register()[name]


def _manifest(root: Path) -> dict[str, dict[str, str]]:
    path = root / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {named(name): {_plain(file): str(sha) for file, sha in files.items()} for name, files in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise AssetError(f"{path} cannot be read ({error})") from error


def _plain(file: str) -> str:
    if Path(file).name != file or file in ("", ".", ".."):
        raise ValueError(f"{file!r} is no file name")
    return file


def _write_manifest(root: Path, manifest: Mapping[str, Mapping[str, str]]) -> None:
    paths.write_atomic(root / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


@functools.lru_cache(maxsize=256)
def _checksum(path: Path, changed: int, size: int) -> str:
    """The sha256 of a file, computed once for each time it changed."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _committed(relative: str) -> bytes | None:
    """A shipped file as the clone's last commit has it; None in an installed lab, or without git."""
    try:
        done = subprocess.run(["git", "show", f"HEAD:./{relative}"], cwd=shipped(), capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
