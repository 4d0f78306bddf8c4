"""EleutherAI's sparsify: a folder a coder, named for its module, with ``cfg.json`` and ``sae.safetensors``; all are topk.

A transcoder (`transcode`) there reads an MLP module's input, gain and bias of the LayerNorm included, and writes its
output. An autoencoder subtracts `b_dec` from its input first. (So did its transcoders once; no file says so.)
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from lab.circuits.transcoders.coders.coder import CoderConfig, Transcoder
from lab.circuits.transcoders.coders.formats.settings import read_json
from lab.circuits.transcoders.coders.formats.weights import (
    TensorFile,
    assemble,
    check_shape,
    fold_input_bias,
    length,
    stored,
    write_tensors,
)
from lab.circuits.transcoders.errors import CircuitError

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
NAMES = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}
MODULE = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d{1,4})(\.mlp)?", re.ASCII)


def layer(folder: Path) -> int | None:
    """The block that the config names, where the lab wrote it."""
    return CoderConfig(1, 1, 1, hook_name=read_json(folder / CONFIG).text("hook_name")).layer


def read(folder: Path) -> Transcoder:
    """The coder in a folder. Raises CircuitError and FileError naming what is wrong."""
    settings = read_json(folder / CONFIG)
    settings.only("activation", "topk")
    settings.only("signed", False, None)
    k = settings.whole("k")
    if k is None:
        raise CircuitError(f"{CONFIG}: there is no k in it; sparsify's coders are all topk")
    tensors = TensorFile(folder / WEIGHTS).take(NAMES, {"W_skip": "W_skip"})
    d_sae, d_in = length(WEIGHTS, "b_enc", tensors), length(WEIGHTS, "b_dec", tensors)
    for name in ("W_enc", "W_dec"):
        check_shape(WEIGHTS, NAMES[name], tensors[name], (d_sae, d_in), "its biases")
    tensors["W_enc"] = tensors["W_enc"].T
    # 0, the default, stands for "by the expansion factor".
    expansion = settings.whole("expansion_factor")
    features = settings.whole("num_latents") if settings.values.get("num_latents") else expansion and expansion * d_in
    for said, found, what in ((settings.whole("d_in"), d_in, "d_in ="), (features, d_sae, "features:")):
        if said not in (None, found):
            raise CircuitError(f"{WEIGHTS}: encoder.weight has shape {(d_sae, d_in)}, but {CONFIG} says {what} {said}")
    transcode = settings.flag("transcode", False)
    if not transcode:
        fold_input_bias(tensors, tensors["b_dec"])
    hook, hook_out = _hooks(folder.name, transcode)
    cfg = CoderConfig(
        d_in,
        d_sae,
        d_in,
        "topk",
        k,
        settings.text("hook_name") or hook,
        settings.text("hook_name_out") or hook_out,
        settings.text("model_name"),
        settings.flag("prepend_bos", True),
    )
    return assemble(WEIGHTS, "transcoder" if transcode else "sae", cfg, tensors)


def write(coder: Transcoder, folder: Path) -> None:
    """Fill a folder as sparsify reads it: `SparseCoder.load_from_disk`. Raises CircuitError for what is not topk."""
    cfg = coder.cfg
    if cfg.k is None:
        raise CircuitError(f'sparsify has topk coders only, not {cfg.activation}; write it with format="saelens"')
    if cfg.d_in != cfg.d_out:
        raise CircuitError(
            f"sparsify's coders map a width to itself; this one has d_in = {cfg.d_in}, d_out = {cfg.d_out}"
        )
    tensors = stored(coder)
    if coder.kind == "sae":  # unfolded: sparsify will subtract it again
        tensors["b_enc"] = tensors["b_enc"] + tensors["b_dec"] @ tensors["W_enc"]
    tensors["W_enc"] = tensors["W_enc"].T.contiguous()
    values = {
        "activation": "topk",
        "expansion_factor": max(1, cfg.d_sae // cfg.d_in),
        "normalize_decoder": False,
        "num_latents": cfg.d_sae,
        "k": cfg.k,
        "multi_topk": False,
        "skip_connection": coder.W_skip is not None,
        "transcode": coder.kind == "transcoder",
        "d_in": cfg.d_in,
        # sparsify passes over what it does not know
        "hook_name": cfg.hook_name,
        "hook_name_out": cfg.hook_name_out,
        "model_name": cfg.model_name,
        "prepend_bos": cfg.bos,
    }
    write_tensors({NAMES.get(name, name): tensor for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(values, indent=1), encoding="utf-8")


def _hooks(folder: str, transcode: bool) -> tuple[str, str]:
    """What a folder's name, a module's name in the model, says in TransformerLens' names; "" where it says nothing."""
    named = MODULE.fullmatch(folder)
    if named is None or (transcode and not named[2]):
        return "", ""
    block = f"blocks.{int(named[1])}."
    if transcode:
        return block + "mlp.hook_in", block + "hook_mlp_out"
    out = block + ("hook_mlp_out" if named[2] else "hook_resid_post")
    return out, out
