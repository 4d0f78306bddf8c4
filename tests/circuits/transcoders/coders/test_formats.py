"""Coders as files: each format means what its own library computes, survives a round trip, and no bad file gets through."""

from __future__ import annotations

import io
import json
import struct
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from torch import Tensor

from lab.circuits.transcoders.coders.coder import CODERS, CoderConfig, Kind, SparseAutoencoder, Transcoder
from lab.circuits.transcoders.coders.formats import load_coder, load_coders, save_coder, save_coders
from lab.circuits.transcoders.coders.formats import location as hub
from lab.circuits.transcoders.errors import CircuitError
from lab.files import FileError

D, F = 6, 20
TRANSCODER, OUT = "blocks.3.ln2.hook_normalized", "blocks.3.hook_mlp_out"
FORMATS = ("saelens", "circuit-tracer", "sparsify")
VARIANTS: list[tuple[Kind, str, bool]] = [
    (kind, activation, skip)
    for kind in CODERS
    for activation in ("relu", "topk", "jumprelu")
    for skip in (False, True)
    if kind == "transcoder" or not skip
]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.4 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = noise(50, D, seed=99)


def coder(kind: Kind = "transcoder", activation: Any = "relu", skip: bool = False, layer: int = 3) -> Transcoder:
    read, out = (name.replace("3", str(layer)) for name in (TRANSCODER if kind == "transcoder" else OUT, OUT))
    cfg = CoderConfig(D, F, D, activation, 4 if activation == "topk" else None, read, out, "gpt2", False)
    made = CODERS[kind](cfg, **({"skip": True} if skip else {})).requires_grad_(False)
    for seed, (name, weight) in enumerate(made.named_parameters()):
        weight.copy_(noise(*weight.shape, seed=seed + layer))
        if name == "threshold":
            weight.abs_()
    return made


def tensors(d: int = D, f: int = F, out: int = D) -> dict[str, Tensor]:
    """Random weights under the lab's names, the decoder's rows of unequal length."""
    return {
        "W_enc": noise(d, f),
        "b_enc": noise(f, seed=1),
        "W_dec": noise(f, out, seed=2),
        "b_dec": noise(out, seed=3),
    }


