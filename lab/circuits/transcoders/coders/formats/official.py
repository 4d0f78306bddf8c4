"""The paper's own checkpoints, ``.pt``: read without running any of their code, and never written.

Such a file holds ``{"cfg": an object of a class named ...RunnerConfig, "state_dict": tensors}``. The class is replaced by
an empty one, so of the object only its plain fields arrive; all else that is not tensors is refused. The official
loader wants that very class, which only its own package can pickle: that is why the lab does not write this format.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from lab.circuits.transcoders.coders.coder import CoderConfig, Transcoder
from lab.circuits.transcoders.coders.formats.settings import Settings
from lab.circuits.transcoders.coders.formats.weights import CODER_LIMITS, assemble, check_shape, fold_input_bias, widths
from lab.circuits.transcoders.errors import CircuitError
from lab.files import FileError
from lab.files.bounds import shown

CONFIG_CLASS = re.compile(r"[\w.]+RunnerConfig", re.ASCII)
PICKLE_BYTES = 2**20  # the file's own has a few kilobytes
NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


class InertConfig:
    """Stands in for the file's config class and does nothing: the unpickler fills in its fields."""


def read(path: Path) -> Transcoder:
    """The coder in an official checkpoint, its input bias folded: ``b_enc - b_dec W_enc``, ``b_dec := b_dec_out``.

    Of a file whose config says `is_transcoder = False` it is the autoencoder, whose one bias serves at both ends.
    Raises FileError for what is no such checkpoint or asks for other code, CircuitError for tensors that do not fit.
    """
    cfg, state = _unpickle(path)
    settings = Settings(path.name, vars(cfg))
    transcoder = settings.flag("is_transcoder", False)
    needed = (*NAMES, "b_dec_out") if transcoder else NAMES
    if missing := [name for name in needed if name not in state]:
        raise CircuitError(f"{path.name}: the tensor {missing[0]} is missing; {_has(state)}")
    if strange := sorted(set(state) - set(needed)):
        raise CircuitError(
            f"{path.name}: the tensor {shown(strange[0])} is none that an official coder with is_transcoder = "
            f"{transcoder} has"
        )
    tensors = {name: _float32(path.name, name, state[name]) for name in NAMES}
    bias = tensors.pop("b_dec")
    tensors["b_dec"] = _float32(path.name, "b_dec_out", state["b_dec_out"]) if transcoder else bias
    d_in, d_sae, d_out = widths(path.name, tensors)
    for key, width in {"d_in": d_in, "d_sae": d_sae}.items():
        if settings.whole(key) not in (None, width):
            raise CircuitError(f"{path.name}: its cfg says {key} = {settings.whole(key)}, but W_enc has {width}")
    check_shape(path.name, "b_dec", bias, (d_in,), "W_enc")
    fold_input_bias(tensors, bias)
    hook = settings.text("hook_point")
    return assemble(
        path.name,
        "transcoder" if transcoder else "sae",
        CoderConfig(
            d_in,
            d_sae,
            d_out,
            hook_name=hook,
            hook_name_out=settings.text("out_hook_point") if transcoder else hook,
            model_name=settings.text("model_name"),
        ),
        tensors,
    )


def _unpickle(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """The config, as an empty object with its fields, and the tensors, mapped from the file and not yet read."""
    title = shown(path.name)
    _check_archive(path, title)
    try:
        names = get_unsafe_globals_in_checkpoint(str(path))
        if strange := sorted(name for name in names if not CONFIG_CLASS.fullmatch(name)):
            raise FileError(
                f"{title}: the file asks for {shown(strange[0])}, code that no coder needs; it is refused unread, do not "
                "load it elsewhere either"
            )
        # Mapped: a tensor that claims more than the file holds cannot be had, and none is allocated for a claim.
        with safe_globals([(InertConfig, name) for name in names]):
            found = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except FileError:
        raise
    except Exception as error:  # the unpickler raises whatever a bad pickle provokes
        said = shown(" ".join(str(error).split()), width=120)[1:-1]
        raise FileError(f"{title}: not readable as a checkpoint of torch.save ({said})") from error
    if not isinstance(found, dict) or not isinstance(found.get("cfg"), InertConfig):
        raise FileError(f"{title}: there is no cfg of a class named ...RunnerConfig in it; an official coder has one")
    state = found.get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise FileError(f"{title}: there is no state_dict of tensors in it; an official coder has one")
    return found["cfg"], {str(name): tensor for name, tensor in state.items()}


def _check_archive(path: Path, title: str) -> None:
    """Raise FileError unless the file is a zip archive as torch.save writes it: nothing packed, a short pickle."""
    try:
        size = path.stat().st_size
        if size > CODER_LIMITS.max_bytes:
            raise FileError(
                f"{title}: a coder may have at most {CODER_LIMITS.max_bytes:,} bytes, and this has {size:,}"
            )
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            f"{title}: this is no checkpoint as torch.save writes it since 1.6 (a zip archive); bare pickles are not read"
        ) from error
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > size:
            raise FileError(f"{title}: the member {shown(member.filename)} is compressed, which torch.save never does")
        if member.filename.endswith(".pkl") and member.file_size > PICKLE_BYTES:
            raise FileError(f"{title}: its pickle has {member.file_size:,} bytes, more than a coder's {PICKLE_BYTES:,}")


def _float32(where: str, name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.layout != torch.strided or not tensor.is_contiguous():
        raise CircuitError(f"{where}: {name} must be contiguous numbers of floating point, not {tensor.dtype}")
    values = tensor.detach().to(torch.float32, copy=True)
    if not torch.isfinite(values).all():
        raise CircuitError(f"{where}: {name} holds NaN, inf, or what is larger than float32 can say")
    return values


def _has(state: dict[str, Tensor]) -> str:
    return f"the file has {', '.join(shown(name)[1:-1] for name in list(state)[:8]) or 'none'}"
