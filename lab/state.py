"""A training's state on disk: one safetensors file that is written whole or not at all, and proves that it is intact.

Safetensors holds named tensors and no more. Everything around them (nesting, numbers, words) goes as JSON into the
file's metadata, with a checksum over both: a flipped byte is found, and nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab import paths

_TREE, _CHECKSUM = "tree", "sha256"


class StateError(ValueError):
    """A stored state cannot be read, or belongs to another run; one sentence that says what to do."""


def save_state(path: Path, tree: Any) -> None:
    """Write nested dicts, lists and tuples of tensors, numbers, strings and None; atomic: the old file or the new one.

    Raises TypeError for anything else, OSError when the disk does not take it (the old file is untouched).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_state(Path(folder) / "s.safetensors", {"step": 3, 0: [torch.ones(2), None]})
    ...     load_state(Path(folder) / "s.safetensors")
    {'step': 3, 0: [tensor([1., 1.]), None]}
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    text = json.dumps(_flat(tree, tensors))
    paths.write_atomic(path, save(tensors, {_TREE: text, _CHECKSUM: _checksum(text, tensors)}))


def load_state(path: Path) -> Any:
    """What `save_state` wrote; raises StateError naming the file when it is missing, cut off or changed."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        text = metadata[_TREE]
        if metadata[_CHECKSUM] != _checksum(text, tensors):
            raise ValueError("another checksum than it was written with")
        return _nested(json.loads(text), tensors)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise StateError(
            f"the state {path} cannot be read ({reason}); delete it, or start over with --fresh"
        ) from error


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flat(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, its tensors moved to `tensors` under running numbers; dict keys keep their type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_flat(key, tensors), _flat(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"tuple" if isinstance(value, tuple) else "list": [_flat(item, tensors) for item in value]}
    raise TypeError(
        f"a state holds tensors, numbers, strings, None, dicts, lists and tuples, not {type(value).__name__}"
    )


def _nested(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_nested(key, tensors): _nested(item, tensors) for key, item in content}
    items = [_nested(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
