"""The hooked GPT is GPT-2, to the logits; it can be frozen, edited, stopped, and refuses what it cannot read."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import circuit_toys
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lab.circuits.transcoders.errors import HookedError
from lab.circuits.transcoders.hooked import HookedConfig, HookedGPT, replaced_mlps


def gpt2(**more: object) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    options = {"vocab_size": 30, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3} | more
    model = GPT2LMHeadModel(GPT2Config(**options)).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


TOKENS = torch.tensor([[1, 5, 29, 0, 7], [3, 3, 2, 1, 0]])


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
def test_logits_are_those_of_transformers(activation: str) -> None:
    model = gpt2(activation_function=activation)
    with torch.no_grad():
        theirs = model(TOKENS).logits
        assert torch.allclose(HookedGPT.from_transformers(model, center=False)(TOKENS), theirs, atol=1e-9)
        centred = HookedGPT.from_transformers(model)(TOKENS)
    apart = centred - theirs
    assert torch.allclose(apart, apart[..., :1].expand_as(apart), atol=1e-9)  # a constant a position


def test_a_centred_stream_has_mean_zero_everywhere() -> None:
    _, cache = HookedGPT.from_transformers(gpt2()).run_with_cache(TOKENS)
    for name, value in cache.items():
        if "resid" in name or name.endswith("_out"):
            assert value.mean(-1).abs().max() < 1e-12, name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False"),
    ],
)
def test_options_that_change_the_formula_are_refused(options: dict[str, bool], said: str) -> None:
    with pytest.raises(HookedError, match=said):
        HookedGPT.from_transformers(gpt2(**options))


def test_another_architecture_is_refused() -> None:
    with pytest.raises(HookedError, match="not 'llama'"):
        HookedGPT.from_transformers(SimpleNamespace(config=SimpleNamespace(model_type="llama")))


def test_a_transformer_lens_model_is_read_by_its_names() -> None:
    ours = circuit_toys.model()
    theirs = SimpleNamespace(**{name: weight for name, weight in ours.named_parameters()})
    theirs.cfg = SimpleNamespace(
        n_layers=2,
        d_model=12,
        n_heads=2,
        d_head=5,
        d_mlp=20,
        n_ctx=10,
        d_vocab=11,
        act_fn="gelu_new",
        eps=1e-5,
        model_name="toy",
        normalization_type="LNPre",
        positional_embedding_type="standard",
    )
    tokens = circuit_toys.prompt()[None]
    assert torch.allclose(HookedGPT.from_transformer_lens(theirs, center=False)(tokens), ours(tokens))
    theirs.cfg.positional_embedding_type = "rotary"
    with pytest.raises(HookedError, match="'rotary'"):
        HookedGPT.from_transformer_lens(theirs)
    theirs.cfg.normalization_type = "LN"
    with pytest.raises(HookedError, match="fold_ln=True"):
        HookedGPT.from_transformer_lens(theirs)


def test_frozen_at_its_own_values_nothing_changes() -> None:
    model, tokens = circuit_toys.model(), circuit_toys.prompt()[None]
    logits, cache = model.run_with_cache(tokens)
    assert set(cache) == set(model.hook_names())
    assert torch.allclose(model(tokens, frozen=cache), logits, atol=1e-12)
    stream, _ = model.run_with_cache(tokens, names=frozenset(), stop_at=1)
    assert torch.equal(stream, cache["blocks.1.hook_resid_pre"])


def test_an_edit_acts_where_it_says() -> None:
    model, tokens = circuit_toys.model(), circuit_toys.prompt()[None]
    _, cache = model.run_with_cache(tokens, edits={"blocks.0.hook_mlp_out": torch.zeros_like})
    assert torch.equal(cache["blocks.0.hook_resid_post"], cache["blocks.0.hook_resid_mid"])


def test_replacing_an_mlp_by_itself_changes_nothing_and_stays_in_its_thread() -> None:
    model, tokens = circuit_toys.model(), circuit_toys.prompt()[None]
    before, elsewhere = model(tokens), []
    with replaced_mlps(model, {1: lambda x, y: model.mlp(1, x)}):
        assert torch.allclose(model(tokens), before)
    with replaced_mlps(model, {1: lambda x, y: torch.zeros_like(y)}):
        thread = threading.Thread(target=lambda: elsewhere.append(model(tokens)))
        thread.start()
        thread.join()
        assert not torch.allclose(model(tokens), before)
    assert torch.equal(elsewhere[0], before) and torch.equal(model(tokens), before)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (torch.zeros(1, 0, dtype=torch.int64), "the prompt is empty"),
        (torch.zeros(1, 11, dtype=torch.int64), "has 11 tokens, the model reads 10"),
        (torch.tensor([[0, 11]]), "0 ... 10"),
        (torch.tensor([[-1, 1]]), "0 ... 10"),
        (torch.tensor([[0.0, 1.0]]), "tokens"),
        (torch.tensor([0, 1]), "tokens"),
    ],
)
def test_what_it_cannot_read_is_a_sentence(tokens: torch.Tensor, said: str) -> None:
    with pytest.raises((HookedError, TypeError), match=said):
        circuit_toys.model()(tokens)


def test_places_and_sizes_that_do_not_exist() -> None:
    model, tokens = circuit_toys.model(), circuit_toys.prompt()[None]
    with pytest.raises(HookedError, match=r"no hook 'blocks.7.hook_mlp_out'"):
        model.run_with_cache(tokens, names=frozenset({"blocks.7.hook_mlp_out"}))
    with pytest.raises(HookedError, match="no hook 'nowhere' to edit"):
        model(tokens, edits={"nowhere": torch.zeros_like})
    with pytest.raises(HookedError, match="layer 2 does not exist"), replaced_mlps(model, {2: lambda x, y: y}):
        pass
    with pytest.raises(HookedError, match="d_head must be at least 1"):
        HookedConfig(1, 8, 2, 0, 16, 10, 5)
    with pytest.raises(HookedError, match="activation must be one of"):
        HookedConfig(1, 8, 2, 4, 16, 10, 5, activation="silu")