def formula(weights: dict[str, Tensor], activate: Callable[[Tensor], Tensor] = torch.relu, bias: Any = 0.0) -> Tensor:
    """``activate((x - bias) W_enc + b_enc) W_dec + b_dec`` in float64, by the letter."""
    W_enc, b_enc, W_dec, b_dec = (weights[name].double() for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    return activate((X.double() - bias) @ W_enc + b_enc) @ W_dec + b_dec


def topk(pre: Tensor) -> Tensor:
    least = pre.topk(4, dim=-1).values[:, -1:]
    return torch.where(pre >= least, pre.relu(), torch.zeros_like(pre))


def close(found: Transcoder, wanted: Tensor) -> bool:
    return bool((found(X) - wanted).abs().max() < 1e-6)


def saelens(folder: Path, weights: dict[str, Tensor] | None = None, **values: Any) -> Path:
    """A folder as SAELens 6 writes a transcoder, but for `values`; None takes a value away."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = {
        "architecture": "transcoder",
        "d_in": D,
        "d_sae": F,
        "d_out": D,
        "dtype": "float32",
        "device": "cuda",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.18.0", "hook_name": TRANSCODER, "hook_name_out": OUT},
    } | values
    save_file(weights or tensors(), folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({key: value for key, value in cfg.items() if value is not None}))
    return folder


def traced(folder: Path, weights: dict[str, Tensor] | None = None, layer: int = 3, **values: Any) -> Path:
    """A set as circuit-tracer writes it, of one file."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = dict(weights or tensors())
    raw["W_enc"] = raw["W_enc"].T.contiguous()
    save_file(raw, folder / f"layer_{layer}.safetensors")
    config = {
        "model_name": "google/gemma-2-2b",
        "model_kind": "transcoder_set",
        "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "hook_mlp_out",
    } | values
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def sparsified(folder: Path, weights: dict[str, Tensor] | None = None, **values: Any) -> Path:
    """A folder as sparsify writes a transcoder."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = dict(weights or tensors())
    raw["encoder.weight"], raw["encoder.bias"] = raw.pop("W_enc").T.contiguous(), raw.pop("b_enc")
    save_file(raw, folder / "sae.safetensors")
    cfg = {
        "activation": "topk",
        "expansion_factor": 32,
        "num_latents": F,
        "k": 4,
        "transcode": True,
        "d_in": D,
    } | values
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return folder


@pytest.fixture
def classes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], type]]:
    """Classes of modules that exist only while the file is written, as the official package does not exist here."""

    def make(module: str, name: str) -> type:
        for part in {module.partition(".")[0], module}:
            monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        made = type(name, (), {"__module__": module})
        setattr(sys.modules[module], name, made)
        return made

    yield make


@pytest.fixture
def official(classes: Callable[[str, str], type], tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint as the official trainer does."""
    config = classes("sae_training.config", "LanguageModelSAERunnerConfig")

    def write(weights: dict[str, Any], layer: int = 8, **values: Any) -> Path:
        cfg = config()
        vars(cfg).update(
            {
                "d_in": D,
                "d_sae": F,
                "d_out": D,
                "is_transcoder": True,
                "use_ghost_grads": (False,),
                "hook_point": f"blocks.{layer}.ln2.hook_normalized",
                "out_hook_point": f"blocks.{layer}.hook_mlp_out",
                "model_name": "gpt2-small",
                "device": torch.device("cuda"),
                "dtype": torch.float32,
            }
            | values
        )
        path = tmp_path / f"final_sparse_autoencoder_gpt2-small_blocks.{layer}.ln2.hook_normalized_{F}.pt"
        torch.save({"cfg": cfg, "state_dict": weights}, path)
        return path

    return write


# What the formats mean, by their own formulas


@pytest.mark.parametrize(("kind", "activation", "skip"), VARIANTS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_round_trip_changes_nothing(format: str, kind: Kind, activation: str, skip: bool, tmp_path: Path) -> None:
    made = coder(kind, activation, skip)
    lacks = {"saelens": kind == "transcoder" and activation == "topk", "sparsify": activation != "topk"}
    if lacks.get(format):
        with pytest.raises(
            CircuitError, match=r"(SAELens has no topk transcoder|sparsify has topk coders only).*; write it"
        ):
            save_coder(made, tmp_path / "coder", format=format)
        assert not (tmp_path / "coder").exists()
        return
    save_coder(made, tmp_path / "coder", format=format)
    found = load_coder(tmp_path / "coder", format=format)
    assert type(found) is type(made) and found.cfg == made.cfg
    assert close(found, made(X))
    assert (found.encode(X) - made.encode(X)).abs().max() < 1e-6
    assert type(load_coder(tmp_path / "coder", layer=3)) is type(made)  # recognised
    with pytest.raises(CircuitError, match="holds no coder.* of layer 2.*3"):
        load_coder(tmp_path / "coder", layer=2)


@pytest.mark.parametrize("format", FORMATS)
def test_a_set_round_trip(format: str, tmp_path: Path) -> None:
    activation = "relu" if format == "saelens" else "topk"
    made = {layer: coder(activation=activation, layer=layer) for layer in (11, 0, 2)}
    save_coders(made, tmp_path / "set", format=format)
    found = load_coders(tmp_path / "set")
    assert list(found) == [0, 2, 11]
    assert all(found[layer].cfg == made[layer].cfg and close(found[layer], made[layer](X)) for layer in made)
    assert close(load_coder(str(tmp_path / "set"), layer=11), made[11](X))
    with pytest.raises(CircuitError, match=r"holds 3 coders; name one with layer=: by layer there are 0 .*, 2 .*, 11"):
        load_coder(tmp_path / "set")


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        half = coder().to(dtype)
        for format in ("saelens", "circuit-tracer"):
            save_coder(half, tmp_path / "half", format=format)
            assert {tensor.dtype for tensor in load_file(next((tmp_path / "half").glob("*.safetensors"))).values()} == {
                dtype
            }
            found = load_coder(tmp_path / "half")
            assert all(weight.dtype == torch.float32 for weight in found.parameters())
            assert close(found, half.float()(X))
            half.to(dtype)


def test_saelens_folds_what_it_does_around_the_coder(tmp_path: Path) -> None:
    weights = tensors()
    sae = {"architecture": "standard", "apply_b_dec_to_input": True, "d_out": None, "metadata": {"hook_name": OUT}}
    found = load_coder(saelens(tmp_path / "a", weights, **sae))
    assert isinstance(found, SparseAutoencoder) and found.cfg.hook_name_out == OUT
    assert close(found, formula(weights, bias=weights["b_dec"]))
    assert close(
        load_coder(saelens(tmp_path / "b", weights, **sae | {"apply_b_dec_to_input": False})), formula(weights)
    )

    norm = weights["W_dec"].norm(dim=1).double()
    scaled = sae | {"architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": True}
    rescaled = formula(weights, lambda pre: topk(pre * norm) / norm, weights["b_dec"])
    assert close(load_coder(saelens(tmp_path / "c", weights, **scaled)), rescaled)

    jump = weights | {
        "threshold": noise(F, seed=5)
    }  # some below zero, where SAELens still lets nothing negative through
    found = load_coder(saelens(tmp_path / "d", jump, architecture="jumprelu_transcoder"))
    assert close(found, formula(jump, lambda pre: pre.relu() * (pre > jump["threshold"])))


def test_saelens_before_version_6(tmp_path: Path) -> None:
    weights = tensors()
    old = {"architecture": None, "d_out": None, "metadata": None, "apply_b_dec_to_input": None}
    old |= {"hook_point": OUT, "activation_fn_str": "relu", "normalize_activations": False, "prepend_bos": False}
    found = load_coder(saelens(tmp_path / "sae", weights | {"scaling_factor": torch.ones(F)}, **old))
    assert found.kind == "sae" and not found.cfg.bos and found.cfg.layer == 3
    assert close(found, formula(weights, bias=weights["b_dec"]))
    kept = old | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}, "apply_b_dec_to_input": False}
    assert close(load_coder(saelens(tmp_path / "topk", weights, **kept)), formula(weights, topk))
    names = {"hook_point": None, "hook_name": TRANSCODER, "hook_name_out": OUT, "d_out": D}
    found = load_coder(saelens(tmp_path / "transcoder", weights, **old | names))
    assert found.kind == "transcoder" and close(found, formula(weights))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"normalize_activations": "layer_norm"}, 'normalize_activations is .*; it must be "none"'),
        ({"reshape_activations": "hook_z"}, "reshape_activations is 'hook_z'"),
        ({"apply_b_dec_to_input": True}, "apply_b_dec_to_input is true, but a transcoder's b_dec"),
        ({"architecture": "gated"}, "architecture is 'gated'; the lab reads standard"),
        ({"activation_fn": "tanh-relu"}, "activation_fn is 'tanh-relu'; it must be relu or topk"),
        ({"activation_fn": "topk"}, "no k says"),
        ({"architecture": "jumprelu_transcoder"}, '"threshold" belongs to jumprelu'),
        ({"d_sae": F + 1}, "the tensors have d_sae = 20, but cfg.json says 21"),
        ({"d_in": "6"}, "d_in is '6'; it must be a whole number"),
        ({"d_in": True}, "d_in is 'True'; it must be a whole number"),
        ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor is 'True'; it must be false"),
        ({"metadata": {"hook_name": "a\nb"}}, "hook_name is .*printable"),
        ({"metadata": {"hook_name": TRANSCODER, "hook_head_index": 3}}, "hook_head_index is '3'; it must be null"),
        ({"metadata": [1]}, "metadata is .*it must be an object"),
        ({"reshape_activations": None, "metadata": {"hook_name": "blocks.0.attn.hook_z"}}, "heads side by side"),
        ({"architecture": "topk", "k": F + 1}, "k must lie in 1 ... d_sae = 20, got 21"),
    ],
)
def test_saelens_settings_that_are_refused(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match=said):
        load_coder(saelens(tmp_path / "coder", **values))


