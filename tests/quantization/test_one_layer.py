"""One layer alone: its inputs are those of the model, and every method runs on it."""

from __future__ import annotations

import pytest
import torch

from lab.quantization.baselines import RTN
from lab.quantization.blocks import find_blocks, first_calls, linears, weight_of
from lab.quantization.one_layer import NAME, examine, layer_inputs
from lab.quantization.pb_llm.methods import METHODS
from lab.quantization.ptq1_61 import PTQ161
from lab.quantization.registry import method
from lab.quantization.tasks import TASKS

STEPS = {key: {"steps": 3} for key in ("adaquant", "adaround", "flexround", "ptq1-61", "signround")}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_it_gets_what_the_layer_gets_in_the_model(task: str) -> None:
    model = TASKS[task].model()
    block = find_blocks(model)[1][1]
    names = list(linears(block))
    work = layer_inputs(task, 1, names[-1])
    assert torch.equal(work.weight(NAME), weight_of(linears(block)[names[-1]]).float())
    seen: list[torch.Tensor] = []
    with (
        linears(block)[names[-1]].register_forward_pre_hook(lambda module, args: seen.append(args[0])),
        torch.no_grad(),
    ):
        model(**TASKS[task].calibration(0)[0])
    assert torch.allclose(work.calls[0].hidden, seen[0], atol=1e-5)
    assert len(work.calls) == len(TASKS[task].calibration(0)) == len(first_calls(model, TASKS[task].calibration(0)))


@pytest.mark.parametrize("key", sorted(METHODS))
def test_every_method_is_judged_by_the_layer_s_output(key: str) -> None:
    work = layer_inputs("minilm", 0, "attention.self.query")
    found = examine(work, method(key, METHODS, **STEPS.get(key, {})))
    inputs = torch.cat([call.hidden.flatten(0, 1) for call in work.calls])
    off, whole = inputs @ (found.rounded - found.weight).T, inputs @ found.weight.T
    assert found.error == pytest.approx(float(off.square().sum() / whole.square().sum()), rel=1e-3)
    assert 0 < found.error < 1 and found.column_error.sum() == pytest.approx(1, abs=1e-4)
    assert found.storage == found.stored.storage() and torch.equal(found.rounded, found.stored.dequantize())
    assert (found.mask is not None) == (key in ("pb-llm", "ptq1-61", "billm"))


def test_the_outlier_dial_changes_inputs_and_weights_alone() -> None:
    plain = layer_inputs("stdlib-gpt", 0, "attn.c_attn")
    turned = layer_inputs("stdlib-gpt", 0, "attn.c_attn", outliers=100.0)
    for one, other in zip(plain.calls, turned.calls, strict=True):
        assert torch.allclose(one.hidden @ plain.weight(NAME).T, other.hidden @ turned.weight(NAME).T, atol=1e-3)
    size = torch.cat([call.hidden.flatten(0, 1) for call in turned.calls]).abs().amax(0)
    assert int((size > 20 * size.median()).sum()) == 4
    calm, loud = (examine(work, RTN(bits=3)).error for work in (plain, turned))
    kept = examine(turned, PTQ161(steps=0))
    assert kept.mask is not None and kept.mask[0][size > 20 * size.median()].all()
    assert loud != calm


def test_what_is_not_there_is_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"block must lie in 0\.\.5, got 6"):
        layer_inputs("minilm", 6, "attention.self.query")
    with pytest.raises(ValueError, match="layer must be one of attention.self.query"):
        layer_inputs("minilm", 0, "nosuch")
