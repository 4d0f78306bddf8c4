"""Coders in place of MLPs: what changes, that everything is put back, and the figures by brute force."""

from __future__ import annotations

import math

import circuit_toys
import pytest
import torch
from torch.nn import functional

from lab.circuits.transcoders.coders.coder import CoderConfig, SparseAutoencoder, Transcoder
from lab.circuits.transcoders.coders.evaluation import constant, evaluate, replace_mlps, replacement_loss, zeros
from lab.circuits.transcoders.errors import CircuitError

TEXTS = torch.randint(0, circuit_toys.VOCABULARY, (20, 8), generator=torch.Generator().manual_seed(7))


def oracle() -> tuple[object, Transcoder]:
    """A model with a ReLU MLP, and the transcoder that is that MLP."""
    model = circuit_toys.model(2, activation="relu")
    coder = Transcoder(CoderConfig(12, 20, 12)).double().requires_grad_(False)
    for name, weight in (("W_enc", model.W_in), ("b_enc", model.b_in), ("W_dec", model.W_out), ("b_dec", model.b_out)):
        getattr(coder, name).copy_(weight[1])
    return model, coder


def test_the_mlp_itself_is_a_perfect_transcoder() -> None:
    model, coder = oracle()
    found = evaluate(model, 1, coder, TEXTS)
    assert found.fvu < 1e-20 and found.kl < 1e-12 and found.recovered == pytest.approx(1)
    assert found.ce == pytest.approx(found.ce_original) and found.tokens == 160


def test_figures_by_brute_force() -> None:
    model, coder = circuit_toys.model(), circuit_toys.coders()[1]
    found = evaluate(model, 1, coder, TEXTS)
    logits, cache = model.run_with_cache(TEXTS)
    x, y = cache["blocks.1.ln2.hook_normalized"], cache["blocks.1.hook_mlp_out"]
    stream = cache["blocks.1.hook_resid_mid"]

    def read_out(out: torch.Tensor) -> torch.Tensor:
        final = stream + out
        final = final - final.mean(-1, keepdim=True)
        return final / (final.square().mean(-1, keepdim=True) + 1e-5).sqrt() @ model.W_U + model.b_U

    def loss(some: torch.Tensor) -> float:
        return functional.cross_entropy(some[:, :-1].flatten(0, 1), TEXTS[:, 1:].flatten()).item()

    replaced = read_out(coder(x))
    assert found.ce == pytest.approx(loss(replaced)) and found.ce_original == pytest.approx(loss(logits))
    assert found.ce_zero == pytest.approx(loss(read_out(torch.zeros_like(y))))
    mean = y.mean((0, 1)).expand_as(y)
    assert found.ce_mean == pytest.approx(loss(read_out(mean)), rel=1e-6)
    kl = (logits.softmax(-1) * (logits.log_softmax(-1) - replaced.log_softmax(-1))).sum(-1).mean().item()
    assert found.kl == pytest.approx(kl, rel=1e-6)
    z = torch.relu(x @ coder.W_enc + coder.b_enc)
    assert found.l0 == pytest.approx((z > 0).sum(-1).double().mean().item())
    assert found.fvu == pytest.approx((((coder(x) - y) ** 2).sum() / ((y - mean) ** 2).sum()).item())
    assert found.dead == pytest.approx(((z > 0).flatten(0, 1).double().mean(0) <= 1e-4).double().mean().item())


def test_everything_is_as_before_after_an_exception() -> None:
    model, coders = circuit_toys.model(), circuit_toys.coders()
    before, weights = model(TEXTS), {name: weight.clone() for name, weight in model.named_parameters()}
    with pytest.raises(RuntimeError, match="on purpose"), replace_mlps(model, coders):
        assert not torch.allclose(model(TEXTS), before)
        raise RuntimeError("on purpose")
    assert torch.equal(model(TEXTS), before)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())


def test_it_nests_and_the_inner_one_goes_first() -> None:
    model, coders = circuit_toys.model(), circuit_toys.coders()
    with replace_mlps(model, coders):
        both = model(TEXTS)
    with replace_mlps(model, circuit_toys.coders(seed=9) | {0: coders[0]}), replace_mlps(model, {1: coders[1]}):
        assert torch.equal(model(TEXTS), both)


def test_features_and_positions_can_be_chosen() -> None:
    model, coder = circuit_toys.model(), circuit_toys.coders(skip=(1,))[1]
    kept, at = torch.tensor([3, 17]), torch.zeros(20, 8, dtype=torch.bool)
    at[:, 2] = True
    with replace_mlps(model, {1: coder}, {1: kept}, at):
        _, cache = model.run_with_cache(TEXTS)
    _, own = model.run_with_cache(TEXTS)
    x, out = own["blocks.1.ln2.hook_normalized"], cache["blocks.1.hook_mlp_out"]
    by_hand = torch.relu(coder.pre(x))[..., kept] @ coder.W_dec[kept] + coder.b_dec + x @ coder.W_skip.T
    assert torch.allclose(out[:, 2], by_hand[:, 2])
    assert torch.equal(out[:, [0, 1, 3]], own["blocks.1.hook_mlp_out"][:, [0, 1, 3]])


def test_an_autoencoder_copies_the_output() -> None:
    model = circuit_toys.model()
    coder = SparseAutoencoder(CoderConfig(12, 30, 12)).double().requires_grad_(False)
    _, cache = model.run_with_cache(TEXTS)
    with replace_mlps(model, {0: coder}):
        _, replaced = model.run_with_cache(TEXTS)
    assert torch.allclose(replaced["blocks.0.hook_mlp_out"], coder(cache["blocks.0.hook_mlp_out"]))


def test_losses_with_ablated_layers() -> None:
    model = circuit_toys.model()
    everything = replacement_loss(model, TEXTS, {0: zeros, 1: zeros})
    mean = constant(torch.zeros(12, dtype=torch.float64))
    assert replacement_loss(model, TEXTS, {0: mean, 1: mean}) == pytest.approx(everything)
    assert math.isfinite(everything) and everything != pytest.approx(replacement_loss(model, TEXTS, {}))


def test_what_does_not_fit_is_a_sentence() -> None:
    model, coders = circuit_toys.model(), circuit_toys.coders()
    with pytest.raises(CircuitError, match="layer 5 does not exist"):
        evaluate(model, 5, coders[0], TEXTS)
    with pytest.raises(CircuitError, match=r"hook_name is 'blocks.0.ln2.hook_normalized'; for layer 1"):
        evaluate(model, 1, coders[0], TEXTS)
    with pytest.raises(CircuitError, match="maps width 8 to 8, but the model's MLPs map 12"):
        evaluate(model, 0, Transcoder(CoderConfig(8, 30, 8)), TEXTS)
    with (
        pytest.raises(CircuitError, match="feature 30 does not exist"),
        replace_mlps(model, coders, {0: torch.tensor([30])}),
    ):
        pass
    with pytest.raises(CircuitError, match="tokens must be at least one text"):
        evaluate(model, 0, coders[0], TEXTS[:, :1])
