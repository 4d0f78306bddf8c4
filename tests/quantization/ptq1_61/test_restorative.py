"""Restorative LoRA: the loss falls, only the targets change, nothing of it is left in the model but their weights."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from lab.quantization.pipeline import Quantized, quantize_model
from lab.quantization.ptq1_61 import PTQ161, restorative_lora

SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES: dict[str, Any] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=30, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)),
}
CHANGED = {
    "gpt2": {"attn.c_attn.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"},
    "llama": {f"self_attn.{name}_proj.weight" for name in "qkv"}
    | {f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
}
IDS = torch.randint(1, 30, (2, 8), generator=torch.Generator().manual_seed(0))
BATCHES = [{"input_ids": IDS, "attention_mask": torch.ones_like(IDS).index_fill_(1, torch.tensor([7]), 0)}]


def quantized(family: str) -> Quantized:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FAMILIES[family]().eval()
    return quantize_model(model, PTQ161(steps=0), [{"input_ids": IDS}])


def loss(model: nn.Module) -> float:
    with torch.no_grad():
        return float(model(input_ids=IDS[:, :7], labels=IDS[:, :7]).loss)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_preprocessed_model_is_better_and_plain(family: str) -> None:
    given = quantized(family)
    before = {name: part.clone() for name, part in given.model.state_dict().items()}
    state = torch.get_rng_state()
    seen: list[float] = []
    made = restorative_lora(
        given, BATCHES, steps=8, r=4, lr=2e-2, progress=lambda fraction, note="", partial=None: seen.append(fraction)
    )
    assert seen[-1] == 1.0 and torch.equal(state, torch.get_rng_state())
    assert type(made) is type(given.model) and not made.training
    assert set(made.state_dict()) == set(before)
    assert loss(made) < loss(given.model) - 0.05
    changed = {name for name, part in made.state_dict().items() if not torch.equal(part, before[name])}
    assert {".".join(name.split(".")[-3:]) for name in changed} == CHANGED[family] and len(changed) == 2 * len(
        CHANGED[family]
    )
    assert all(torch.equal(part, before[name]) for name, part in given.model.state_dict().items())
    again = quantize_model(made, PTQ161(steps=0), [{"input_ids": IDS}])
    assert math.isfinite(loss(again.model)) and all(part.requires_grad for part in made.parameters())


def test_targets_and_seeds_count() -> None:
    given = quantized("gpt2").model
    made = [restorative_lora(given, BATCHES, steps=2, r=2, targets=["c_attn"], seed=seed) for seed in (0, 0, 1)]
    weights = [model.transformer.h[0].attn.c_attn.weight for model in made]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(made[0].transformer.h[0].mlp.c_fc.weight, given.transformer.h[0].mlp.c_fc.weight)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batches": []}, "batches is empty"),
        ({"batches": [{"ids": IDS}]}, "batches must hold input_ids, got ids"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"r": 0}, "r must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"lr": math.nan}, "lr must be positive and finite, got nan"),
        ({"targets": ["q_proj"]}, "targets must name linear layers of the blocks .*c_attn.* got q_proj"),
        ({"targets": []}, "targets must name linear layers .* got none"),
        ({"lr": 1e30, "steps": 9}, "the loss became .* lower lr 1e.30"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence(change: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"quantized": quantized("gpt2"), "batches": BATCHES, "steps": 1, "r": 2} | change
    with pytest.raises(ValueError, match=says):
        restorative_lora(**arguments)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), transformers.BertModel(transformers.BertConfig(**SIZES))])
def test_only_causal_language_models(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"quantized must be a causal language model .* got a {type(model).__name__}"):
        restorative_lora(model, BATCHES, steps=1)


def test_without_peft_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match="restorative_lora needs peft: pip install"):
        restorative_lora(quantized("gpt2"), BATCHES, steps=1)
