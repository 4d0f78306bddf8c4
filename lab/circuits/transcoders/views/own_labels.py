"""The reader's own names of units, kept in their folder: one file per model and kind, whole at any time."""

from __future__ import annotations

import threading
from pathlib import Path

from lab import paths
from lab.circuits.transcoders.models.languages import LanguageName
from lab.circuits.transcoders.units.activations import UnitKind
from lab.circuits.transcoders.units.labels import Labels

_lock = threading.Lock()


def labels_path(model: LanguageName = "stdlib-gpt", kind: UnitKind = "transcoder") -> Path:
    """The file, whether or not there is one. Raises FolderError when the reader's folder cannot be written."""
    return paths.user_folder("labels", "transcoders") / f"{model}-{kind}.json"


def own_labels(model: LanguageName = "stdlib-gpt", kind: UnitKind = "transcoder") -> Labels:
    """The reader's labels by layer and unit; empty where there are none yet. Raises FileError for a damaged file.

    >>> len(own_labels("stdlib-gpt", "sae"))
    0
    """
    path = labels_path(model, kind)
    return Labels.read(path) if path.exists() else Labels()


def put_label(model: LanguageName, kind: UnitKind, layer: int, unit: int, text: str) -> Labels:
    """Name a unit, or with an empty text take its name away; the labels as they are then.

    Raises ValueError for a text that is no label, and FileError for a damaged file, which stays as it is.
    """
    with _lock:
        labels = own_labels(model, kind)
        if text.strip():
            labels[layer, unit] = text
        else:
            labels.pop((layer, unit), None)
        labels.save(labels_path(model, kind))
        return labels


def add_labels(model: LanguageName, kind: UnitKind, brought: Labels) -> tuple[int, int]:
    """Keep a file's labels beside the reader's own, whose names they replace: how many are new, how many replace one."""
    with _lock:
        labels = own_labels(model, kind)
        replaced = sum(1 for key in brought if key in labels and labels[key] != brought[key])
        fresh = sum(1 for key in brought if key not in labels)
        labels.update(brought)
        labels.save(labels_path(model, kind))
        return fresh, replaced
