"""Texts, prompts and pieces of `stdlib-gpt`, against the source they come from."""

from __future__ import annotations

import pytest
import torch

from lab.circuits.transcoders.errors import HookedError
from lab.circuits.transcoders.models.stdlib import BOS, StdlibTexts, encode_prompt, hooked, pieces
from lab.models import stdlib_gpt


def test_texts_are_the_held_out_modules_behind_a_boundary() -> None:
    texts = StdlibTexts("held_out", length=200)
    first = next(iter(stdlib_gpt.split()[1].values()))
    found = texts[torch.tensor([0, 3])]
    assert found.shape == (2, 200) and found[:, 0].tolist() == [BOS, BOS]
    assert (found[0, 4:] == found[1, 1:-3]).all()
    shown = "".join(pieces(found[0, 1:]))
    assert shown == first.replace("\n", "↵")[: len(shown)] and len(shown) > 300


def test_a_texts_own_first_token_gives_way_to_the_boundary() -> None:
    texts = StdlibTexts("held_out", length=16)
    number = torch.arange(5, 400)
    found, before = texts[number], texts[number - 1]
    assert bool((found[:, 0] == BOS).all()) and bool((found[:, 1:-1] == before[:, 2:]).all())
    assert StdlibTexts("held_out", length=16) == texts and hash(texts) == hash(StdlibTexts("held_out", length=16))


def test_spaced_texts_go_from_the_first_to_the_last_and_do_not_overlap() -> None:
    texts = StdlibTexts("held_out", length=32)
    found = texts.spaced(50)
    ends = texts[torch.tensor([0, len(texts) - 1])]
    assert (found[0] == ends[0]).all() and (found[-1] == ends[1]).all()
    assert len(texts) // 49 > 32 and len(found.unique(dim=0)) == 50


@pytest.mark.parametrize("text", ["def f(x):\n    return [x, 'a b']\n", "\t# 日本 é\r\n", "x" * 200])
def test_pieces_put_together_are_the_prompt(text: str) -> None:
    shown = "".join(pieces(encode_prompt(text, bos=False)))
    for mark, meant in (("↵", "\n"), ("⇥", "\t"), ("␍", "\r")):
        shown = shown.replace(mark, meant)
    assert shown.encode("latin-1").decode("unicode_escape").encode("latin-1").decode() == text


def test_the_boundary_goes_first_unless_it_is_not_wanted() -> None:
    with_it, without = encode_prompt("import os"), encode_prompt("import os", bos=False)
    assert with_it.tolist() == [BOS, *without.tolist()] and pieces(with_it)[0] == stdlib_gpt.BOUNDARY


def test_the_model_predicts_its_own_texts() -> None:
    model = hooked()
    for text, said in (("import os\nimport", " sys"), ("class A:\n    def __init__(", "self"), ("if x is", " None")):
        assert pieces(model(encode_prompt(text)[None])[0, -1].topk(1).indices) == [said]
    assert hooked() is model


@pytest.mark.parametrize(
    "text, said", [("", "text: the prompt is empty"), ("x = 1\n" * 100, "text: the prompt has 400")]
)
def test_a_prompt_it_cannot_read_is_a_sentence(text: str, said: str) -> None:
    with pytest.raises(HookedError, match=said):
        encode_prompt(text)


def test_the_longest_prompt_fills_the_context() -> None:
    text = " x" * (stdlib_gpt.CONTEXT - 1)
    assert len(encode_prompt(text)) == stdlib_gpt.CONTEXT
    with pytest.raises(HookedError, match="at most and the boundary"):
        encode_prompt(text + " x")


def test_bad_texts() -> None:
    with pytest.raises((TypeError, HookedError), match="part"):
        StdlibTexts("unseen")  # type: ignore[arg-type]
    with pytest.raises(HookedError, match="length must lie in 2"):
        StdlibTexts(length=1)
    texts = StdlibTexts("held_out")
    for number in (-1, len(texts)):
        with pytest.raises(HookedError, match="texts are numbered"):
            texts[torch.tensor([number])]
    with pytest.raises(HookedError, match="count must be at least 1"):
        texts.spaced(0)
    with pytest.raises(HookedError, match="token 1000 does not exist"):
        pieces([5, 1000])
