"""Coders as files: other people's are read, the lab's are written as other people read them; nothing is unpickled.

| format | read | written | coders |
|---|---|---|---|
| "official" | the paper's .pt, by an inert recipe | no: its loader wants a pickled class of its own | ReLU |
| "saelens" | folder, version 6 and before | folder | all but topk transcoders |
| "circuit-tracer" | layer_{i}.safetensors, config.yaml | a set | d_in = d_out |
| "sparsify" | folder | folder | topk |
| "gemma-scope" | params.npz | no | JumpReLU |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.coders.formats import circuit_tracer, saelens, sparsify
from lab.circuits.transcoders.coders.formats.detection import READERS, Found, find, shown_layers
from lab.circuits.transcoders.coders.formats.location import resolve
from lab.circuits.transcoders.errors import CircuitError
from lab.paths import replace_folder

__all__ = ["load_coder", "load_coders", "save_coder", "save_coders"]

# A folder a coder: how it is filled, and what it is called in a set.
FOLDERS: dict[str, tuple[Callable[[Transcoder, Path], None], str]] = {
    "saelens": (saelens.write, "layer_{}"),
    "sparsify": (sparsify.write, "layers.{}.mlp"),
}
WRITTEN = (*FOLDERS, "circuit-tracer")
_OURS = (saelens.CONFIG, saelens.WEIGHTS, "sparsity.safetensors", sparsify.WEIGHTS, circuit_tracer.CONFIG)


def load_coder(place: str | Path, *, layer: int | None = None, format: str = "auto") -> Transcoder:
    """One coder from a file, a folder, or a hub id, in float32.

    Parameters
    ----------
    place : str or Path
        A file, a folder, or "owner/name", "owner/name/subfolder" on the hub.
    layer : int, optional
        Which, where there are several.
    format : str
        "auto", or one of "official", "saelens", "circuit-tracer", "sparsify", "gemma-scope"; from the hub, the official .pt
        are fetched only when asked for by name.

    Returns
    -------
    Transcoder
        Or a SparseAutoencoder, as the file says.

    Raises
    ------
    CircuitError
        When there is none, or none of that layer, or more than one.
    FileError
        For files that are damaged, too large, hold NaN, or contradict themselves: the sentence names file and tensor.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from lab.circuits.transcoders.coders.coder import CoderConfig
    >>> save_coder(Transcoder(CoderConfig(4, 8, 4)), folder := Path(mkdtemp(), "coder"))
    >>> load_coder(folder).cfg.d_sae
    8
    """
    root = resolve(place, layer=layer, format=format)
    found = find(root, format)
    fitting = found if layer is None else [coder for coder in found if coder.layer == layer]
    if not fitting and len(found) == 1 and found[0].layer is None:
        fitting = found  # nothing says that it is of another layer
    if len(fitting) != 1:
        of = "" if layer is None else f" of layer {layer}"
        what = "name its file or folder" if layer is not None else "name one with layer="
        raise CircuitError(
            f"{place} holds {len(fitting) or 'no'} coder{'s' * (len(fitting) > 1)}{of}; {what}: by layer there are "
            f"{shown_layers(fitting or found, root)}"
        )
    return _read(fitting[0], layer)


def load_coders(place: str | Path, *, format: str = "auto") -> dict[int, Transcoder]:
    """All coders at a place by layer: a set of circuit-tracer's, or a folder with a folder or a file for each layer.

    Parameters
    ----------
    place, format
        See `load_coder`.

    Returns
    -------
    dict of layer to Transcoder
        In ascending order.

    Raises
    ------
    CircuitError, FileError
        As `load_coder` does, and when a coder's layer is unknown or two have the same.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from lab.circuits.transcoders.coders.coder import CoderConfig
    >>> cfg = CoderConfig(4, 8, 4, hook_name="blocks.2.ln2.hook_normalized", hook_name_out="blocks.2.hook_mlp_out")
    >>> save_coders({2: Transcoder(cfg)}, folder := Path(mkdtemp(), "set"))
    >>> list(load_coders(folder))
    [2]
    """
    root = resolve(place, format=format)
    by_layer: dict[int, Found] = {}
    for coder in find(root, format):
        if coder.layer is None:
            raise CircuitError(f"nothing says which layer {coder.path} is of; load it alone, with load_coder")
        if coder.layer in by_layer:
            both = shown_layers([by_layer[coder.layer], coder], root)
            raise CircuitError(
                f"{place} holds two coders of layer {coder.layer}: {both}; name a folder with one of each"
            )
        by_layer[coder.layer] = coder
    return {layer: _read(by_layer[layer], layer) for layer in sorted(by_layer)}


def save_coder(coder: Transcoder, path: str | Path, *, format: str = "saelens") -> None:
    """Write a coder to a folder, in its place at once or not at all; an earlier coder at that place is replaced.

    Parameters
    ----------
    coder : Transcoder
        What to write.
    path : str or Path
        The folder.
    format : str
        "saelens", "circuit-tracer" or "sparsify".

    Raises
    ------
    CircuitError
        For a coder that the format has no form for, and for a folder that holds anything else.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from lab.circuits.transcoders.coders.coder import CoderConfig
    >>> save_coder(Transcoder(CoderConfig(4, 8, 4)), folder := Path(mkdtemp(), "coder"))
    >>> sorted(path.name for path in folder.iterdir())
    ['cfg.json', 'sae_weights.safetensors']
    """
    if format == "circuit-tracer":
        if coder.cfg.layer is None:
            raise CircuitError(f"the coder's hook_name {coder.cfg.hook_name!r} names no layer, as {format} needs it")
        save_coders({coder.cfg.layer: coder}, path, format=format)
        return
    write, _ = FOLDERS[_written(format)]
    _replace(Path(path), lambda fresh: write(coder, fresh))


def save_coders(coders: Mapping[int, Transcoder], path: str | Path, *, format: str = "circuit-tracer") -> None:
    """Write a set of coders, by layer, to a folder: `save_coder` for several.

    Parameters
    ----------
    coders : mapping of layer to Transcoder
        What to write.
    path : str or Path
        The folder.
    format : str
        "circuit-tracer", "saelens" or "sparsify".

    Raises
    ------
    CircuitError
        For no coder, one of another layer than its key, and as `save_coder` does.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from lab.circuits.transcoders.coders.coder import CoderConfig
    >>> save_coders({0: Transcoder(CoderConfig(4, 8, 4))}, Path(mkdtemp(), "set"), format="saelens")
    """
    _written(format)
    if not coders:
        raise CircuitError("coders is empty; there is nothing to write")
    for layer, coder in coders.items():
        if coder.cfg.layer not in (None, layer):
            raise CircuitError(f"coders[{layer}] is of {coder.cfg.hook_name!r}, another layer")

    def fill(fresh: Path) -> None:
        if format == "circuit-tracer":
            circuit_tracer.write(coders, fresh)
            return
        write, name = FOLDERS[format]
        for layer, coder in coders.items():
            (fresh / name.format(layer)).mkdir()
            write(coder, fresh / name.format(layer))

    _replace(Path(path), fill)


def _read(found: Found, layer: int | None) -> Transcoder:
    coder = READERS[found.format](found.path)
    if layer is not None and coder.cfg.layer not in (None, layer):
        raise CircuitError(f"{found.path} reads {coder.cfg.hook_name!r}, which is not of layer {layer}")
    return coder


def _written(format: str) -> str:
    if format not in WRITTEN:
        raise CircuitError(f"format must be one of {', '.join(WRITTEN)} to be written, got {format!r}")
    return format


def _replace(folder: Path, fill: Callable[[Path], None]) -> None:
    """`replace_folder`, but never of a folder that holds anything else than coders."""
    if folder.exists() and not folder.is_dir():
        raise CircuitError(f"{folder} is a file; a coder is written to a folder")
    for path in folder.rglob("*") if folder.is_dir() else ():
        coder = path.is_dir() and (path / saelens.CONFIG).is_file()
        if not (coder or path.name in _OURS or circuit_tracer.FILE.fullmatch(path.name)):
            raise CircuitError(f"{folder} holds {path.relative_to(folder)}, which is no coder's; name a new folder")
    replace_folder(folder, fill)
