"""Readings without text, each against the run of a model that does what the reading says it would."""

from __future__ import annotations

import circuit_toys
import numpy as np
import pytest
import torch
from torch import Tensor

from lab.circuits.transcoders.coders.coder import CoderConfig, Transcoder
from lab.circuits.transcoders.errors import CircuitError, HookedError
from lab.circuits.transcoders.hooked import HookedGPT, embedding
from lab.circuits.transcoders.units.activations import Activations, Neurons
from lab.circuits.transcoders.units.weight_readings import (
    agreement,
    decoder_direction,
    deembed,
    encoder_direction,
    logit_lens,
    mean_strength,
    ov_norms,
    pullback,
    strong,
    through_head,
)

TEXTS = torch.randint(0, circuit_toys.VOCABULARY, (20, 8), generator=torch.Generator().manual_seed(7))
CODERS = circuit_toys.coders()


def without_positions(layers: int) -> HookedGPT:
    model = circuit_toys.model(layers)
    model.W_pos.zero_()
    return model


def test_the_pullback_is_what_a_feature_adds_to_a_later_one() -> None:
    """Write a feature into layer 0's output, with scales frozen and no attention in between, and watch layer 1."""
    model, target = circuit_toys.model(), CODERS[1].W_enc[:, 5]
    model.W_O[1] = 0
    tokens = circuit_toys.prompt()[None]
    logits, cache = model.run_with_cache(tokens)
    found = pullback(target, CODERS[0])
    for feature in (0, 7, 29):
        edits = {"blocks.0.hook_mlp_out": lambda out, it=feature: out + CODERS[0].W_dec[it]}
        after = model.run_with_cache(tokens, frozen=cache, edits=edits)[1]
        read = [some["blocks.1.ln2.hook_normalized"] @ target for some in (cache, after)]
        added = (read[1] - read[0]) * cache["blocks.1.ln2.hook_scale"][..., 0]
        torch.testing.assert_close(added, found[feature].expand_as(added))


def test_the_pullback_is_a_column_of_the_product_of_decoder_and_encoder() -> None:
    encoder = CODERS[1].W_enc - CODERS[1].W_enc.mean(0)
    torch.testing.assert_close(pullback(encoder_direction(CODERS[1], 4), CODERS[0]), (CODERS[0].W_dec @ encoder)[:, 4])


def single_token_runs(model: HookedGPT, name: str) -> tuple[Tensor, dict[str, Tensor]]:
    cache = model.run_with_cache(torch.arange(circuit_toys.VOCABULARY)[:, None])[1]
    return cache[name], cache


@pytest.mark.parametrize("head", [0, 1])
def test_deembedding_through_a_head_is_what_single_token_prompts_show(head: int) -> None:
    model, vector = without_positions(1), encoder_direction(CODERS[0], 3)
    z, cache = single_token_runs(model, "blocks.0.attn.hook_z")
    brought = (z[:, 0, head] - model.b_V[0, head]) @ model.W_O[0, head] @ vector
    torch.testing.assert_close(deembed(model, vector, (0, head)), brought * cache["blocks.0.ln1.hook_scale"][:, 0, 0])


def test_extended_deembedding_is_what_single_token_prompts_show() -> None:
    model, vector = without_positions(2), encoder_direction(CODERS[1], 3)
    stream, cache = single_token_runs(model, "blocks.1.hook_resid_pre")
    torch.testing.assert_close(deembed(model, vector, extended=True), stream[:, 0] @ vector)
    z = cache["blocks.1.attn.hook_z"][:, 0, 1] - model.b_V[1, 1]
    scale = cache["blocks.1.ln1.hook_scale"][:, 0, 0]
    torch.testing.assert_close(deembed(model, vector, (1, 1), extended=True), z @ model.W_O[1, 1] @ vector * scale)


def test_the_extended_embedding_knows_no_position() -> None:
    model = circuit_toys.model(2)
    torch.testing.assert_close(embedding(model, extended=True), embedding(without_positions(2), extended=True))
    assert torch.equal(embedding(model), model.W_E)


def test_direct_deembedding_of_one_tokens_embedding_finds_that_token() -> None:
    model = circuit_toys.model()
    model.W_E.copy_(torch.eye(circuit_toys.VOCABULARY, circuit_toys.WIDTH))
    for token in range(circuit_toys.VOCABULARY):
        assert int(deembed(model, model.W_E[token]).argmax()) == token


