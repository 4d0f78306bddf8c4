"""Gemma Scope's transcoders, ``params.npz``: five arrays, thresholds among them (JumpReLU); read, not written.

An npz says nothing of where it belongs: the layer comes from the folders it lies in, ``layer_8/width_16k/.../params.npz``.
The release's autoencoders have the same five arrays; only their folders' names tell them from transcoders.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.circuits.transcoders.coders.coder import CoderConfig, Transcoder
from lab.circuits.transcoders.coders.formats.location import layer_in
from lab.circuits.transcoders.coders.formats.weights import CODER_LIMITS, assemble, widths
from lab.circuits.transcoders.errors import CircuitError
from lab.files import FileError
from lab.files.archive import open_archive
from lab.files.bounds import content, shown
from lab.files.npz import REMEDY, member_array, member_header

NAMES = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
MODEL = re.compile(r"gemma-scope-(\d+b)-(pt|it)-(\w+)")


def read(path: Path) -> Transcoder:
    """The transcoder in an npz file. Raises CircuitError and FileError naming what is wrong."""
    release = next((found for part in reversed(path.parts) if (found := MODEL.search(part))), None)
    if release is not None and release[3] != "transcoders":
        raise CircuitError(
            f"{path.name} is of {release[0]}, whose files hold autoencoders; the transcoders are in "
            f"gemma-scope-{release[1]}-{release[2]}-transcoders"
        )
    tensors = _arrays(path)
    layer = layer_in(path)
    block = "" if layer is None else f"blocks.{layer}."
    cfg = CoderConfig(
        *widths(path.name, tensors),
        activation="jumprelu",
        hook_name=block and block + "ln2.hook_normalized",
        hook_name_out=block and block + "hook_mlp_out",
        model_name="" if release is None else f"gemma-2-{release[1]}" + ("-it" if release[2] == "it" else ""),
    )
    return assemble(path.name, "transcoder", cfg, tensors)


def _arrays(path: Path) -> dict[str, Tensor]:
    """The five arrays as float32, each unpacked into the memory that its checked header accounts for."""
    data, title = content(path, None, CODER_LIMITS)
    try:
        archive = open_archive(data, "npz", REMEDY, len(NAMES), CODER_LIMITS)
        found = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for name in NAMES:
            if name not in found:
                raise FileError(f"there is no array {name} in it; there are {', '.join(map(shown, found)) or 'none'}")
        members = {name: member_header(archive, found[name]) for name in NAMES}
        for name, member in members.items():
            if member.dtype.kind != "f":
                raise FileError(f"array {name} has type {shown(member.dtype)}; it must be numbers of floating point")
        tensors = {}
        for name, member in members.items():
            with np.errstate(over="ignore"):
                values = np.ascontiguousarray(member_array(archive, member), dtype=np.float32)
            if not np.isfinite(values).all():
                raise FileError(f"array {name} holds NaN, inf, or what is larger than float32 can say")
            tensors[name] = torch.from_numpy(values)
        return tensors
    except FileError as error:
        raise FileError(f"{title}: {error}") from error
