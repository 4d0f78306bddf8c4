"""stdlib-gpt: an ordinary GPT-2 folder whose numbers are what its card says, on text that it never saw."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from lab import assets
from lab.datasets import corpus
from lab.models import stdlib_gpt
from lab.models.stdlib_gpt import NAME, Windows, held_out_loss, load, make_tokenizer, next_token_loss, split


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load()


def test_the_library_is_split_by_module() -> None:
    seen, held_out = split()
    assert seen | held_out == corpus.source() and not set(seen) & set(held_out)
    assert 0.04 < len(held_out) / len(corpus.source()) < 0.06
    assert 0.04 < sum(map(len, held_out.values())) / sum(map(len, seen.values())) < 0.07


def test_plain_from_pretrained_reads_the_folder(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    for kind in (GPT2LMHeadModel, AutoModelForCausalLM):
        plain = kind.from_pretrained(assets.folder(NAME))
        assert plain.dtype == torch.float32 and isinstance(plain, GPT2LMHeadModel)
        assert all(torch.equal(weight, plain.state_dict()[name]) for name, weight in model.state_dict().items())
    config = model.config
    assert (config.n_layer, config.n_embd, config.vocab_size, config.n_positions) == (4, 256, 1000, 256)
    assert {tensor.dtype for tensor in assets.tensors(NAME).values()} == {torch.float16}
    assert AutoTokenizer.from_pretrained(assets.folder(NAME)).get_vocab() == tokenizer.get_vocab()
    assert not model.training


def test_the_shipped_tokenizer_is_the_one_that_is_made(loaded: tuple[Any, Any]) -> None:
    assert loaded[1].get_vocab() == make_tokenizer().get_vocab()
    text = next(iter(split()[1].values()))
    assert loaded[1](text, verbose=False)["input_ids"] == make_tokenizer().encode(text).ids


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(text=st.text())
def test_any_text_survives_its_tokens(text: str) -> None:
    tokenizer = make_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert all(0 <= token < 1000 for token in tokenizer.encode(text).ids)


def test_the_loss_on_unseen_modules_is_the_card_s(loaded: tuple[Any, Any]) -> None:
    card = assets.card(NAME)
    with torch.no_grad():
        found = held_out_loss(loaded[0])
    assert found["held_out_loss"] == pytest.approx(card.metrics["held_out_loss"], abs=2e-3)
    assert found["held_out_bits_per_character"] == pytest.approx(card.metrics["held_out_bits_per_character"], abs=2e-3)
    assert found["held_out_perplexity"] == pytest.approx(math.exp(found["held_out_loss"]), rel=1e-3)
    counts = Counter(stdlib_gpt.tokens(split()[1].values()).tolist())
    total = counts.total()
    unigram = -sum(count / total * math.log(count / total) for count in counts.values())
    assert found["held_out_loss"] < 0.6 * unigram  # nats; what knowing the frequencies alone would give
    assert card.evaluations[-1][1]["held_out_loss"] == pytest.approx(found["held_out_loss"], abs=0.02)  # before float16


def test_the_card_s_samples_go_on_from_their_prompts() -> None:
    card = assets.card(NAME)
    assert len(card.samples) == len(stdlib_gpt.PROMPTS)
    for prompt, text in zip(stdlib_gpt.PROMPTS, card.samples, strict=True):
        assert text.removeprefix("<|endoftext|>").startswith(prompt) and len(text) > len(prompt) + 20


def test_the_loss_is_transformers_own() -> None:
    model = stdlib_gpt.new_model().eval()
    batch = torch.randint(1000, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert next_token_loss(model, batch).item() == pytest.approx(model(batch, labels=batch).loss.item(), rel=1e-6)


def test_windows_are_every_stretch() -> None:
    windows = Windows(torch.arange(10), length=4)
    assert len(windows) == 7
    assert windows[torch.tensor([0, 6])].tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]


def test_the_rate_warms_up_and_falls() -> None:
    rates = [stdlib_gpt.schedule(step) for step in range(stdlib_gpt.STEPS)]
    peak = rates.index(max(rates))
    assert max(rates) == 1.0 and abs(peak - stdlib_gpt.WARM_UP) <= 1
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(stdlib_gpt.LAST_RATE, abs=1e-3)
