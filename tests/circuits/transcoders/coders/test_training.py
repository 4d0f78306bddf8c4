"""The buffer, the official training step, and trainings that are the same to the bit, killed or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import circuit_toys
import pytest
import torch

from lab.circuits.transcoders.coders.buffer import ActivationBuffer
from lab.circuits.transcoders.coders.bundle import load_bundle, save_bundle
from lab.circuits.transcoders.coders.coder import CoderConfig
from lab.circuits.transcoders.coders.evaluation import evaluate
from lab.circuits.transcoders.coders.training import (
    CoderAdam,
    CoderTrainer,
    CoderTraining,
    Site,
    Task,
    asset_recipe,
    finished,
    train_coder,
    train_coders,
)
from lab.circuits.transcoders.errors import CircuitError, HookedError
from lab.train import train

NAMES = ("blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out")
SHORT = CoderTraining(steps=12, batch=32, warm_up=2, buffer=128, dead_after=3)


def texts(count: int = 60) -> torch.Tensor:
    return torch.randint(0, circuit_toys.VOCABULARY, (count, 8), generator=torch.Generator().manual_seed(5))


def buffer(**more: object) -> ActivationBuffer:
    return ActivationBuffer(circuit_toys.model(), texts(), NAMES, size=64, seed=3, **more)


def test_pairs_belong_together() -> None:
    """A row's second half is what the MLP makes of its first half: one permutation serves both."""
    held = buffer()
    rows = held[torch.arange(90)]
    x, y = rows[:, held.columns(NAMES[0])], rows[:, held.columns(NAMES[1])]
    assert rows.shape == (90, 24) and torch.allclose(circuit_toys.model().mlp(1, x), y, atol=1e-12)


def test_the_buffer_is_a_function_of_the_position() -> None:
    straight = buffer()
    whole = torch.cat([straight[torch.arange(start, start + 16)] for start in range(0, 320, 16)])
    for start in (304, 160, 16):  # jumps ahead, and back
        assert torch.equal(buffer()[torch.arange(start, start + 16)], whole[start : start + 16])
    assert torch.equal(straight[torch.arange(16)], whole[:16])