def test_circuit_tracer_orientations_and_names(tmp_path: Path) -> None:
    weights = tensors()
    found = load_coder(traced(tmp_path / "now", weights))
    assert close(found, formula(weights))
    # The LayerNorm's gain is in mlp.hook_in and not in ln2.hook_normalized, so the one is not called the other.
    assert (found.cfg.hook_name, found.cfg.hook_name_out) == ("blocks.3.mlp.hook_in", OUT)
    assert found.cfg.model_name == "google/gemma-2-2b"
    turned = weights | {"W_dec": weights["W_dec"].T.contiguous()}
    assert close(load_coder(traced(tmp_path / "2025", turned)), formula(weights))
    with pytest.raises(CircuitError, match=r"W_dec has shape \(6, 6\).*nothing says which"):
        load_coder(traced(tmp_path / "square", tensors(f=D)))
    upright = dict(weights, W_enc=weights["W_enc"].T.contiguous())
    with pytest.raises(
        CircuitError, match=r"W_enc has shape \(6, 20\), but by its biases it must be \(20, 6\); it is transposed"
    ):
        load_coder(traced(tmp_path / "upright", upright))


def test_circuit_tracer_activations(tmp_path: Path) -> None:
    weights = tensors()
    assert close(load_coder(traced(tmp_path / "config", weights, activation="topk", k=4)), formula(weights, topk))
    assert close(load_coder(traced(tmp_path / "tensor", weights | {"k": torch.tensor(4)})), formula(weights, topk))
    jump = weights | {"activation_function.threshold": noise(F, seed=5).abs()}
    found = load_coder(traced(tmp_path / "jump", jump, feature_input_hook="hook_mlp_out"))
    assert found.kind == "sae"  # it writes to where it reads
    assert close(found, formula(weights, lambda pre: pre * (pre > jump["activation_function.threshold"])))
    (tmp_path / "jump" / "config.yaml").unlink()
    assert close(load_coder(tmp_path / "jump" / "layer_3.safetensors"), found(X))
    for values, said in (
        ({"activation": "topk"}, "no k says"),
        ({"activation": "gelu"}, "activation is 'gelu'; it must be null or .relu. or .topk."),
        ({"model_kind": "cross_layer_transcoder"}, "model_kind is 'cross_layer_transcoder'"),
    ):
        with pytest.raises(CircuitError, match=said):
            load_coder(traced(tmp_path / "bad", weights, **values))
    with pytest.raises(FileError, match="tensor 'k' must be one whole number"):
        load_coder(traced(tmp_path / "bad", weights | {"k": torch.tensor(4.0)}))


