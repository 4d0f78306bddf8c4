"""circuit-tracer's sets: ``layer_{i}.safetensors``, encoder rows first, and one ``config.yaml`` that names their places.

Files of 2025 have the decoder the other way round than later ones; its shape tells which, unless it is square.
The places' names are kept as the config has them. Its ``mlp.hook_in`` is what the MLP itself receives, the LayerNorm's
gain and bias included; ``ln2.hook_normalized`` is the same only in a model whose LayerNorms have none.
Of a "topk" coder's k largest pre-activations circuit-tracer lets negative ones through; here, as in sparsify, they are 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lab.circuits.transcoders.coders.coder import Activation, CoderConfig, Transcoder
from lab.circuits.transcoders.coders.formats.settings import Settings, read_yaml
from lab.circuits.transcoders.coders.formats.weights import (
    TensorFile,
    assemble,
    check_shape,
    length,
    stored,
    write_tensors,
)
from lab.circuits.transcoders.errors import CircuitError

CONFIG = "config.yaml"
FILE = re.compile(r"layer_(\d{1,4})\.safetensors", re.ASCII)
THRESHOLD = "activation_function.threshold"
NAMES = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}


def read(path: Path) -> Transcoder:
    """The coder in one file of a set; the `config.yaml` beside it, if there is one, says what it reads and writes.

    A coder that writes to where it reads is an autoencoder. Raises CircuitError and FileError naming what is wrong.
    """
    beside = path.with_name(CONFIG)
    settings = read_yaml(beside) if beside.is_file() else Settings(CONFIG, {})
    settings.only("model_kind", "transcoder_set")
    file = TensorFile(path)
    k = file.whole("k") if "k" in file else settings.whole("k")
    file.entries.pop("k", None)
    tensors = file.take(NAMES, {"W_skip": "W_skip", "threshold": THRESHOLD})
    activation = _activation(settings, tensors, k)
    d_sae, d_out = length(path.name, "b_enc", tensors), length(path.name, "b_dec", tensors)
    check_shape(path.name, "W_enc", tensors["W_enc"], (d_sae, d_out), "its biases")
    if tensors["W_dec"].shape == (d_sae, d_sae):
        raise CircuitError(
            f"{path.name}: W_dec has shape {(d_sae, d_sae)}, as many features as the width, so nothing says which of its "
            "axes are the features; convert the file with the circuit-tracer that wrote it"
        )
    if tensors["W_dec"].shape == (d_out, d_sae):
        tensors["W_dec"] = tensors["W_dec"].T
    check_shape(path.name, "W_dec", tensors["W_dec"], (d_sae, d_out), "its biases")
    tensors["W_enc"] = tensors["W_enc"].T
    number = FILE.fullmatch(path.name)
    hooks = [settings.text(f"feature_{side}_hook") for side in ("input", "output")]
    hook, hook_out = (f"blocks.{int(number[1])}.{name}" if number and name else "" for name in hooks)
    cfg = CoderConfig(
        d_out,
        d_sae,
        d_out,
        activation,
        k if activation == "topk" else None,
        hook,
        hook_out,
        settings.text("model_name"),
        settings.flag("prepend_bos", True),
    )
    return assemble(path.name, "sae" if hook and hook == hook_out else "transcoder", cfg, tensors)


def write(coders: Mapping[int, Transcoder], folder: Path) -> None:
    """Fill a folder with a set. circuit-tracer itself wants every layer from 0 on, of one number of features.

    Raises CircuitError for coders that cannot stand under one config, or that the format has no place for.
    """
    import yaml

    heads = {number: _config(number, coder) for number, coder in coders.items()}
    first, config = next(iter(heads.items()))
    for number, other in heads.items():
        if differ := [key for key in {**config, **other} if config.get(key) != other.get(key)]:
            raise CircuitError(
                f"the coders of layers {first} and {number} differ in {differ[0]}: {config.get(differ[0])!r} and "
                f"{other.get(differ[0])!r}; a set of circuit-tracer's has one for all"
            )
    for number, coder in coders.items():
        tensors = stored(coder)
        tensors["W_enc"] = tensors["W_enc"].T.contiguous()
        if "threshold" in tensors:
            tensors[THRESHOLD] = tensors.pop("threshold")
        write_tensors(tensors, folder / f"layer_{number}.safetensors")
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _config(number: int, coder: Transcoder) -> dict[str, str | int | bool]:
    cfg, block = coder.cfg, f"blocks.{number}."
    if cfg.d_in != cfg.d_out or cfg.d_sae == cfg.d_in:
        raise CircuitError(
            f"layer {number}: circuit-tracer's coders map a width to itself by another number of features; this one has "
            f"d_in = {cfg.d_in}, d_sae = {cfg.d_sae}, d_out = {cfg.d_out}"
        )
    for key in ("hook_name", "hook_name_out"):
        if not getattr(cfg, key).startswith(block):
            raise CircuitError(
                f"layer {number}: the coder's {key} is {getattr(cfg, key)!r}; it must begin with {block!r}"
            )
    config: dict[str, str | int | bool] = {
        "model_kind": "transcoder_set",
        "model_name": cfg.model_name,
        "scan": cfg.model_name,
        "feature_input_hook": cfg.hook_name.removeprefix(block),
        "feature_output_hook": cfg.hook_name_out.removeprefix(block),
        "prepend_bos": cfg.bos,
    }
    return config if cfg.k is None else config | {"activation": "topk", "k": cfg.k}


def _activation(settings: Settings, tensors: Mapping[str, Tensor], k: int | None) -> Activation:
    if "threshold" in tensors:
        return "jumprelu"
    settings.only("activation", None, "relu", "topk")
    said = settings.text("activation")
    if said == "topk" and k is None:
        raise CircuitError(f"{settings.name}: activation is topk, but no k says how many features may be active")
    return "topk" if said == "topk" or (not said and k is not None) else "relu"