def test_half_of_it_is_mixed_with_fresh_pairs() -> None:
    """Of the pairs of the first round's texts some are served in each of the next rounds, about half as many each time."""
    numbers = []
    held = buffer()
    for number in range(6):
        served, held._remaining = held._mix(number)
        numbers.append((served // held.half <= 1).double().mean().item())
    assert numbers[0] == 1 and 0.3 < numbers[1] < 0.7 and numbers[5] < 0.1


def test_repeats_and_the_first_position() -> None:
    tokens = texts(1).expand(40, -1)
    model = circuit_toys.model()
    _, cache = model.run_with_cache(tokens[:1])
    last, first = cache[NAMES[1]][0, -1], cache[NAMES[1]][0, 0]
    only_last = torch.zeros(8, dtype=torch.int64)
    only_last[-1] = 2
    held = ActivationBuffer(model, tokens, NAMES[1:], size=64, repeats=lambda some: only_last.expand_as(some))
    assert torch.allclose(held[torch.arange(20)], last.expand(20, -1))
    rest = ActivationBuffer(model, tokens, NAMES[1:], size=64, skip_bos=True)[torch.arange(200)]
    assert not torch.isclose(rest, first).all(1).any()


def test_what_a_buffer_refuses() -> None:
    with pytest.raises(HookedError, match="size must be at least 2"):
        ActivationBuffer(circuit_toys.model(), texts(), NAMES, size=1)
    with pytest.raises(HookedError, match="no texts"):
        ActivationBuffer(circuit_toys.model(), texts(0), NAMES)
    with pytest.raises(HookedError, match=r"no hook 'blocks.9.hook_mlp_out'"):
        ActivationBuffer(circuit_toys.model(), texts(), ["blocks.9.hook_mlp_out"])
    with pytest.raises(HookedError, match="no position of these texts"):
        buffer(repeats=torch.zeros_like)[torch.arange(4)]
    with pytest.raises(HookedError, match="does not hold"):
        buffer().columns("hook_embed")


def trainer(**more: object) -> CoderTrainer:
    torch.manual_seed(0)
    site = Site(0, d_sae=20, lam=0.1, **more)
    cfg = CoderConfig(6, 20, 4, site.activation, site.k)
    return CoderTrainer(site, cfg, torch.randn(6), torch.randn(4), dead_after=2)


def test_the_gradient_has_no_part_along_decoder_rows() -> None:
    part = trainer()
    part(torch.randn(16, 6), torch.randn(16, 4)).backward()
    part.project()
    weight = part.coder.W_dec
    assert (weight.grad * weight).sum(1).abs().max() < 1e-6 and weight.grad.abs().max() > 0


def test_folding_the_input_bias_is_the_official_formula() -> None:
    part = trainer(skip=True)
    x = torch.randn(16, 6)
    official = torch.relu((x - part.b_in) @ part.coder.W_enc + part.coder.b_enc)
    done = part.finished()
    assert torch.allclose(done.encode(x) @ done.W_dec, official @ part.coder.W_dec, atol=1e-5)
    loss = part.loss
    y = torch.randn(16, 4)
    y_hat = official @ part.coder.W_dec + part.coder.b_dec
    assert torch.allclose(part(x, y), loss.error(y_hat, y) + loss.sparsity(official), atol=1e-6)


def test_the_hand_written_gradient_is_autograd_s() -> None:
    part = trainer().double()
    x, y = torch.randn(16, 6, dtype=torch.float64), torch.randn(16, 4, dtype=torch.float64)
    part(x, y).backward()
    ours = {name: weight.grad.clone() for name, weight in part.named_parameters()}
    part.zero_grad()
    z = torch.relu((x - part.b_in) @ part.coder.W_enc + part.coder.b_enc)
    y_hat = z @ part.coder.W_dec + part.coder.b_dec
    (part.loss.error(y_hat, y) + part.loss.sparsity(z)).backward()
    for name, weight in part.named_parameters():
        assert torch.allclose(weight.grad, ours[name], atol=1e-12) and weight.grad.any(), name


@pytest.mark.parametrize("remedy", ["auxk", "ghost"])
def test_a_remedy_s_gradients_reach_dead_features_alone(remedy: str) -> None:
    torch.manual_seed(1)
    x, y = torch.randn(16, 6), torch.randn(16, 4)
    grads = []
    for dead in (remedy, "none"):
        part = trainer(dead=dead)
        with torch.no_grad():
            part.coder.b_enc[:5] = -3.0
            part.steps_since_fired[:5] = 99
            part.b_in.zero_()
        part(x, y).backward()
        grads.append(part)
    with_remedy, without = grads
    for name in ("W_enc", "W_dec", "b_enc"):
        apart = (getattr(with_remedy.coder, name).grad - getattr(without.coder, name).grad).abs()
        apart = apart if name != "W_enc" else apart.T
        assert (apart[5:] < 1e-7).all() and (
            apart[:5].flatten(1).sum(1) > 0 if apart.ndim > 1 else apart[:5] > 0
        ).any(), name


def test_rows_stay_at_unit_norm() -> None:
    part = trainer()
    adam = CoderAdam(torch.nn.ModuleDict({"coder": part}), replace(SHORT, lr=0.05))
    part.renormalise()
    for _ in range(10):
        adam.zero_grad()
        part(torch.randn(16, 6), torch.randn(16, 4)).backward()
        adam.step()
        assert (part.coder.W_dec.norm(dim=1) - 1).abs().max() < 1e-6


def test_silent_features_are_counted() -> None:
    part = trainer()
    with torch.no_grad():
        part.coder.b_enc[:5] = -100.0
    for _ in range(4):
        part(torch.randn(16, 6), torch.randn(16, 4))
    assert (part.steps_since_fired[:5] == 4).all() and (part.steps_since_fired[5:] < 4).any()


@pytest.mark.parametrize("kind", ["transcoder", "sae"])
def test_a_coder_trained_alone_is_the_one_trained_in_company(kind: str) -> None:
    model = circuit_toys.model().float()
    alone = train_coder(model, texts(), 1, kind, d_sae=24, lam=0.01, training=SHORT, seed=4)
    sites = {"coder": Site(1, kind, 24, 0.01)}
    again = train_coders(Task(model, texts(), sites, SHORT, 4))["coder"]
    assert all(torch.equal(one, other) for one, other in zip(alone.parameters(), again.parameters(), strict=True))
    assert (alone.W_dec.norm(dim=1) - 1).abs().max() < 1e-6 and alone.kind == kind


def test_training_explains_the_mlp() -> None:
    model = circuit_toys.model(1).float()
    longer = replace(SHORT, steps=300, lr=5e-3)
    fvu = [
        evaluate(model, 0, train_coder(model, texts(400), 0, d_sae=60, lam=1e-3, training=some), texts(30)).fvu
        for some in (SHORT, longer)
    ]
    assert fvu[1] < 0.5 * fvu[0] and fvu[1] < 0.2


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    task = Task(circuit_toys.model().float(), texts(), {"a": Site(1, d_sae=24), "b": Site(0, "sae", 20)}, SHORT)
    whole = train(task.recipe()).model

    def stop(fraction: float, note: str = "", partial: object = None) -> None:
        pass

    first = train(task.recipe(), folder=tmp_path, minutes=1e-9, progress=stop)
    assert 0 < first.step < SHORT.steps
    rest = train(task.recipe(), folder=tmp_path, resume=True).model
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), rest.parameters(), strict=True))