def test_circuit_tracer_sets_that_cannot_be_written(tmp_path: Path) -> None:
    wide, square = CoderConfig(D, F, D + 1, hook_name=TRANSCODER), CoderConfig(D, D, D, hook_name=TRANSCODER)
    for cfg in (wide, square):
        with pytest.raises(CircuitError, match="by another number of features; this one has d_in = 6, d_sae = "):
            save_coder(Transcoder(cfg), tmp_path / "set", format="circuit-tracer")
    with pytest.raises(CircuitError, match="hook_name '' names no layer"):
        save_coder(Transcoder(CoderConfig(D, F, D)), tmp_path / "set", format="circuit-tracer")
    with pytest.raises(CircuitError, match="layers 3 and 4 differ in activation: None and 'topk'"):
        save_coders({3: coder(), 4: coder(activation="topk", layer=4)}, tmp_path / "set")
    with pytest.raises(CircuitError, match=r"coders\[1\] is of 'blocks.3.ln2.hook_normalized'"):
        save_coders({1: coder()}, tmp_path / "set")
    with pytest.raises(CircuitError, match="coders is empty"):
        save_coders({}, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_yaml_cannot_harm(tmp_path: Path) -> None:
    folder, marker = traced(tmp_path / "set"), tmp_path / "ran"
    bomb = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(f"b{i}: &b{i} [*a,*a,*a,*a]\n" for i in range(9))
    for text, said in (
        (f"model_name: !!python/object/apply:os.system ['touch {marker}']", "no YAML text of plain values"),
        (bomb, "no anchors"),
        ("[" * 20_000, "deep nesting"),
        ("- a\n- b\n", "an object of names and values in it, not list"),
        ("a: b: c", "no YAML text"),
    ):
        (folder / "config.yaml").write_text(text)
        with pytest.raises(FileError, match=said):
            load_coder(folder)
    (folder / "config.yaml").write_text("#" * (2**16 + 1))
    with pytest.raises(FileError, match="at most 0.0625 MiB"):
        load_coder(folder)
    assert not marker.exists()


def test_sparsify_by_its_formula(tmp_path: Path) -> None:
    weights = tensors()
    found = load_coder(sparsified(tmp_path / "gpt_neox.layers.3.mlp", weights))
    assert (found.cfg.hook_name, found.cfg.hook_name_out) == ("blocks.3.mlp.hook_in", OUT)
    assert close(found, formula(weights, topk))
    found = load_coder(sparsified(tmp_path / "layers.3", weights, transcode=False))
    assert found.kind == "sae" and found.cfg.hook_name == "blocks.3.hook_resid_post"
    assert close(found, formula(weights, topk, weights["b_dec"]))
    skip = weights | {"W_skip": noise(D, D, seed=7)}
    found = load_coder(sparsified(tmp_path / "h.3.attn", skip, skip_connection=True))
    assert found.cfg.hook_name == "" and close(found, formula(weights, topk) + X.double() @ skip["W_skip"].T.double())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"activation": "groupmax"}, "activation is 'groupmax'"),
        ({"signed": True}, "signed is 'True'"),
        ({"k": None}, "there is no k"),
        ({"k": 0}, "k is '0'; it must be a whole number from 1"),
        ({"d_in": 7}, r"encoder.weight has shape \(20, 6\), but cfg.json says d_in = 7"),
        ({"num_latents": 21}, "says features: 21"),
        ({"num_latents": 0}, "says features: 192"),
    ],
)
def test_sparsify_settings_that_are_refused(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match=said):
        load_coder(sparsified(tmp_path / "coder", **values))


def test_sparsify_decoder_the_wrong_way_round(tmp_path: Path) -> None:
    turned = tensors() | {"W_dec": noise(D, F)}
    with pytest.raises(
        CircuitError, match=r"W_dec has shape \(6, 20\), but by its biases it must be \(20, 6\); it is transposed"
    ):
        load_coder(sparsified(tmp_path / "coder", turned))


def test_gemma_scope(tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in (tensors() | {"threshold": noise(F, seed=5).abs()}).items()}
    folder = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_8" / "width_16k" / "average_l0_20"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **arrays)
    found = load_coder(tmp_path, layer=8)
    assert found.cfg.hook_name == "blocks.8.ln2.hook_normalized" and found.cfg.model_name == "gemma-2-2b"
    threshold = torch.from_numpy(arrays["threshold"])
    assert close(found, formula(tensors(), lambda pre: pre * (pre > threshold)))
    other = folder.parent / "average_l0_90"
    other.mkdir()
    np.savez(other / "params.npz", **{name: array.astype(np.float16) for name, array in arrays.items()})
    with pytest.raises(CircuitError, match="holds 2 coders of layer 8; name its file or folder"):
        load_coder(tmp_path, layer=8)
    assert load_coder(other).cfg.activation == "jumprelu"
    saes = tmp_path / "google" / "gemma-scope-2b-pt-res"
    saes.mkdir(parents=True)
    np.savez(saes / "params.npz", **arrays)
    with pytest.raises(CircuitError, match="hold autoencoders; the transcoders are in gemma-scope-2b-pt-transcoders"):
        load_coder(saes)
    with pytest.raises(
        CircuitError, match="format must be one of saelens, sparsify, circuit-tracer to be written, got 'gemma-s"
    ):
        save_coder(found, tmp_path / "out", format="gemma-scope")


