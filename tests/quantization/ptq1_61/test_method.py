"""PTQ1.61 on the bench: whole models, streams, the loss on its way down, the plain step as oracle, errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from lab.experiment import Stopped
from lab.quantization.blocks import UnknownModel, find_blocks, first_calls, linears, weight_of
from lab.quantization.pipeline import BlockInputs, quantize_model
from lab.quantization.ptq1_61 import PTQ161, PTQ161Weight, block_loss, channel_mask
from lab.quantization.ptq1_61.methods import METHODS
from lab.quantization.ptq1_61.published import PublishedPTQ161
from lab.quantization.registry import method

SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES: dict[str, Any] = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**SIZES)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=30, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)),
}
BATCHES = [
    {"input_ids": torch.randint(1, 30, (2, 8), generator=torch.Generator().manual_seed(seed))} for seed in range(3)
]


@pytest.fixture(params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest) -> Iterator[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield FAMILIES[request.param]().eval()


def first_block(model: nn.Module) -> BlockInputs:
    calls = first_calls(model, BATCHES[:1])
    block = find_blocks(model)[1][0]
    return BlockInputs("b", block, block, calls, calls)


def test_a_model_goes_through(model: nn.Module) -> None:
    before = {name: part.clone() for name, part in model.state_dict().items()}
    state = torch.get_rng_state()
    result = quantize_model(model, PTQ161(epochs=2), BATCHES)
    again = quantize_model(model, PTQ161(steps=6), BATCHES)
    assert torch.equal(state, torch.get_rng_state())
    assert len(result.weights) == 2 * len(linears(find_blocks(model)[1][0]))
    for name, weight in result.weights.items():
        layer = result.model.get_submodule(name)
        assert torch.equal(weight_of(layer), weight.dequantize())
        assert torch.equal(weight.dequantize(), again.weights[name].dequantize()), "two epochs are six steps"
    assert torch.isfinite(result.model(**BATCHES[0])[0]).all()
    assert all(torch.equal(part, model.state_dict()[name]) for name, part in before.items())
    assert all(part.grad is None for part in result.model.parameters())


def test_fitting_helps_and_zero_steps_are_the_start(model: nn.Module) -> None:
    start, fitted = (quantize_model(model, PTQ161(steps=steps, lr_rot=1e-2), BATCHES) for steps in (0, 12))
    assert fitted.blocks[0].error < start.blocks[0].error
    work, name = first_block(model), next(iter(linears(find_blocks(model)[1][0])))
    scores = torch.cat([call.hidden.flatten(0, 1) for call in first_calls(model, BATCHES)]).abs().amax(0)
    if isinstance(model, transformers.BertModel):  # the first block's first layer sees the hidden states themselves
        by_hand = PTQ161Weight(work.weight(name), channel_mask(scores)).finish()
        place = find_blocks(model)[0]
        assert torch.equal(start.weights[f"{place}.0.{name}"].dequantize(), by_hand.dequantize())


def test_the_loss_falls_in_full_batch_steps(model: nn.Module) -> None:
    work = first_block(model)
    settings = PTQ161(steps=20, lr_scale=1e-4, lr_rot=1e-4)
    losses = settings.fit(work, settings.learned(work))
    assert len(losses) == 20 and all(later <= sooner + 1e-6 for sooner, later in pairwise(losses))


@pytest.mark.parametrize("nlc", [True, False])
def test_the_plain_step_comes_to_the_same(model: nn.Module, nlc: bool) -> None:
    work = first_block(model)
    found = []
    for kind in (PTQ161, PublishedPTQ161):
        settings = kind(steps=10, nlc=nlc)
        learned = settings.learned(work)
        found.append((settings.fit(work, learned), {name: part() for name, part in learned.items()}))
    (ours, weights), (theirs, plain) = found
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    assert all(torch.allclose(weights[name], plain[name], atol=1e-4) for name in weights)


class Stack(nn.Module):
    """Two blocks of one layer each."""

    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList([nn.Sequential(nn.Linear(10, 10), nn.Tanh()) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.h:
            x = block(x)
        return x


class Watched(PTQ161):
    """Keeps what each block was given, and its losses."""

    def fit(self, work: BlockInputs, learned: Any, progress: Any = None) -> list[float]:
        seen.append((work, {name: part().detach() for name, part in learned.items()}, super().fit(work, learned)))
        return seen[-1][-1]


seen: list[tuple[BlockInputs, dict[str, torch.Tensor], list[float]]] = []


def test_streams_advance_and_the_loss_sees_all_three() -> None:
    seen.clear()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Stack()
    x = torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(1))
    result = quantize_model(model, Watched(steps=1, lr_rot=0.1), [{"x": x}])
    (first, _, _), (second, start, losses) = seen
    assert first.calls is first.calls_full and torch.equal(first.calls[0].hidden, x)
    hard = find_blocks(result.model)[1][0]
    with torch.no_grad():
        assert torch.equal(second.calls_full[0].hidden, model.h[0](x))
        assert torch.equal(second.calls[0].hidden, hard(x)), "the hard block makes the next input"
        full, mixed = model.h[1](model.h[0](x)), model.h[1](hard(x))
        ours = torch.tanh(nn.functional.linear(hard(x), start["0"], model.h[1][0].bias))
        assert losses == pytest.approx([block_loss(ours, full, mixed).item()], rel=1e-5)


def test_scores_come_from_the_stream_that_is_asked_for() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Stack()
    one, other = (first_calls(model, [{"x": torch.eye(10)[[channel]][None]}]) for channel in (3, 7))
    work = BlockInputs("b", model.h[0], model.h[0], calls_full=one, calls=other)
    masks = {
        stream: PTQ161(ratio=0.1, exact_count=True, stream=stream).learned(work)["0"].mask.nonzero().tolist()
        for stream in ("full", "quantized")
    }
    assert masks == {"full": [[3]], "quantized": [[7]]}


def test_the_key_makes_the_method() -> None:
    made = method("ptq1-61", METHODS, steps=3)
    assert made == PTQ161(steps=3) and made.key == "ptq1-61"
    with pytest.raises(ValueError, match="ptq1-61 does not take these settings"):
        method("ptq1-61", METHODS, bits=3)


def test_stop_goes_through(model: nn.Module) -> None:
    def stop(fraction: float, note: str = "", partial: Any = None) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        quantize_model(model, PTQ161(steps=2), BATCHES, progress=stop)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ratio", 1.2),
        ("ratio", -0.1),
        ("high_bits", 0),
        ("high_bits", 9),
        ("score", "loudest"),
        ("stream", "both"),
        ("high_range", "column"),
        ("epochs", -1),
        ("steps", -1),
        ("lr_scale", 0.0),
        ("lr_rot", math.inf),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        PTQ161(**{name: value})


def test_what_cannot_be_quantized_is_a_sentence(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="the calibration is empty"):
        quantize_model(model, PTQ161(), [])
    with pytest.raises(UnknownModel, match="no transformer blocks were found"):
        quantize_model(nn.Sequential(nn.Linear(2, 2)), PTQ161(), BATCHES)
    with pytest.raises(ValueError, match="the loss became .* at step .* lower lr_scale 1e.30 and lr_rot"):
        quantize_model(model, PTQ161(steps=5, lr_scale=1e30, nlc=False), BATCHES)
    name, layer = next(iter(linears(find_blocks(model)[1][0]).items()))
    with torch.no_grad():
        weight_of(layer).fill_(torch.nan)
    with pytest.raises(ValueError, match=rf"0\.{name} holds NaN or inf"):
        quantize_model(model, PTQ161(), BATCHES)