def test_a_recipe_for_an_asset_loads_nothing_before_it_begins(tmp_path: Path) -> None:
    sites, calls = {"layer-0": Site(0, d_sae=24)}, []

    def task() -> Task:
        calls.append(1)
        return Task(circuit_toys.model().float(), texts(), sites, SHORT, 0)

    recipe = asset_recipe("toy", task, sites, SHORT)
    assert not calls and recipe.config["sites"]["layer-0"]["d_sae"] == 24
    made = finished(train(recipe).model)
    assert calls == [1]
    save_bundle(made, tmp_path)
    loaded = load_bundle(tmp_path)["layer-0"]
    x = torch.randn(9, circuit_toys.WIDTH)
    assert loaded.cfg == made["layer-0"].cfg and torch.allclose(loaded(x), made["layer-0"](x), atol=0.02)
    with pytest.raises(CircuitError, match="no dot"):
        save_bundle({"a.b": loaded}, tmp_path)


def test_a_pool_is_gone_through_again_and_again() -> None:
    options = replace(SHORT, pool=64, steps=20, buffer=64)
    task = Task(circuit_toys.model().float(), texts(), {"coder": Site(0, d_sae=24)}, options)
    held = task.recipe().examples()
    assert len(held) == 64 and not task.recipe().ordered and held.rows.shape == (64, 24)
    made = train_coders(task)["coder"]
    assert made.W_dec.isfinite().all()
    with pytest.raises(CircuitError, match="pool must hold a batch of 32 pairs or be 0, got 8"):
        replace(SHORT, pool=8)


def test_what_a_task_refuses() -> None:
    with pytest.raises(CircuitError, match="layer 2 does not exist"):
        Task(circuit_toys.model(), texts(), {"coder": Site(2)})
    with pytest.raises(CircuitError, match="no coder to train"):
        Task(circuit_toys.model(), texts(), {})
    with pytest.raises(CircuitError, match="steps must be positive"):
        CoderTraining(steps=0)
    with pytest.raises(CircuitError, match="decay must lie"):
        CoderTraining(decay=2.0)