class Marker:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": None}, "there is no array threshold in it; there are"),
        (
            {"W_enc": noise(F, D).numpy()},
            r"W_enc has shape \(20, 6\), but by b_enc it must be \(d_in, 20\); it is transposed",
        ),
        ({"b_enc": np.arange(F)}, "array b_enc has type .*; it must be numbers of floating point"),
        ({"b_dec": np.full(D, np.nan)}, "array b_dec holds NaN"),
        ({"W_dec": np.full((F, D), 1e300)}, "array W_dec holds NaN, inf, or what is larger"),
        ({"b_dec": np.array([object()])}, "array 'b_dec' holds Python objects, a pickle"),
        ({"more": np.zeros(3)}, "at most 5 members, and this one has 6"),
    ],
)
def test_gemma_scope_arrays_that_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in (tensors() | {"threshold": noise(F).abs()}).items()} | change
    np.savez(tmp_path / "params.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=said):
        load_coder(tmp_path / "params.npz")


def test_an_npz_cannot_run_code_or_lie_about_its_size(tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in (tensors() | {"threshold": noise(F).abs()}).items()}
    marker, path = tmp_path / "ran", tmp_path / "params.npz"
    np.savez(path, **arrays | {"W_enc": np.array([Marker(marker)], dtype=object)})
    with pytest.raises(FileError, match="a pickle, which is never loaded"):
        load_coder(path)
    assert not marker.exists()
    np.savez(path, **arrays)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (50_000, 50_000)})
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, raw in content.items():
            new.writestr(name, head.getvalue() if name == "W_enc.npy" else raw)
    with pytest.raises(FileError, match="array 'W_enc' declares shape"):
        load_coder(path)


# The official checkpoints


def test_official_transcoder_by_its_formula(official: Callable[..., Path], tmp_path: Path) -> None:
    weights = tensors() | {"b_dec_out": noise(D, seed=4)}
    path = official(weights)
    torch.save(torch.zeros(F), path.with_name(path.stem + "_log_feature_sparsity.pt"))
    wanted = formula(weights | {"b_dec": weights["b_dec_out"]}, bias=weights["b_dec"])
    for found in (load_coder(path), load_coder(tmp_path, layer=8), load_coder(path, format="official")):
        assert type(found) is Transcoder and close(found, wanted)
    assert found.cfg == CoderConfig(
        D,
        F,
        D,
        hook_name="blocks.8.ln2.hook_normalized",
        hook_name_out="blocks.8.hook_mlp_out",
        model_name="gpt2-small",
    )
    official(weights, layer=9)
    assert sorted(load_coders(tmp_path)) == [8, 9]


def test_official_autoencoder_has_one_bias(official: Callable[..., Path]) -> None:
    weights = tensors()
    found = load_coder(official(weights, is_transcoder=False, out_hook_point=None, d_out=None))
    assert isinstance(found, SparseAutoencoder) and close(found, formula(weights, bias=weights["b_dec"]))
    assert type(load_coder(official(weights | {"b_dec_out": noise(D)}))) is Transcoder


