"""Which language models circuits are read in: the lab's two by name, and a reader's own GPT-2 from a folder or the hub."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from lab.cache import cached
from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.hooked import HookedGPT

LanguageName = Literal["stdlib-gpt", "spans-1l"]
EXAMPLES: dict[str, str] = {
    "stdlib-gpt": "def load(path):↵    with open(",
    "spans-1l": "the war lasted from 1732 to 17",
}
STDLIB_TEXTS, SPANS_TEXTS = 256, 1200  # held-out texts of 128 and of 28 tokens: about 33,000 tokens either way
OWN_EXAMPLE = "The cat sat on the mat. The dog sat on"
TYPED = {"↵": "\n", r"\n": "\n", "⇥": "\t", r"\t": "\t", "␣": " "}
NEAR = 5  # suggestions for a token that there is not
START = "⟨start⟩"  # what a reader sees of the boundary


def _unknown() -> Tensor:
    raise CircuitError("the lab knows no held-out texts of a model of your own: units cannot be looked up over them")


@dataclass(frozen=True)
class Language:
    """A model with its transcoders, and how text becomes tokens and tokens text.

    coders    by layer
    encode    (text, with the boundary token before it) -> tokens [t]
    pieces    tokens -> what a reader sees of each
    boundary  the token that begins each training text; None where there is none
    example   a prompt to begin with
    texts     () -> texts that neither the model nor its coders saw in training, boundary first; for a reader's own model they
              are not known, and asking raises CircuitError
    """

    name: str
    model: HookedGPT
    coders: Mapping[int, Transcoder]
    encode: Callable[[str, bool], Int[Tensor, " t"]]
    pieces: Callable[[Iterable[int]], list[str]]
    boundary: int | None
    example: str
    texts: Callable[[], Int[Tensor, "n t"]] = _unknown

    @functools.cached_property
    def vocabulary(self) -> list[str]:
        """What a reader sees of every token."""
        return self.pieces(range(self.model.cfg.d_vocab))

    def seen(self, tokens: Iterable[int]) -> list[str]:
        """`pieces`, the boundary by a name that says what it is."""
        found = [int(token) for token in tokens]
        return [
            START if token == self.boundary else piece for token, piece in zip(found, self.pieces(found), strict=True)
        ]

    def token(self, text: str, name: str) -> int:
        """The one token that a text is, as a reader sees it or as the tokenizer cuts it.

        Raises CircuitError that names the argument (`name`) and the nearest tokens.
        """
        meant = as_typed(text)
        for written in (text, meant):
            if written in self.vocabulary:
                return self.vocabulary.index(written)
        try:
            found = self.encode(meant, False).tolist()
        except ValueError:  # a word that the language lacks
            found = []
        if len(found) == 1:
            return int(found[0])
        near = dict.fromkeys([*self.pieces(found), *_near(meant, self.vocabulary)])
        listed = ", ".join(map(quoted, list(near)[:NEAR]))
        raise CircuitError(f"{name}: {quoted(text)} is not one token of {self.name}; tokens like it are {listed}")


def as_typed(text: str) -> str:
    r"""A text with line ends, tabs and blanks that were typed as signs.

    >>> as_typed("def f():↵    return␣")
    'def f():\n    return '
    """
    for sign, meant in TYPED.items():
        text = text.replace(sign, meant)
    return text


def quoted(piece: str) -> str:
    """A piece of text in a sentence, its blanks visible, many of them counted.

    >>> quoted(" self"), quoted("        x")
    ('‘␣self’', '‘␣×8x’')
    """
    return f"‘{re.sub(' {4,}', lambda blanks: f'␣×{len(blanks[0])}', piece).replace(' ', '␣')}’"


def language(name: LanguageName) -> Language:
    """One of the lab's own models with its shipped transcoders. Raises AssetError naming the repair when one is missing.

    >>> language("stdlib-gpt").model.cfg.n_layers
    4
    """
    return _spans() if name == "spans-1l" else _stdlib()


@cached(maxsize=1)
def own_language(source: str, coder_source: str = "") -> Language:
    """A GPT-2 from a folder or hub id, with transcoders from another: the last one is kept, as twelve fill gigabytes.

    coder_source   what `formats.load_coders` reads; empty: none, and every MLP stays whole

    Raises ModelError, HookedError, CircuitError and FileError for what cannot be read.
    """
    from transformers import AutoTokenizer, GPT2LMHeadModel

    from lab.circuits.transcoders.coders import formats
    from lab.circuits.transcoders.models import stdlib
    from lab.models import hub

    model = HookedGPT.from_transformers(hub.load(GPT2LMHeadModel, source, dtype=torch.float32))
    tokenizer = hub.load(AutoTokenizer, source)
    coders = formats.load_coders(coder_source) if coder_source else {}
    boundary = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    shown = str.maketrans(stdlib.SEEN_AS)

    def encode(text: str, bos: bool) -> Tensor:
        found = tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor([boundary, *found] if bos and boundary is not None else found, dtype=torch.int64)

    def pieces(tokens: Iterable[int]) -> list[str]:
        return [tokenizer.decode([int(token)]).translate(shown) for token in tokens]

    return Language(Path(source).name, model, coders, encode, pieces, boundary, OWN_EXAMPLE)


@cached(maxsize=None)
def _stdlib() -> Language:
    from lab.circuits.transcoders.models import stdlib, stdlib_assets

    def encode(text: str, bos: bool) -> Tensor:
        return stdlib.encode_prompt(text, bos=bos)

    return Language(
        "stdlib-gpt",
        stdlib.hooked(),
        stdlib_assets.stdlib_coders(),
        encode,
        stdlib.pieces,
        stdlib.BOS,
        EXAMPLES["stdlib-gpt"],
        lambda: stdlib.StdlibTexts("held_out").spaced(STDLIB_TEXTS),
    )


@cached(maxsize=None)
def _spans() -> Language:
    from lab.circuits.transcoders.models import spans_1l, spans_assets
    from lab.circuits.transcoders.models.spans_sweep import LAMBDAS, YEARS_LAMBDA
    from lab.datasets import spans

    def encode(text: str, bos: bool) -> Tensor:
        return spans.encode(text)[0 if bos else 1 :]

    def pieces(tokens: Iterable[int]) -> list[str]:
        return [spans.VOCABULARY[int(token)] for token in tokens]

    coders = {0: spans_assets.spans_coders()["transcoder", LAMBDAS[YEARS_LAMBDA]]}
    return Language(
        "spans-1l",
        spans_1l.load(),
        coders,
        encode,
        pieces,
        spans.TOKEN[spans.BOS],
        EXAMPLES["spans-1l"],
        lambda: spans_1l.texts(0, "measure", SPANS_TEXTS),
    )


def _near(text: str, vocabulary: list[str]) -> list[str]:
    """Tokens that are the text but for blanks and marks around it, then such that look like it."""
    wanted = text.strip()
    same = [piece for piece in vocabulary if wanted and piece.strip(" #") == wanted]
    bare = {piece.strip(): piece for piece in reversed(vocabulary)}
    return same + [bare[name] for name in difflib.get_close_matches(wanted, bare, n=NEAR, cutoff=0.0)]
