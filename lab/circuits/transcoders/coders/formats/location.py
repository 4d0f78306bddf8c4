"""Where a coder is kept: a file, a folder, or a hub id, "owner/name" or "owner/name/subfolder", which is fetched once."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from lab.circuits.transcoders.errors import CircuitError
from lab.models.hub import offline

CONFIGS = ("*cfg.json", "*config.yaml")
WEIGHTS = ("*.safetensors", "*.npz")
FETCH_BYTES = 16 * 2**30  # a set of a small model has 2 GB; a whole repository of many widths, hundreds


_LAYER = re.compile(r"(?:^|[^a-zA-Z])(?:layers?|blocks|h|tc)[._-]?(\d{1,4})(?!\d)", re.ASCII)


def layer_in(path: Path) -> int | None:
    """The layer that a path names; the last of its four last parts to name one decides.

    >>> [layer_in(Path(name)) for name in ("layer_8/width_16k/params.npz", "gpt_neox.layers.3.mlp", "tc/all")]
    [8, 3, None]
    """
    numbers = _LAYER.findall("/".join(path.parts[-4:]))
    return int(numbers[-1]) if numbers else None


def resolve(place: str | Path, *, layer: int | None = None, format: str = "auto") -> Path:
    """The file or folder on this machine; what is on the hub is fetched, unless HF_HUB_OFFLINE keeps to the cache.

    With `layer`, files whose names give another layer are not fetched. Pickles (.pt) are fetched only for
    format="official". Raises CircuitError for a place that is neither here nor on the hub, or too large to fetch.
    """
    local = Path(place).expanduser()
    if str(place) and local.exists():
        return local
    parts = str(place).split("/")
    if isinstance(place, Path) or len(parts) < 2 or "\\" in str(place) or not all(part.strip(".~") for part in parts):
        raise CircuitError(
            f"{str(place)[:120]!r} is neither a file or folder on this machine nor a hub id 'owner/name'"
        )
    root = _fetch("/".join(parts[:2]), "/".join(parts[2:]), layer, format).joinpath(*parts[2:])
    if not root.exists():
        raise CircuitError(f"{'/'.join(parts[:2])} has no file or folder {'/'.join(parts[2:])!r}")
    return root


def _fetch(name: str, inner: str, layer: int | None, format: str) -> Path:
    """The snapshot of a hub repository, with the configs and weights that lie under `inner`."""
    from huggingface_hub import errors, snapshot_download

    try:
        if offline():
            return Path(snapshot_download(name, local_files_only=True, allow_patterns=list(CONFIGS)))
        weights = ["*.pt"] if format == "official" else list(WEIGHTS)
        try:
            listing = snapshot_download(name, dry_run=True, allow_patterns=[*CONFIGS, *weights])
        except errors.DryRunError:  # it does not say why; the same call in earnest does, or finds what is cached
            return Path(snapshot_download(name, allow_patterns=list(CONFIGS)))
        files = {file.filename: file.file_size or 0 for file in listing if _wanted(Path(file.filename), inner, layer)}
        if sum(files.values()) > FETCH_BYTES:
            raise CircuitError(
                f"{name} has {sum(files.values()) / 2**30:,.0f} GiB of coders, more than {FETCH_BYTES / 2**30:.0f}; name a "
                f"layer, or a subfolder as in '{name}/layer_0'"
            )
        return Path(snapshot_download(name, allow_patterns=[glob.escape(file) for file in files]))
    except errors.HFValidationError as error:
        raise CircuitError(
            f"{name[:80]!r} is neither a file or folder on this machine nor a hub id 'owner/name'"
        ) from error
    except errors.GatedRepoError as error:
        raise CircuitError(
            f"{name} is given only to those who accepted its terms; do so on its page, then `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CircuitError(f"the hub has no {name}, or it is private; check the id, or `hf auth login`") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        why = "HF_HUB_OFFLINE is set" if offline() else f"it cannot be fetched ({type(error).__name__})"
        raise CircuitError(
            f"{name} is not on this machine, and {why}; run `hf download {name}` once where there is a network, or give "
            "the folder of a copy"
        ) from error


def _wanted(file: Path, inner: str, layer: int | None) -> bool:
    """Whether a file of the repository is a config, or weights under `inner` whose name gives no other layer."""
    if file.suffix in (".json", ".yaml"):
        return True
    return file.is_relative_to(inner) and (layer is None or layer_in(file) in (None, layer))
