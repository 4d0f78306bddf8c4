"""Results on disk, without pickle: shipped ones (`data/results`), and the reader's own beside them.

A stored result is a folder: `arrays.safetensors`, one parquet file a frame, `result.json` (everything else, with
references), `record.json` (lab.provenance.Record).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lab import paths
from lab.experiment import Config, Experiment, Progress, no_progress
from lab.provenance import Record, opened_files

if TYPE_CHECKING:
    import pandas as pd

MAX_SHIPPED_BYTES = 2 * 2**20


@dataclass(frozen=True)
class Stored:
    """A result with its record; origin is "shipped" or "yours"."""

    result: Any
    record: Record
    origin: Literal["shipped", "yours"]


def save(folder: Path, result: Any, record: Record) -> None:
    """Write a Result (a dataclass) atomically into `folder`, replacing what was there.

    Values may be numbers, strings, None, numpy arrays, data frames, and lists, tuples or dicts (string keys) of these.
    Raises TypeError naming the field otherwise.
    """
    arrays: dict[str, np.ndarray] = {}
    frames: dict[str, pd.DataFrame] = {}
    tree = {field.name: _encode(getattr(result, field.name), field.name, arrays, frames) for field in fields(result)}

    def fill(fresh: Path) -> None:
        from safetensors.numpy import save as to_safetensors

        if arrays:
            (fresh / "arrays.safetensors").write_bytes(to_safetensors(arrays))
        for name, frame in frames.items():
            frame.to_parquet(fresh / f"{name}.parquet")
        (fresh / "result.json").write_text(json.dumps(tree, allow_nan=False), encoding="utf-8")
        (fresh / "record.json").write_text(record.model_dump_json(indent=1), encoding="utf-8")

    paths.replace_folder(folder, fill)


def load(folder: Path, kind: type) -> tuple[Any, Record]:
    """Read back what `save` wrote, as a `kind`; raises ValueError naming the folder when it is damaged or of another shape."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        record = Record.model_validate_json((folder / "record.json").read_text(encoding="utf-8"))
        stored = folder / "arrays.safetensors"
        arrays = load_file(stored) if stored.exists() else {}
        tree = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return kind(**{name: _decode(value, arrays, folder) for name, value in tree.items()}), record
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ValueError(f"the stored result {folder} cannot be read ({error}); delete that folder") from error


def _encode(value: Any, name: str, arrays: dict[str, np.ndarray], frames: dict[str, pd.DataFrame]) -> Any:
    if isinstance(value, np.ndarray):
        return _encode_array(value, name, arrays)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, dict):
        return {"$dict": {str(key): _encode(item, f"{name}.{key}", arrays, frames) for key, item in value.items()}}
    if isinstance(value, tuple | list):
        items = [_encode(item, f"{name}.{place}", arrays, frames) for place, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if type(value).__name__ == "DataFrame":
        frames[name] = value
        return {"$frame": name}
    raise TypeError(
        f"{name}: a Result cannot hold {type(value).__name__}; give numbers, strings, arrays, frames or dicts"
    )


def _encode_array(value: np.ndarray, name: str, arrays: dict[str, np.ndarray]) -> Any:
    if value.dtype.kind in "biuf":
        arrays[name] = np.ascontiguousarray(value)  # safetensors writes a non-contiguous array as garbage, silently
        return {"$array": name}
    if value.dtype.kind == "c":
        arrays[f"{name}.re"], arrays[f"{name}.im"] = np.ascontiguousarray(value.real), np.ascontiguousarray(value.imag)
        return {"$complex": name}
    if value.dtype.kind == "U":
        return {"$strings": value.tolist()}
    raise TypeError(f"{name}: arrays of dtype {value.dtype} cannot be stored")


def _decode(value: Any, arrays: dict[str, np.ndarray], folder: Path) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays, folder) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "$array":
        return arrays[content]
    if tag == "$complex":
        return arrays[f"{content}.re"] + 1j * arrays[f"{content}.im"]
    if tag == "$strings":
        return np.array(content)
    if tag == "$float":
        return float(content)
    if tag == "$tuple":
        return tuple(_decode(item, arrays, folder) for item in content)
    if tag == "$frame":
        import pandas as pd

        return pd.read_parquet(folder / f"{Path(content).name}.parquet")
    return {key: _decode(item, arrays, folder) for key, item in content.items()}


def shipped_folder(experiment: Experiment, config: Config) -> Path:
    """Where the lab ships this result (whether or not it does)."""
    return paths.results_folder(experiment.slug) / f"{experiment.key}-{config.fingerprint()}"


def _own_folder(experiment: Experiment, config: Config) -> Path:
    return paths.user_folder("results", experiment.slug) / f"{experiment.key}-{config.fingerprint()}"


def find(experiment: Experiment, config: Config) -> Stored | None:
    """The stored result of a config: the reader's own, if it is not older than the code, else the shipped one, else None."""
    candidates: list[tuple[Literal["shipped", "yours"], Callable[[Experiment, Config], Path]]] = [
        ("yours", _own_folder),
        ("shipped", shipped_folder),
    ]
    fallback = None
    for origin, place in candidates:
        try:
            folder = place(experiment, config)
            if not (folder / "record.json").exists():
                continue
            stored = Stored(*load(folder, experiment.result), origin)
        except (OSError, ValueError):
            continue  # a damaged or unreachable store is as good as none: the reader can run it again
        if not stored.record.stale:
            return stored
        fallback = stored
    return fallback


def run_and_store(
    experiment: Experiment, config: Config, *, progress: Progress = no_progress, ship: bool = False
) -> Stored:
    """Run an experiment without inputs and keep its result: for the reader, or (ship) for `data/results`."""
    import time

    start = time.perf_counter()
    with opened_files() as opened:
        result = experiment(config, progress=progress)
    seconds = time.perf_counter() - start
    record = Record.now(experiment, seconds, config=config.model_dump(mode="json"), opened=opened)
    folder = shipped_folder(experiment, config) if ship else _own_folder(experiment, config)
    save(folder, result, record)
    return Stored(result, record, "shipped" if ship else "yours")
