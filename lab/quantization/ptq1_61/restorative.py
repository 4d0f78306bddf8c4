r"""Restorative LoRA ("quantization preprocessing"): a model is made used to quantization before it is quantized.

    1 quantize    2 train LoRA on the dequantized model    3 merge: the preprocessed model    4 quantize that

Step 2 minimises the causal language model's own loss over low-rank updates,

.. math:: \min_{A, B}\; -\sum_t \log p_{\hat W + \frac{a}{r} B A}(x_t \mid x_{<t}).

It starts from weights that are nearly binary already, so it is close to quantization-aware training through LoRA: the
preprocessed model is *worse* than the original in full precision, and survives step 4 better.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lab.experiment import Progress, no_progress
from lab.quantization.blocks import find_blocks, linears
from lab.quantization.pipeline import Quantized

R, ALPHA, DROPOUT, RATE, WARM_UP = 64, 16, 0.1, 1e-4, 0.05
LEFT_OUT = ("o_proj", "out_proj", "attn.c_proj", "attention.dense", "attention.output.dense")  # attention's last layer


def restorative_lora(
    quantized: Quantized | nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    steps: int,
    r: int = R,
    alpha: int = ALPHA,
    dropout: float = DROPOUT,
    lr: float = RATE,
    targets: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> nn.Module:
    r"""The preprocessed model: LoRA trained on a quantized causal language model, and merged into it.

    .. math:: \min_{A, B}\; -\sum_t \log p_{\hat W + \frac{a}{r} B A}(x_t \mid x_{<t})

    Parameters
    ----------
    quantized : Quantized or a transformers causal language model
        What `quantize_model` gave, or a model with dequantized weights; it is left as it is.
    batches : mappings of ``input_ids`` (b, t) and, if there is padding, ``attention_mask``; ``labels`` if not the same
        One optimizer step each, in an order drawn anew for each pass.
    steps : int
        Optimizer steps, AdamW; 5 % warm-up, then a cosine to 0. The paper's script takes about 10,000.
    r, alpha, dropout, lr
        Of LoRA; the paper's by default.
    targets : names of linear layers, optional
        Default: all of the blocks but the last of each attention, as in the paper.
    seed : int
        Of the start, the dropout and the order; the global random state is not touched.
    progress : callable, optional
        Told of every step; may raise `Stopped`.

    Returns
    -------
    nn.Module
        The model in full precision, its layers W_hat + (alpha / r) B A; a model of its own.

    Raises
    ------
    ImportError
        Without peft.
    ValueError
        For a model without a causal language-model loss, no batches, settings out of range, unknown targets, and a loss
        that becomes NaN or inf.

    References
    ----------
    J. Zhao et al., "PTQ1.61", ACL 2025, arXiv 2502.13179, quantization preprocessing.

    Examples
    --------
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> sizes = {"n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 9, "n_positions": 4}
    >>> model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    >>> type(restorative_lora(model, [{"input_ids": torch.tensor([[1, 2, 3]])}], steps=1, r=2)).__name__
    'GPT2LMHeadModel'
    """
    model = quantized.model if isinstance(quantized, Quantized) else quantized
    _check(model, steps, r, dropout, lr)
    labelled = [_with_labels(batch) for batch in batches]
    if not labelled:
        raise ValueError("batches is empty: give at least one batch of input_ids")
    names = _targets(model, targets)
    devices = sorted({each.device.index or 0 for each in model.parameters() if each.device.type == "cuda"})
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        adapted = _adapted(copy.deepcopy(model), names, r, alpha, dropout)
        _train(adapted, labelled, steps, lr, progress)
    merged: nn.Module = adapted.merge_and_unload()
    return merged.requires_grad_(True).eval()


def _check(model: nn.Module, steps: int, r: int, dropout: float, lr: float) -> None:
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel) or not model.can_generate():
        raise ValueError(f"quantized must be a causal language model of transformers, got a {type(model).__name__}")
    for name, value in (("steps", steps), ("r", r)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr must be positive and finite, got {lr}")


def _with_labels(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch with labels; padding has none."""
    if "input_ids" not in batch:
        raise ValueError(f"batches must hold input_ids, got {', '.join(batch) or 'nothing'}")
    made = dict(batch)
    if "labels" not in made:
        ids, mask = made["input_ids"], made.get("attention_mask")
        made["labels"] = ids if mask is None else ids.masked_fill(mask == 0, -100)
    return made


def _targets(model: nn.Module, targets: Sequence[str] | None) -> list[str]:
    """Full names of the layers that get a LoRA."""
    list_name, blocks = find_blocks(model)
    inside = [f"{list_name}.{number}.{name}" for number, block in enumerate(blocks) for name in linears(block)]
    if targets is None:
        return [name for name in inside if not name.endswith(LEFT_OUT)]
    unknown = [target for target in targets if not any(name.endswith(f".{target}") for name in inside)]
    if unknown or not targets:
        linear_names = ", ".join(linears(blocks[0]))
        raise ValueError(
            f"targets must name linear layers of the blocks ({linear_names}), got {', '.join(unknown) or 'none'}"
        )
    return [name for name in inside if name.endswith(tuple(f".{target}" for target in targets))]


def _adapted(model: nn.Module, names: Sequence[str], r: int, alpha: int, dropout: float) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("restorative_lora needs peft: pip install 'peft>=0.15,<1'") from error
    across = not isinstance(model.get_submodule(names[0]), nn.Linear)  # GPT-2 keeps its weights the other way round
    config = LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(names), fan_in_fan_out=across, bias="none"
    )
    return get_peft_model(model, config)


def _train(model: Any, batches: Sequence[Mapping[str, Tensor]], steps: int, lr: float, progress: Progress) -> None:
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(WARM_UP * steps), steps)
    model.train()
    order: list[int] = []
    for step in range(steps):
        order = order or torch.randperm(len(batches)).tolist()
        loss = model(**batches[order.pop()]).loss
        value = float(loss.detach())
        if not torch.isfinite(loss.detach()):
            raise ValueError(f"the loss became {value} at step {step + 1}; lower lr {lr}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress((step + 1) / steps, f"step {step + 1}, loss {value:.4g}")
