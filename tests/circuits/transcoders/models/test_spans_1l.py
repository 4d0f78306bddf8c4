"""spans-1l: the shipped weights do what the card says, and the recipe is a function of its seed."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from lab import assets, engine
from lab.circuits.transcoders.coders.evaluation import zeros
from lab.circuits.transcoders.hooked import HookedGPT, replaced_mlps
from lab.circuits.transcoders.models import greater_than, spans_1l, spans_assets
from lab.datasets import spans
from lab.datasets.spans import Mode
from lab.train import train


def test_the_shipped_model_does_what_its_card_says() -> None:
    card, model = assets.card(spans_1l.NAME), spans_1l.load()
    assert spans_1l.quality(model) == pytest.approx(card.metrics, abs=2e-3)
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())
    assert {tensor.dtype for tensor in assets.tensors(spans_1l.NAME).values()} == {torch.float32}


def test_the_shipped_model_knows_the_years_and_needs_its_mlp() -> None:
    model = spans_1l.load()
    for mode in get_args(Mode):
        given = greater_than.prompts(mode)
        whole = greater_than.measure(model, given)
        with replaced_mlps(model, {0: zeros}):
            without = greater_than.measure(model, given)
        assert whole.pd > 0.9 and whole.kl < 0.1
        assert without.kl > 4 * whole.kl


def test_the_shipped_model_knows_the_rest_of_the_grammar() -> None:
    """What the text so far decides is predicted with certainty: copied cities and centuries, and the verb's number."""
    model, texts = spans_1l.load(), spans_1l.texts(3, "measure", 200)
    sure, known = model(texts).softmax(-1), spans.latents(texts)
    names = spans.slots()
    following = sure[:, :-1].gather(-1, texts[:, 1:, None])[..., 0]
    slot = known.slot[:, 1:]
    for name in ("span: END", "ended: century again", "agreement: copula", "route: second copy", "span: stop"):
        assert following[slot == names.index(name)].mean() > 0.97, name


def test_a_seed_s_parts_have_different_texts() -> None:
    drawn = [spans_1l.texts(seed, part, 20) for seed in (0, 1) for part in spans_1l.PARTS]
    assert all(not torch.equal(one, two) for place, one in enumerate(drawn) for two in drawn[:place])
    assert torch.equal(drawn[0], spans_1l.texts(0, "language model", 20))
    with pytest.raises((TypeError, ValueError), match="part must be one of language model, coders, measure"):
        spans_1l.texts(0, "rest", 3)


def test_training_is_a_function_of_the_seed_and_leaves_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    with engine.one_thread():
        one, again, other = (spans_1l.train_lm(seed, steps=2) for seed in (7, 7, 8))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in one.state_dict().items())
    assert not torch.equal(one.W_E, other.W_E)


def test_training_goes_down() -> None:
    done = train(replace(spans_1l.recipe(5, steps=12), schedule=lambda step: 1.0))
    first, last = done.curve[0][1], done.curve[-1][1]
    assert last < 0.75 * first


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    steps = 1000
    recipe = spans_1l.recipe(0, steps)
    rates = [recipe.schedule(step) for step in range(steps)]
    peak = rates.index(max(rates))
    assert abs(peak - spans_1l.WARM_UP) <= 1 and rates[0] < 0.02 and rates[-1] < 1e-4
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_stream_s_scale_is_free_and_fixed_where_the_mlp_s_output_is_as_long_as_its_input() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = HookedGPT(spans_1l.CONFIG)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
        scaled, texts = spans_1l.rescaled(model), spans_1l.texts(4, "measure", 100)
        cache = scaled.run_with_cache(texts)[1]
        assert torch.allclose(scaled(texts), model(texts), atol=1e-3)
    lengths = [
        cache[f"blocks.0.{place}"].norm(dim=-1).mean().item() for place in ("ln2.hook_normalized", "hook_mlp_out")
    ]
    assert lengths == pytest.approx([128**0.5] * 2, rel=0.02)


def test_loading_leaves_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    spans_1l.load()
    assert torch.equal(before, torch.get_rng_state())


def test_the_shipped_coders_are_all_there() -> None:
    coders, card = spans_assets.spans_coders(), assets.card(spans_assets.NAME)
    assert sorted(coders) == sorted((kind, lam) for kind in ("transcoder", "sae") for lam in spans_assets.LAMBDAS)
    for (kind, _), coder in coders.items():
        assert coder.kind == kind and coder.cfg.model_name == spans_1l.NAME
        assert torch.allclose(coder.W_dec.norm(dim=1), torch.ones(coder.cfg.d_sae), atol=2e-3)
    for kind in ("transcoder", "sae"):
        l0 = [card.metrics[f"{kind}_{place}_l0"] for place in range(4)]
        assert l0 == sorted(l0, reverse=True), "the dearer activation is, the less there is of it"
        assert all(card.metrics[f"{kind}_{place}_recovered"] > 0.98 for place in range(4))
