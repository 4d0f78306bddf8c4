"""The masks that the official code writes: a pickle by torch, `mask_{low_frac}_{layer}.pkl`, True where a weight is binarized."""

from __future__ import annotations

import io
import zipfile

import torch
from jaxtyping import Bool
from torch import Tensor

from lab.files.bounds import FileError, Limits, Source, content, malformed

MASK_LIMITS = Limits(max_bytes=256 * 2**20)  # a byte a weight: LLaMA-7B's largest layer has 45 million
REMEDY = "save the mask again with torch.save(mask.bool(), path)"


def load_mask(source: Source, *, name: str | None = None, limits: Limits = MASK_LIMITS) -> Bool[Tensor, "o i"]:
    """The mask in one of the official code's files; only tensors are unpickled, anything else is refused.

    Parameters
    ----------
    source : path, bytes or open binary stream
        A file by ``torch.save``.
    name : str, optional
        What errors call the file; its own name by default.
    limits : Limits
        Largest size that is read.

    Returns
    -------
    bool (o, i)
        True where a weight is binarized.

    Raises
    ------
    FileError
        A ValueError: for a file over the limit, one that torch did not write or that is packed, one that asks for anything
        but tensors, and for what is not one matrix of truth values.
    TypeError
        When ``source`` is none of the three.

    Examples
    --------
    >>> torch.save(torch.tensor([[True, False]]), file := io.BytesIO())
    >>> load_mask(file)
    tensor([[ True, False]])
    """
    data, title = content(source, name, limits)
    try:
        with malformed("mask", REMEDY, zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError):
            members = zipfile.ZipFile(io.BytesIO(data)).infolist()
        stored = sum(member.file_size for member in members)
        if stored > len(data) or any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise FileError(f"its parts are packed, or claim more bytes than it has; {REMEDY}")
        with malformed("mask", REMEDY, Exception):  # torch raises many kinds for a damaged or hostile pickle
            mask = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        return _checked(mask, len(data))
    except FileError as error:
        raise FileError(f"{title}: {error}") from error


def _checked(mask: object, size: int) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.layout != torch.strided or mask.ndim != 2:
        found = f"{mask.dtype} of the shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise FileError(f"a mask is one matrix of torch.bool, and this is {found}; {REMEDY}")
    if not 0 < mask.numel() <= size:
        raise FileError(f"the mask claims {mask.numel():,} entries, and the file has {size:,} bytes; {REMEDY}")
    return mask.clone(memory_format=torch.contiguous_format)
