"""SAELens' folders: ``cfg.json`` and ``sae_weights.safetensors``, as its version 6 writes them and as earlier ones did.

Its transcoders know ReLU and thresholds, with or without a skip connection, but no "topk"; its autoencoders all three.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab.circuits.transcoders.coders.coder import Activation, CoderConfig, Kind, Transcoder
from lab.circuits.transcoders.coders.formats.settings import Settings, read_json
from lab.circuits.transcoders.coders.formats.weights import (
    TensorFile,
    assemble,
    fold_input_bias,
    stored,
    widths,
    write_tensors,
)
from lab.circuits.transcoders.errors import CircuitError
from lab.files.bounds import shown

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
FORMAT = "6.0.0"  # SAELens reads a file without a version as one from before 6
NAMES = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
ARCHITECTURES: dict[str, tuple[Kind, Activation, bool]] = {
    "standard": ("sae", "relu", False),
    "topk": ("sae", "topk", False),
    "jumprelu": ("sae", "jumprelu", False),
    "transcoder": ("transcoder", "relu", False),
    "skip_transcoder": ("transcoder", "relu", True),
    "jumprelu_transcoder": ("transcoder", "jumprelu", False),
    "jumprelu_skip_transcoder": ("transcoder", "jumprelu", True),
}


def layer(folder: Path) -> int | None:
    """The block that the config names."""
    return CoderConfig(1, 1, 1, hook_name=_hooks(read_json(folder / CONFIG))[0]).layer


def read(folder: Path) -> Transcoder:
    """The coder in a folder, what SAELens does around it folded in, or refused where it cannot be.

    `apply_b_dec_to_input` becomes ``b_enc - b_dec W_enc``; `rescale_acts_by_decoder_norm` moves the decoder's norms into
    the encoder. Raises CircuitError and FileError naming what is wrong.
    """
    settings = read_json(folder / CONFIG)
    kind, activation, k = _what(settings)
    for key in ("normalize_activations", "reshape_activations"):
        settings.only(key, "none", None, False)
    settings.only("finetuning_scaling_factor", False, None)
    hook, hook_out = _hooks(settings)
    meta = settings.inner("metadata")
    if "hook_z" in hook and "reshape_activations" not in settings.values:
        raise CircuitError(f"{settings.name}: hook_name is {shown(hook)}; heads side by side are not read")
    for each in (settings, meta):
        each.only("hook_head_index", None)
    tensors = _tensors(folder / WEIGHTS)
    if ("threshold" in tensors) != (activation == "jumprelu"):
        raise CircuitError(
            f'{WEIGHTS}: "threshold" belongs to jumprelu and to no other, but {CONFIG} says {activation}'
        )
    d_in, d_sae, d_out = widths(WEIGHTS, tensors)
    for key, width in {"d_in": d_in, "d_sae": d_sae, "d_out": d_out}.items():
        if settings.whole(key) not in (None, width):
            raise CircuitError(f"{WEIGHTS}: the tensors have {key} = {width}, but {CONFIG} says {settings.whole(key)}")
    prepend = settings if "prepend_bos" in settings.values else meta
    cfg = CoderConfig(
        d_in,
        d_sae,
        d_out,
        activation,
        k,
        hook,
        hook_out if kind == "transcoder" else hook,
        meta.text("model_name") or settings.text("model_name"),
        prepend.flag("prepend_bos", True),
    )
    # SAELens subtracts an autoencoder's b_dec from its input unless told otherwise, a transcoder's never.
    if settings.flag("apply_b_dec_to_input", kind == "sae"):
        if kind == "transcoder":
            raise CircuitError(
                f"{CONFIG}: apply_b_dec_to_input is true, but a transcoder's b_dec belongs to its output; fold the "
                "input's bias into b_enc"
            )
        fold_input_bias(tensors, tensors["b_dec"])
    if settings.flag("rescale_acts_by_decoder_norm", False):
        norm = tensors["W_dec"].norm(dim=1).clamp(min=1e-8)
        tensors.update(W_enc=tensors["W_enc"] * norm, b_enc=tensors["b_enc"] * norm)
        tensors["W_dec"] = tensors["W_dec"] / norm[:, None]
    return assemble(WEIGHTS, kind, cfg, tensors)


def write(coder: Transcoder, folder: Path) -> None:
    """Fill a folder as SAELens reads it: `SAE.load_from_disk`. Raises CircuitError for what SAELens has no name for."""
    shape = (coder.kind, coder.cfg.activation, coder.W_skip is not None)
    names = [name for name, known in ARCHITECTURES.items() if known == shape]
    if not names:
        raise CircuitError('SAELens has no topk transcoder; write it with format="circuit-tracer" or "sparsify"')
    if coder.threshold is not None and (coder.threshold < 0).any():
        raise CircuitError("SAELens lets nothing negative through, but this coder has thresholds below 0")
    cfg, tensors = coder.cfg, stored(coder)
    values: dict[str, Any] = {
        "architecture": names[0],
        "d_in": cfg.d_in,
        "d_sae": cfg.d_sae,
        "dtype": str(coder.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": FORMAT,
            "model_name": cfg.model_name,
            "hook_name": cfg.hook_name,
            "hook_name_out": cfg.hook_name_out,
            "prepend_bos": cfg.bos,
        },
    }
    if coder.kind == "transcoder":
        values["d_out"] = cfg.d_out
    if cfg.k is not None:
        values["k"] = cfg.k
    write_tensors(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(values, indent=1), encoding="utf-8")


def _what(settings: Settings) -> tuple[Kind, Activation, int | None]:
    """Kind, activation, and `k`. Before version 6 the architecture was "standard" for all activations."""
    name = settings.text("architecture") or "standard"
    if name not in ARCHITECTURES:
        raise CircuitError(
            f"{settings.name}: architecture is {shown(name)}; the lab reads {', '.join(ARCHITECTURES)}, each of which "
            "is one formula of SAELens'"
        )
    kind, activation, _ = ARCHITECTURES[name]
    said = settings.text("activation_fn", "activation_fn_str") or "relu"
    k = settings.whole("k")
    if said == "topk":
        activation, k = "topk", k or settings.inner("activation_fn_kwargs").whole("k")
    elif said != "relu":
        raise CircuitError(f"{settings.name}: activation_fn is {shown(said)}; it must be relu or topk")
    if activation == "topk" and k is None:
        raise CircuitError(f"{settings.name}: the activation is topk, but no k says how many features may be active")
    hook, hook_out = _hooks(settings)
    if name == "standard" and hook_out not in ("", hook):  # earlier versions had no name for a transcoder
        kind = "transcoder"
    return kind, activation, k if activation == "topk" else None


def _hooks(settings: Settings) -> tuple[str, str]:
    meta = settings.inner("metadata")
    return (
        meta.text("hook_name") or settings.text("hook_name", "hook_point"),
        meta.text("hook_name_out") or settings.text("hook_name_out", "out_hook_point"),
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    tensors = TensorFile(path).take(
        NAMES, {"W_skip": "W_skip", "threshold": "threshold", "scaling_factor": "scaling_factor"}
    )
    scaling = tensors.pop("scaling_factor", None)
    if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
        raise CircuitError(f"{path.name}: scaling_factor is not 1 throughout; fold it into W_dec first")
    if "threshold" in tensors:  # relu(pre) [pre > threshold] is the same for all thresholds below 0
        tensors["threshold"] = tensors["threshold"].clamp(min=0)
    return tensors