def test_ov_norms_head_by_head() -> None:
    model, vector = circuit_toys.model(3), encoder_direction(CODERS[0], 9)
    found = ov_norms(model, vector)
    for layer in range(3):
        for head in range(2):
            brought = model.W_V[layer, head] @ model.W_O[layer, head] @ vector
            torch.testing.assert_close(found[layer, head], (brought - brought.mean()).norm())
            torch.testing.assert_close(found[layer, head], through_head(model, (layer, head), vector).norm())


def test_the_logit_lens_is_what_writing_the_feature_adds() -> None:
    model, tokens = circuit_toys.model(), circuit_toys.prompt()[None]
    logits, cache = model.run_with_cache(tokens)
    for units in (CODERS[1], Neurons(model, 1)):
        edits = {"blocks.1.hook_resid_post": lambda x, it=units: x + 2 * decoder_direction(it, 6)}
        added = (model(tokens, frozen=cache, edits=edits) - logits) * cache["ln_final.hook_scale"]
        torch.testing.assert_close(added, (2 * logit_lens(model, units, 6)).expand_as(added))


def test_mean_strength_token_by_token() -> None:
    model = circuit_toys.model()
    names = [f"blocks.{layer}.ln2.hook_normalized" for layer in (0, 1)]
    texts = Activations.collect(model, TEXTS, names, dtype=torch.float64)
    cache = model.run_with_cache(TEXTS)[1]
    early, late = (CODERS[layer].encode(cache[names[layer]]) for layer in (0, 1))
    z = late[:, 1:, 5]
    least = np.percentile(z[z > 0].numpy(), 20)
    total, count = torch.zeros(30, dtype=torch.float64), 0
    for text in range(20):
        for token in range(1, 8):
            if late[text, token, 5] >= least:
                total += early[text, token] * (CODERS[0].W_dec @ encoder_direction(CODERS[1], 5))
                count += 1
    where = strong(texts.of(1, CODERS[1], 5), texts.counted)
    assert int(where.sum()) == count and 0 < count < int((z > 0).sum())
    found = mean_strength(texts, 0, CODERS[0], encoder_direction(CODERS[1], 5), where)
    torch.testing.assert_close(found, total / count)


def test_a_feature_that_never_fires_is_strong_nowhere() -> None:
    nowhere = strong(torch.zeros(3, 4))
    assert not bool(nowhere.any())
    assert strong(torch.tensor([[0.0, 2.0]])).tolist() == [[False, True]]
    texts = Activations.collect(circuit_toys.model(), TEXTS, ["blocks.0.ln2.hook_normalized"])
    with pytest.raises(CircuitError, match="where"):
        mean_strength(texts, 0, CODERS[0], encoder_direction(CODERS[1], 5), torch.zeros_like(TEXTS, dtype=torch.bool))


def test_agreement_is_full_with_itself_and_none_with_its_opposite() -> None:
    ranking = torch.randn(40, generator=torch.Generator().manual_seed(0))
    assert agreement(ranking, 3 * ranking + 1, 10) == 1 and agreement(ranking, -ranking, 20) == 0
    for k in (0, 41):
        with pytest.raises(CircuitError, match="k must lie in 1"):
            agreement(ranking, ranking, k)


def test_what_is_not_there_is_a_sentence() -> None:
    model, vector = circuit_toys.model(), torch.ones(circuit_toys.WIDTH, dtype=torch.float64)
    for read in (encoder_direction, decoder_direction):
        for feature in (-1, 30):
            with pytest.raises(CircuitError, match=f"feature {feature} does not exist; the coder has 30"):
                read(CODERS[0], feature)
    with pytest.raises(CircuitError, match="neuron 20 does not exist; the MLP has 20"):
        logit_lens(model, Neurons(model, 0), 20)
    with pytest.raises(CircuitError, match="layer 2 does not exist"):
        Neurons(model, 2)
    with pytest.raises(CircuitError, match="target must have width 12"):
        pullback(vector[:5], CODERS[0])
    with pytest.raises(CircuitError, match="write width 6"):
        logit_lens(model, Transcoder(CoderConfig(12, 30, 6)), 0)
    for head in ((2, 0), (0, 2), (-1, 0)):
        with pytest.raises(HookedError, match=f"head {head[0]}.{head[1]} does not exist"):
            deembed(model, vector, head)
    with pytest.raises(HookedError, match="extended: head 0.1"):
        deembed(model, vector, (0, 1), extended=True)
    for read_off in (deembed, ov_norms):
        with pytest.raises(HookedError, match="vector must have the model's width 12"):
            read_off(model, vector[:5])
