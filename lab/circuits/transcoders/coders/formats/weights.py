"""From a file's tensors to a coder: read one at a time, header first, and put together only if all shapes agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lab.circuits.transcoders.coders.coder import CODERS, CoderConfig, Kind, Transcoder
from lab.circuits.transcoders.errors import CircuitError
from lab.files import FileError, Limits, read_tensor, read_tensor_header
from lab.files.bounds import content, shown

CODER_LIMITS = Limits(max_bytes=3 * 2**30)  # GPT-2's have 151 MB a layer, those of models of billions about 2 GB
WHOLE = ("I8", "U8", "I16", "I32", "I64")


class TensorFile:
    """A safetensors file's tensors as float32, one at a time: its header is checked against its bytes first.

    Memory: the file, and each tensor asked for. Raises FileError, naming the file and the tensor.

    >>> from safetensors.torch import save_file
    >>> from tempfile import mkdtemp
    >>> save_file({"b_dec": torch.ones(2, dtype=torch.float16)}, path := Path(mkdtemp(), "x.safetensors"))
    >>> TensorFile(path)["b_dec"]
    tensor([1., 1.])
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._data, self._title = content(path, None, CODER_LIMITS)
        entries = read_tensor_header(self._data, name=path.name, limits=CODER_LIMITS)
        self.entries = {entry.name: entry for entry in entries}

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(read_tensor(self._data, name, name=self.name, limits=CODER_LIMITS))

    def whole(self, name: str) -> int:
        """The one whole number that a tensor holds."""
        entry = self.entries[name]
        if entry.dtype not in WHOLE or entry.shape not in ((), (1,)):
            raise FileError(f"{self._title}: tensor {shown(name)} must be one whole number")
        return int.from_bytes(self._data[entry.start : entry.stop], "little", signed=entry.dtype != "U8")

    def take(self, names: Mapping[str, str], optional: Mapping[str, str]) -> dict[str, Tensor]:
        """The tensors under the lab's names; `names` and `optional` map these to the file's. No others may be there."""
        if strange := sorted(set(self.entries) - set(names.values()) - set(optional.values())):
            raise FileError(
                f"{self._title}: tensor {shown(strange[0])} is none that a coder of this format has; those are "
                f"{', '.join([*names.values(), *optional.values()])}"
            )
        here = {ours: theirs for ours, theirs in optional.items() if theirs in self}
        return {ours: self[theirs] for ours, theirs in {**names, **here}.items()}


def check_shape(where: str, name: str, found: Tensor, wanted: tuple[int, ...], why: str) -> None:
    """Raise CircuitError, naming the tensor, unless it has the wanted shape; `why` says where the numbers come from."""
    shape = tuple(found.shape)
    if shape != wanted:
        turned = "; it is transposed" if shape == wanted[::-1] else ""
        raise CircuitError(f"{where}: {name} has shape {shape}, but by {why} it must be {wanted}{turned}")


def length(where: str, name: str, tensors: Mapping[str, Tensor]) -> int:
    """How long a bias is; CircuitError if it has more than one axis."""
    if tensors[name].ndim != 1:
        raise CircuitError(f"{where}: {name} has shape {tuple(tensors[name].shape)}; a bias has one axis")
    return len(tensors[name])


def widths(where: str, tensors: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """``d_in, d_sae, d_out`` by the biases and W_enc [d_in, d_sae]; CircuitError if these do not agree."""
    d_sae, d_out = length(where, "b_enc", tensors), length(where, "b_dec", tensors)
    shape = tuple(tensors["W_enc"].shape)
    if len(shape) != 2 or shape[1] != d_sae:
        turned = "; it is transposed" if len(shape) == 2 and shape[0] == d_sae else ""
        raise CircuitError(f"{where}: W_enc has shape {shape}, but by b_enc it must be (d_in, {d_sae}){turned}")
    return shape[0], d_sae, d_out


def fold_input_bias(tensors: dict[str, Tensor], bias: Tensor) -> None:
    """``(x - bias) W_enc + b_enc = x W_enc + (b_enc - bias W_enc)``: the bias of the input goes into the encoder's."""
    tensors["b_enc"] = tensors["b_enc"] - bias @ tensors["W_enc"]


def assemble(where: str, kind: Kind, cfg: CoderConfig, tensors: Mapping[str, Tensor]) -> Transcoder:
    """The coder with these weights, which it takes over without a copy where they are contiguous.

    Raises CircuitError naming the tensor whose shape does not follow from `cfg`.
    """
    D, F, out = cfg.d_in, cfg.d_sae, cfg.d_out
    shapes = {"W_enc": (D, F), "b_enc": (F,), "W_dec": (F, out), "b_dec": (out,), "W_skip": (out, D), "threshold": (F,)}
    for name, tensor in tensors.items():
        check_shape(where, name, tensor, shapes[name], f"d_in = {D}, d_sae = {F}, d_out = {out}")
    with torch.device("meta"):  # no random start: neither its time nor its memory
        coder = CODERS[kind](cfg, skip="W_skip" in tensors)
    coder.load_state_dict({name: tensor.contiguous() for name, tensor in tensors.items()}, assign=True)
    return coder.eval()


def stored(coder: Transcoder) -> dict[str, Tensor]:
    """A coder's weights as safetensors wants them: contiguous, on the processor, sharing no memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in coder.state_dict().items()}


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file that others may read; safetensors itself lets only the owner."""
    from safetensors.torch import save_file

    save_file(dict(tensors), path)
    path.chmod(0o644)
