r"""A dial for activation outliers that leaves what the model computes as it is.

Large language models have a few input channels that are a thousand times larger than the others; small ones have none. Here
some channels of a layer's input are made ``strength`` times larger, and the layer's weights for them as many times smaller:

.. math:: x_k \to s\,x_k, \qquad W_{:,k} \to W_{:,k} / s, \qquad W x \text{ unchanged}.

Where the model norms a block's input first (GPT-2, OPT, LLaMA), the norm's gain and bias take the factor; in BERT, whose
norms also feed the residual, the value projection takes it for the attention's output layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lab.quantization.blocks import UnknownModel, find_blocks, weight_of


@dataclass(frozen=True)
class _Pair:
    """What makes an input (a norm, or the rows of a linear layer), and the linear layers that read it."""

    source: str
    readers: tuple[str, ...]


_PAIRS = (
    _Pair("ln_1", ("attn.c_attn",)),
    _Pair("ln_2", ("mlp.c_fc",)),
    _Pair("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    _Pair("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    _Pair("self_attn_layer_norm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    _Pair("final_layer_norm", ("fc1",)),
    _Pair("attention.self.value", ("attention.output.dense",)),
)


@torch.no_grad()
def add_outliers(model: nn.Module, strength: float, *, channels: int = 4, seed: int = 0) -> dict[str, list[int]]:
    """Make ``channels`` input channels of some layers in every block ``strength`` times larger, in list_name.

    The model's outputs stay the same up to rounding. Returns the channels by layer. Raises ValueError for a strength that is
    not positive and finite or more channels than there are, UnknownModel for blocks without a known norm.

    >>> from transformers import GPT2Config, GPT2Model
    >>> model = GPT2Model(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=9, n_positions=4))
    >>> sorted(add_outliers(model, strength=100.0, channels=2))
    ['h.0.attn.c_attn', 'h.0.mlp.c_fc']
    """
    if not 0 < strength < float("inf"):
        raise ValueError(f"strength must be positive and finite, got {strength}")
    list_name, blocks = find_blocks(model)
    generator = torch.Generator().manual_seed(seed)
    changed: dict[str, list[int]] = {}
    for number, block in enumerate(blocks):
        modules = dict(block.named_modules())
        for pair in _PAIRS:
            if pair.source not in modules or not all(reader in modules for reader in pair.readers):
                continue
            width = weight_of(modules[pair.readers[0]]).shape[1]
            if not 0 <= channels <= width:
                raise ValueError(f"channels must lie between 0 and {width}, got {channels}")
            chosen = torch.randperm(width, generator=generator)[:channels]
            _scale_source(modules[pair.source], chosen, strength)
            for reader in pair.readers:
                weight_of(modules[reader])[:, chosen] /= strength
                changed[f"{list_name}.{number}.{reader}"] = sorted(chosen.tolist())
    if not changed:
        raise UnknownModel(f"the blocks of a {type(model).__name__} have no norm or value layer that is known here")
    return changed


def _scale_source(source: nn.Module, chosen: Tensor, strength: float) -> None:
    """A norm's gain, or a linear layer's rows; and the bias of either."""
    for name in ("weight", "bias"):
        parameter = getattr(source, name, None)
        if isinstance(parameter, Tensor):
            parameter[chosen] *= strength
