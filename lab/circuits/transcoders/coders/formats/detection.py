"""Which coders lie at a place, in which format and of which layer: found by files' names, before any weight is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.coders.formats import circuit_tracer, gemma_scope, official, saelens, sparsify
from lab.circuits.transcoders.coders.formats.location import layer_in
from lab.circuits.transcoders.errors import CircuitError
from lab.files.bounds import shown

READERS: dict[str, Callable[[Path], Transcoder]] = {
    "official": official.read,
    "saelens": saelens.read,
    "circuit-tracer": circuit_tracer.read,
    "sparsify": sparsify.read,
    "gemma-scope": gemma_scope.read,
}
DEPTH, ENTRIES = 5, 20_000  # how deep, and through how many files, a folder is searched


@dataclass(frozen=True)
class Found:
    """A coder that has been found and not yet read; `path` is what its format's reader takes."""

    format: str
    path: Path
    layer: int | None


def find(root: Path, format: str = "auto") -> list[Found]:
    """The coders in a file or folder, of one format or of all, by layer. Raises CircuitError when there is none."""
    if format != "auto" and format not in READERS:
        raise CircuitError(f"format must be auto or one of {', '.join(READERS)}, got {format!r}")
    if root.is_file():
        found = [_of_file(root, format)]
    else:
        found = [coder for path in _files(root) if (coder := _recognise(path)) and format in ("auto", coder.format)]
        found.sort(key=lambda coder: (coder.layer is None, coder.layer, coder.path))
    if not found:
        raise CircuitError(
            f"{root} holds no coder{'' if format == 'auto' else f' in the format {format}'}; {_hint(root)}"
        )
    return found


def _of_file(path: Path, format: str) -> Found:
    """A file that was named itself: what it is called decides less."""
    found = _recognise(path)
    if format == "auto" and found is None:
        by_suffix = {".safetensors": "circuit-tracer", ".npz": "gemma-scope", ".pt": "official"}
        format = by_suffix.get(path.suffix, "auto")
    if found is not None and format in ("auto", found.format):
        return found
    if format == "auto":
        raise CircuitError(f"{path.name} is no coder's file: those end in .safetensors, .npz or .pt")
    return _found(format, path.parent if format in ("saelens", "sparsify") else path)


def _recognise(path: Path) -> Found | None:
    if path.name == saelens.WEIGHTS:
        return _found("saelens", path.parent)
    if path.name == sparsify.WEIGHTS:
        return _found("sparsify", path.parent)
    if circuit_tracer.FILE.fullmatch(path.name):
        return _found("circuit-tracer", path)
    if path.suffix == ".npz":
        return _found("gemma-scope", path)
    if path.suffix == ".pt" and not path.stem.endswith("_log_feature_sparsity"):
        return _found("official", path)
    return None


def _found(format: str, path: Path) -> Found:
    said = {"saelens": saelens.layer, "sparsify": sparsify.layer}.get(format, lambda _: None)(path)
    return Found(format, path, layer_in(path) if said is None else said)


def _files(root: Path) -> Iterator[Path]:
    seen = 0
    for folder, inner, names in os.walk(root):
        if len(Path(folder).relative_to(root).parts) >= DEPTH:
            inner.clear()
        seen += len(names) + len(inner)
        if seen > ENTRIES:
            raise CircuitError(f"{root} has more than {ENTRIES:,} files; name the folder of the coder itself")
        yield from (Path(folder, name) for name in names)


def _hint(root: Path) -> str:
    """What to do about a folder in which nothing is found."""
    if (root / circuit_tracer.CONFIG).is_file():
        return f"its {circuit_tracer.CONFIG} names weights elsewhere, which is not followed: fetch them and name their file"
    return (
        f"looked for were {saelens.WEIGHTS}, {sparsify.WEIGHTS}, layer_0.safetensors, params.npz, and .pt; on the hub the "
        'last only with format="official"'
    )


def shown_layers(found: list[Found], root: Path) -> str:
    """The first few coders for a message, by layer and place."""
    few = [f"{coder.layer} ({shown(_place(coder.path, root))[1:-1]})" for coder in found[:5]]
    return ", ".join(few) + (", ..." if len(found) > 5 else "")


def _place(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else path.name