@pytest.mark.parametrize(
    ("change", "values", "said"),
    [
        ({}, {}, "the tensor b_dec_out is missing; the file has W_enc, b_enc, W_dec, b_dec"),
        ({"b_dec_out": noise(D), "W_enc": None}, {}, "the tensor W_enc is missing"),
        ({"b_dec_out": noise(D)}, {"is_transcoder": False}, "'b_dec_out' is none that .* is_transcoder = False has"),
        ({"b_dec_out": noise(D), "extra": noise(2)}, {}, "the tensor 'extra' is none"),
        ({"b_dec_out": noise(D + 1)}, {}, r"W_dec has shape \(20, 6\), but by d_in = 6, .*, d_out = 7 it must be"),
        ({"b_dec_out": noise(D), "b_dec": noise(F)}, {}, r"b_dec has shape \(20,\), but by W_enc it must be \(6,\)"),
        (
            {"b_dec_out": noise(D), "W_enc": noise(F, D)},
            {},
            r"W_enc has shape \(20, 6\), but by b_enc it must be \(d_in, 20\); it is transposed",
        ),
        ({"b_dec_out": noise(D), "W_enc": noise(F)}, {}, r"W_enc has shape \(20,\), but by b_enc"),
        ({"b_dec_out": noise(D)}, {"d_sae": 99}, "cfg says d_sae = 99, but W_enc has 20"),
        ({"b_dec_out": noise(D)}, {"is_transcoder": "yes"}, "is_transcoder is 'yes'; it must be true or false"),
        ({"b_dec_out": torch.full((D,), torch.inf)}, {}, "b_dec_out holds NaN, inf"),
        ({"b_dec_out": torch.arange(D)}, {}, "b_dec_out must be contiguous numbers of floating point"),
        ({"b_dec_out": torch.zeros(1).expand(D)}, {}, "b_dec_out must be contiguous"),
        ({"b_dec_out": 3.0}, {}, "no state_dict of tensors"),
    ],
)
def test_official_tensors_that_are_refused(
    change: dict[str, Any], values: dict[str, Any], said: str, official: Callable[..., Path]
) -> None:
    weights = {name: tensor for name, tensor in (tensors() | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=said):
        load_coder(official(weights, **values))


def test_official_hostile_files_run_nothing(
    official: Callable[..., Path], classes: Callable[[str, str], type], tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    weights = tensors() | {"b_dec_out": noise(D)}

    class Command(Marker):
        def __reduce__(self) -> tuple[Any, ...]:
            import os

            return os.system, (f"touch {self.path}",)

    disguised = classes("os_RunnerConfig", "anything")()
    hostile = {
        "posix.system": Command(marker),
        "builtins.eval": [{"deep": (Marker(marker),)}],
        "os_RunnerConfig.anything": disguised,
    }
    for name, value in hostile.items():
        for path in (official(weights, model_name=value), official(weights | {"W_enc": value})):
            with pytest.raises(FileError, match=f"asks for '{name}', code that no coder needs"):
                load_coder(path)
    torch.save(Marker(marker), tmp_path / "bare.pt")
    with pytest.raises(FileError, match="asks for 'builtins.eval'"):
        load_coder(tmp_path / "bare.pt")
    assert not marker.exists()
    with pytest.raises(FileError, match="no cfg of a class named"):
        torch.save({"state_dict": weights}, tmp_path / "bare.pt")
        load_coder(tmp_path / "bare.pt")


def test_official_files_of_other_kinds(official: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save(tensors(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(FileError, match="bare pickles are not read"):
        load_coder(path)
    path.write_bytes(b"")
    with pytest.raises(FileError, match="no checkpoint as torch.save writes it"):
        load_coder(path)
    whole = official(tensors() | {"b_dec_out": noise(D)})
    raw = whole.read_bytes()
    whole.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(FileError, match="no checkpoint as torch.save writes it"):
        load_coder(whole)
    (tmp_path / "coder.pkl.gz").write_bytes(raw)
    with pytest.raises(CircuitError, match=r"coder.pkl.gz is no coder's file: those end in .safetensors, .npz or .pt"):
        load_coder(tmp_path / "coder.pkl.gz")


def rewritten(path: Path, change: Callable[[bytes], bytes], packed: int = zipfile.ZIP_STORED) -> Path:
    """The same checkpoint with another pickle."""
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", packed) as new:
        for name, raw in content.items():
            new.writestr(name, change(raw) if name.endswith("data.pkl") else raw)
    return path


def test_official_files_cannot_claim_more_than_they_hold(official: Callable[..., Path]) -> None:
    weights = tensors() | {"b_dec_out": noise(D)}
    claim, lie = b"K\x06\x85", b"J\x00\x00\x00\x7f\x85"  # a tensor of length 6, and of two billion
    with pytest.raises(FileError, match="not readable as a checkpoint"):
        load_coder(rewritten(official(weights), lambda raw: raw.replace(claim, lie)))
    with pytest.raises(FileError, match="is compressed, which torch.save never does"):
        load_coder(rewritten(official(weights), lambda raw: raw, zipfile.ZIP_DEFLATED))
    with pytest.raises(FileError, match="its pickle has .* bytes, more than a coder's 1,048,576"):
        load_coder(rewritten(official(weights), lambda raw: raw + bytes(2**20)))


# Damaged safetensors, in any format


def header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    described = json.loads(raw[8 : 8 + length])
    change(described)
    new = json.dumps(described).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + raw[8 + length :])


@pytest.mark.parametrize("write", [saelens, traced, sparsified])
def test_damaged_safetensors(write: Callable[..., Path], tmp_path: Path) -> None:
    def refused(
        said: str, weights: dict[str, Tensor] | None = None, damage: Callable[[Path], None] | None = None
    ) -> None:
        path = next(write(tmp_path / "coder", weights).glob("*.safetensors"))
        if damage is not None:
            damage(path)
        with pytest.raises(ValueError, match=said) as caught:
            load_coder(tmp_path / "coder")
        assert path.name in str(caught.value) and "\n" not in str(caught.value)

    def claim(described: dict[str, Any]) -> None:
        size = described["b_dec"]["data_offsets"]
        described["b_dec"].update(shape=[2_500_000_000], data_offsets=[size[0], size[0] + 10**10])

    weights = tensors()
    refused("is it cut off|header is cut off", damage=lambda path: path.write_bytes(path.read_bytes()[:-40]))
    refused("header is cut off", damage=lambda path: path.write_bytes(path.read_bytes()[:60]))
    refused("the tensors end at byte|does not begin where", damage=lambda path: header(path, claim))
    refused("tensor 'b_dec' is of type I64", weights | {"b_dec": torch.arange(D)})
    refused("tensor 'W_dec' holds NaN", weights | {"W_dec": torch.full((F, D), torch.nan)})
    refused("tensor 'b_dec' holds NaN, inf", weights | {"b_dec": torch.full((D,), -torch.inf)})
    refused("no tensor 'b_dec' in it", {name: tensor for name, tensor in weights.items() if name != "b_dec"})
    refused("tensor 'W_gate' is none that a coder of this format has", weights | {"W_gate": noise(D, F)})
    refused(r"have d_out = 7|by its biases it must be \(20, 7\)", weights | {"b_dec": noise(D + 1)})
    refused(
        r"(W_enc|encoder.weight) has shape \(.*\), but by (b_enc|its biases) .*19", weights | {"b_enc": noise(F - 1)}
    )
    refused(r"W_dec has shape \(20,\), but by .* it must be \(20, 6\)", weights | {"W_dec": noise(F)})
    refused(
        r"(W_enc|encoder.weight) has shape .* it must be \(.*\); it is transposed", weights | {"W_enc": noise(F, D)}
    )
    refused(r"W_skip has shape \(6, 5\)", weights | {"W_skip": noise(D, D - 1)})


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    for name in ("layer_0.safetensors", "params.npz", "coder.pt"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(10 * 2**30)  # sparse: takes no room
        with pytest.raises(
            FileError, match=r"at most (3072 MiB|3,221,225,472 bytes), and this (one )?has 10,737,418,240"
        ):
            load_coder(tmp_path / name)
        (tmp_path / name).unlink()


def test_configs_that_are_no_objects(tmp_path: Path) -> None:
    for write in (saelens, sparsified):
        folder = write(tmp_path / write.__name__)
        for text in ("[1]", "{", "[" * 100_000, '"a"', "\x00"):
            (folder / "cfg.json").write_text(text)
            with pytest.raises(FileError, match="cfg.json.*(no JSON text|object of names and values)"):
                load_coder(folder)
        (folder / "cfg.json").unlink()
        with pytest.raises(FileError, match="cfg.json.*cannot be opened"):
            load_coder(folder)


# Where coders are kept


def test_which_coder_is_meant(tmp_path: Path) -> None:
    save_coders({0: coder(layer=0), 1: coder(layer=1)}, tmp_path / "a" / "set")
    save_coder(coder(layer=1), tmp_path / "a" / "one")
    with pytest.raises(CircuitError, match=r"two coders of layer 1: 1 \(one\), 1 \(set/layer_1.safetensors\)"):
        load_coders(tmp_path / "a")
    assert list(load_coders(tmp_path / "a", format="circuit-tracer")) == [0, 1]
    assert load_coder(tmp_path / "a", format="saelens").cfg.layer == 1
    with pytest.raises(CircuitError, match="holds no coder in the format sparsify"):
        load_coder(tmp_path / "a", format="sparsify")
    with pytest.raises(CircuitError, match="format must be auto or one of official, saelens"):
        load_coder(tmp_path / "a", format="pickle")
    unknown = sparsified(tmp_path / "b" / "unknown")
    with pytest.raises(CircuitError, match="nothing says which layer .*unknown is of"):
        load_coders(tmp_path / "b")
    assert load_coder(unknown, layer=5).cfg.layer is None
    (tmp_path / "c").mkdir()
    with pytest.raises(CircuitError, match='holds no coder; looked for were .*format="official"'):
        load_coder(tmp_path / "c")
    (tmp_path / "c" / "config.yaml").write_text("transcoders: ['hf://google/gemma/params.npz']")
    with pytest.raises(CircuitError, match="config.yaml names weights elsewhere, which is not followed"):
        load_coder(tmp_path / "c")


def test_a_checkpoint_named_for_another_layer(official: Callable[..., Path], tmp_path: Path) -> None:
    path = official(tensors() | {"b_dec_out": noise(D)}, layer=8)
    path.rename(path.with_name(path.name.replace("blocks.8", "blocks.9")))
    with pytest.raises(CircuitError, match="blocks.9.* reads 'blocks.8.ln2.hook_normalized', which is not of layer 9"):
        load_coder(tmp_path, layer=9)


def test_a_file_of_any_name_when_it_is_named_itself(tmp_path: Path) -> None:
    folder = traced(tmp_path / "set")
    (folder / "layer_3.safetensors").rename(folder / "mine.safetensors")
    assert close(load_coder(folder / "mine.safetensors"), formula(tensors()))
    weights = saelens(tmp_path / "lens") / "sae_weights.safetensors"
    assert load_coder(weights).cfg.hook_name == TRANSCODER
    assert load_coder(weights, format="saelens").cfg.hook_name == TRANSCODER


def test_loading_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    save_coder(coder(), tmp_path / "coder")
    before = torch.get_rng_state()
    load_coder(tmp_path / "coder")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "letters").mkdir(parents=True)
    (home / "letters" / "cfg.json").write_text("{}")
    (home / "letters" / "dear.txt").write_text("...")
    for write in (lambda: save_coder(coder(), home), lambda: save_coders({3: coder()}, home)):
        with pytest.raises(CircuitError, match="home holds letters/dear.txt, which is no coder's; name a new folder"):
            write()
    with pytest.raises(CircuitError, match="dear.txt is a file; a coder is written to a folder"):
        save_coder(coder(), home / "letters" / "dear.txt")
    assert (home / "letters" / "dear.txt").read_text() == "..."


def test_a_failed_write_leaves_the_old_coder(tmp_path: Path) -> None:
    save_coder(coder(), tmp_path / "coder")
    bad = coder(activation="jumprelu")
    bad.threshold.sub_(9)  # type: ignore[union-attr]
    with pytest.raises(CircuitError, match="this coder has thresholds below 0"):
        save_coder(bad, tmp_path / "coder")
    assert close(load_coder(tmp_path / "coder"), coder()(X))
    save_coder(coder("sae"), tmp_path / "coder")
    assert load_coder(tmp_path / "coder").kind == "sae"
    assert [path.name for path in tmp_path.iterdir()] == ["coder"]


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """A hub that has some files; returns the calls that were made of it."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    calls: list[dict[str, Any]] = []

    def serve(files: dict[str, int], found: Any = tmp_path) -> list[dict[str, Any]]:
        def snapshot_download(name: str, **options: Any) -> Any:
            calls.append({"name": name} | options)
            if isinstance(found, Exception):
                raise found
            if not options.get("dry_run"):
                return str(found)
            from huggingface_hub.utils import filter_repo_objects

            kept = filter_repo_objects(list(files), allow_patterns=options["allow_patterns"])
            return [types.SimpleNamespace(filename=name, file_size=files[name]) for name in kept]

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        return calls

    return serve


def test_from_the_hub_only_what_is_needed_is_fetched(online: Callable[..., Any], tmp_path: Path) -> None:
    save_coders({1: coder(layer=1), 11: coder(layer=11)}, tmp_path / "set")
    files = {"set/config.yaml": 100, "README.md": 9, "run.py": 9, "evil.pt": 9, "set/features/layer_1.json.gz": 2**40}
    files |= {f"set/layer_{layer}.safetensors": 2**30 for layer in range(20)} | {"other/layer_1.safetensors": 2**30}
    calls = online(files)
    assert load_coder("owner/coders/set", layer=1).cfg.layer == 1
    assert calls[-1] == {"name": "owner/coders", "allow_patterns": ["set/config.yaml", "set/layer_1.safetensors"]}
    assert load_coder("owner/coders/set/layer_11.safetensors").cfg.layer == 11
    assert calls[-1]["allow_patterns"] == ["set/config.yaml", "set/layer_11.safetensors"]
    with pytest.raises(
        CircuitError, match="owner/coders has 20 GiB of coders, more than 16; name a layer, or a subfolder"
    ):
        load_coders("owner/coders/set")
    with pytest.raises(CircuitError, match="owner/coders has no file or folder 'sett'"):
        load_coder("owner/coders/sett")


def test_from_the_hub_pickles_only_on_demand(
    online: Callable[..., Any], official: Callable[..., Path], tmp_path: Path
) -> None:
    path = official(tensors() | {"b_dec_out": noise(D)})
    calls = online({path.name: 10, "blocks.11.pt": 10})
    assert load_coder("owner/gpt2-transcoders", layer=8, format="official").cfg.layer == 8
    assert calls[-1]["allow_patterns"] == [path.name]
    load_coder("owner/gpt2-transcoders", layer=8)
    assert (
        not any("*.pt" in call.get("allow_patterns", ()) for call in calls[-2:]) and calls[-1]["allow_patterns"] == []
    )


def test_offline_and_missing_places(
    online: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save_coder(coder(), tmp_path / "coder")
    calls = online({})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load_coder("owner/name/coder").cfg.layer == 3
    assert [call["local_files_only"] for call in calls] == [True]
    online({}, errors.LocalEntryNotFoundError("no"))
    with pytest.raises(
        CircuitError, match="owner/name is not on this machine, and HF_HUB_OFFLINE is set; run `hf download"
    ):
        load_coder("owner/name")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    online({}, OSError("no route"))
    with pytest.raises(CircuitError, match="not on this machine, and it cannot be fetched"):
        load_coder("owner/name")
    online({}, errors.HFValidationError("no"))
    with pytest.raises(CircuitError, match="'not an/id!' is neither a file or folder on this machine nor a hub id"):
        load_coder("not an/id!")
    for place in ("nowhere", "/no/such/file", "../up/there", "~/no/coder", "", Path("owner/name"), "a/../b"):
        with pytest.raises(CircuitError, match="is neither a file or folder on this machine nor a hub id"):
            load_coder(place)


def test_a_hub_that_cannot_be_listed_is_asked_in_earnest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_coder(coder(), tmp_path / "coder")

    def snapshot_download(name: str, *, dry_run: bool = False, allow_patterns: Any = None) -> str:
        if dry_run:
            raise errors.DryRunError("no access")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr(hub, "offline", lambda: False)
    assert load_coder("owner/name").cfg.layer == 3  # from the cache
