"""Several coders in one folder, as the lab ships them: float16 tensors by name, and what each is for beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lab.circuits.transcoders.coders.coder import CODERS, CoderConfig, Transcoder
from lab.circuits.transcoders.errors import CircuitError

TENSORS, CONFIGS = "model.safetensors", "coders.json"


def save_bundle(coders: Mapping[str, Transcoder], folder: Path) -> None:
    """Write coders by name into an existing folder; names have no dot."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    about = {}
    for name, coder in coders.items():
        if "." in name:
            raise CircuitError(f"a coder's name has no dot in it, got {name!r}")
        tensors |= {f"{name}.{key}": value.detach().half().contiguous() for key, value in coder.state_dict().items()}
        about[name] = {"kind": coder.kind, "skip": coder.W_skip is not None, "cfg": coder.cfg.to_dict()}
    save_file(tensors, folder / TENSORS)
    (folder / CONFIGS).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def load_bundle(folder: Path) -> dict[str, Transcoder]:
    """The coders of a folder by name, in float32, not to be trained on."""
    from safetensors.torch import load_file

    tensors = load_file(folder / TENSORS)
    found: dict[str, Transcoder] = {}
    for name, entry in json.loads((folder / CONFIGS).read_text(encoding="utf-8")).items():
        own = {key.split(".", 1)[1]: value for key, value in tensors.items() if key.split(".", 1)[0] == name}
        with torch.random.fork_rng(devices=[]):
            coder = CODERS[entry["kind"]](CoderConfig.from_dict(entry["cfg"]), skip=entry["skip"])
        coder.load_state_dict({key: value.float() for key, value in own.items()})
        found[name] = coder.requires_grad_(False).eval()
    return found
