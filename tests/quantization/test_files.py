"""Quantized models as files: plain transformers reads the folder, and the packed weights come back to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from lab.files import FileError
from lab.quantization.baselines import GPTQ, RTN
from lab.quantization.files import PACKED, apply, load_packed, save_packed, save_quantized
from lab.quantization.pipeline import Quantized, quantize_model


def gpt2() -> transformers.GPT2LMHeadModel:
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=30, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
    ).eval()


@pytest.fixture(scope="module")
def result() -> Quantized:
    return quantize_model(gpt2(), GPTQ(bits=3), [{"input_ids": torch.arange(24).reshape(3, 8)}])


def test_plain_transformers_reads_the_folder(result: Quantized, tmp_path: Path) -> None:
    folder = tmp_path / "quantized"
    for _ in range(2):  # the second replaces the first
        save_quantized(result, folder)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, result.model(ids).logits)
    packed = load_packed(folder / PACKED)
    assert set(packed) == set(result.weights)
    assert all(torch.equal(packed[name].dequantize(), weight.dequantize()) for name, weight in result.weights.items())
    fresh = gpt2()
    apply(packed, fresh)
    with torch.no_grad():
        assert torch.equal(fresh(ids).logits, result.model(ids).logits)
    assert {path.name for path in tmp_path.iterdir()} == {"quantized"}


def test_what_does_not_fit_writes_nothing(result: Quantized, tmp_path: Path) -> None:
    other = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=30, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
    )
    before = {name: weight.clone() for name, weight in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"transformer\.h\.0\..* is \(.*\) in the model and \(.*\) in the file"):
        apply(result.weights, other)
    with pytest.raises(ValueError, match="the model has no linear layer 'transformer"):
        apply(result.weights, torch.nn.Linear(2, 2))
    assert all(torch.equal(weight, before[name]) for name, weight in other.state_dict().items())


def test_other_files_are_one_sentence(result: Quantized, tmp_path: Path) -> None:
    path = tmp_path / PACKED
    save_packed(result.weights, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match="packed.safetensors"):
        load_packed(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(FileError, match="these are no packed weights"):
        load_packed(path)
    save_file({"layer/codes": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="layer: these tensors are no packed weight"):
        load_packed(path)
    with pytest.raises(TypeError, match="Linear has no save_pretrained"):
        save_quantized(Quantized(torch.nn.Linear(2, 2), RTN()), tmp_path / "x")
