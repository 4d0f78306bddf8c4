"""Tiny, randomly initialised models of the families that the bench knows, and batches for them."""

from __future__ import annotations

from typing import Any

import torch
import transformers

SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES: dict[str, Any] = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**SIZES)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=30, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
    ),
    "opt": lambda: transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=24,
            word_embed_proj_dim=16,
        )
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)),
    "qwen": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES, num_key_value_heads=1)),
}


def batches(padded: bool = False) -> list[dict[str, torch.Tensor]]:
    made = []
    for seed in range(3):
        ids = torch.randint(1, 30, (2, 8), generator=torch.Generator().manual_seed(seed))
        mask = torch.ones_like(ids)
        if padded:
            mask[1, 5:] = 0
        made.append({"input_ids": ids, "attention_mask": mask})
    return made
