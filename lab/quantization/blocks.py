"""Where a transformer's blocks are, which linear layers they hold, and with what the first one is called.

Known are BERT, GPT-2, OPT, and LLaMA and its kin (Mistral, Qwen); another model is searched for its one list of like
modules. What a block gets besides its hidden states (masks, positions, rotary embeddings) is caught as it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

KNOWN_NAMES = (
    "encoder.layer",
    "transformer.h",
    "h",
    "model.decoder.layers",
    "decoder.layers",
    "model.layers",
    "layers",
)


class UnknownModel(ValueError):
    """No transformer blocks were found; the text says what was."""


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name and the list of a model's blocks, in their order.

    Raises UnknownModel naming the model's type and its lists of modules when none of the known places holds one, and it
    has not exactly one list of several modules of one class.

    >>> from transformers import GPT2Config, GPT2Model
    >>> name, blocks = find_blocks(GPT2Model(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=9, n_positions=4)))
    >>> name, len(blocks)
    ('h', 2)
    """
    lists = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)
    }
    for known in KNOWN_NAMES:
        for name, modules in lists.items():
            if name == known or name.endswith(f".{known}"):
                return name, modules
    alike = {
        name: modules
        for name, modules in lists.items()
        if len(modules) > 1 and len({type(each) for each in modules}) == 1
    }
    outer = {
        name: modules for name, modules in alike.items() if not any(name.startswith(f"{other}.") for other in alike)
    }
    if len(outer) == 1:
        return next(iter(outer.items()))
    words = [f"{name} ({len(modules)} x {type(modules[0]).__name__})" for name, modules in lists.items()]
    kind = type(model).__name__
    raise UnknownModel(f"no transformer blocks were found in a {kind}: it has {', '.join(words) or 'no lists'}")


def is_linear(module: nn.Module) -> bool:
    """nn.Linear, or GPT-2's Conv1D, whose weight lies the other way round."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def linears(block: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of a block by name, in the order of the model."""
    return {name: module for name, module in block.named_modules() if is_linear(module)}


def weight_of(layer: nn.Module) -> Float[Tensor, "o i"]:
    """A layer's weight as (outputs, inputs), a view of it."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight if isinstance(layer, nn.Linear) else weight.T


@torch.no_grad()
def set_weight(layer: nn.Module, weight: Float[Tensor, "o i"]) -> None:
    """Write a weight (outputs, inputs) into a layer, in the layer's own type."""
    weight_of(layer).copy_(weight)


@dataclass(frozen=True, eq=False)
class Call:
    """How a block is called for one calibration batch: its hidden states (b, t, d), and everything else."""

    hidden: Float[Tensor, "b t d"]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self, block: nn.Module) -> Float[Tensor, "b t d"]:
        """The block's output; older versions of transformers give it first in a tuple."""
        out = block(self.hidden, *self.args, **self.kwargs)
        return out[0] if isinstance(out, tuple) else out

    def after(self, hidden: Float[Tensor, "b t d"]) -> Call:
        """The same call with other hidden states: what the next block gets."""
        return replace(self, hidden=hidden)


class _Caught(Exception):
    """The first block was reached: nothing behind it needs to run."""


@torch.no_grad()
def first_calls(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> list[Call]:
    """With what the first block is called for each batch of the model's inputs. The model is left as it was.

    Raises ValueError for no batches, or batches without a token.

    >>> from transformers import GPT2Config, GPT2Model
    >>> model = GPT2Model(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=9, n_positions=4)).eval()
    >>> first_calls(model, [{"input_ids": torch.tensor([[1, 2, 3]])}])[0].hidden.shape
    torch.Size([1, 3, 8])
    """
    block = find_blocks(model)[1][0]
    calls: list[Call] = []

    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs = dict(kwargs)
        hidden, *others = args if args else (kwargs.pop("hidden_states"),)
        calls.append(Call(hidden, tuple(others), kwargs))
        raise _Caught

    device = next(model.parameters()).device
    hook = block.register_forward_pre_hook(catch, with_kwargs=True)
    with hook, _without_cache(model):
        for batch in batches:
            try:
                model(**{name: value.to(device) for name, value in batch.items()})
            except _Caught:
                continue
    if not calls or not sum(call.hidden[..., 0].numel() for call in calls):
        raise ValueError("the calibration is empty: give at least one batch with tokens")
    return calls


@contextmanager
def _without_cache(model: nn.Module) -> Iterator[None]:
    """Decoders must not keep keys and values: a block is called many times over."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "use_cache"):
        yield
        return
    before, config.use_cache = config.use_cache, False
    try:
        yield
    finally:
        config.use_cache = before
