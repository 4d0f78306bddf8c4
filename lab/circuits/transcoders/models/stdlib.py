"""What `stdlib-gpt` reads: texts to train coders on and to look features up in, prompts, and tokens as people see them.

Every text starts with the boundary token, as in the official training, where each context begins with one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from lab import assets
from lab.cache import cached
from lab.circuits.transcoders.errors import HookedError
from lab.circuits.transcoders.hooked import HookedGPT
from lab.models import stdlib_gpt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Part = Literal["seen", "held_out"]
BOS = 0  # the boundary token
SEEN_AS = {"\n": "↵", "\t": "⇥", "\r": "␍"}


@dataclass(frozen=True)
class StdlibTexts:
    """Stretches of `length` tokens of Python's standard library, the first token replaced by the boundary.

    part     "seen": the modules that the model was trained on; "held_out": those it never saw
    length   tokens a text, the boundary included

    ``texts[numbers]`` is [n, length]; a text's number is where it begins in the stream, so neighbours overlap.
    Raises HookedError for another part, a length that the model cannot read, and numbers that do not exist.

    >>> StdlibTexts("held_out", length=8)[torch.tensor([0, 100])].shape
    torch.Size([2, 8])
    """

    part: Part = "seen"
    length: int = 128

    def __post_init__(self) -> None:
        if self.part not in get_args(Part):
            raise HookedError(f"part must be one of {', '.join(get_args(Part))}, got {self.part!r}")
        if not 2 <= self.length <= stdlib_gpt.CONTEXT:
            raise HookedError(f"length must lie in 2 ... {stdlib_gpt.CONTEXT} tokens, got {self.length}")

    def __len__(self) -> int:
        return len(_stream(self.part)) - self.length + 1

    def __getitem__(self, index: Int[Tensor, " n"]) -> Int[Tensor, "n t"]:
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(self)):
            raise HookedError(
                f"texts are numbered 0 ... {len(self) - 1}, got {int(index.min())} ... {int(index.max())}"
            )
        tokens = stdlib_gpt.Windows(_stream(self.part), self.length)[index]
        tokens[:, 0] = BOS
        return tokens

    def spaced(self, count: int) -> Int[Tensor, "n t"]:
        """``count`` texts at equal distances through the whole part; they overlap only where there is no room.

        >>> StdlibTexts("held_out", length=8).spaced(3).shape
        torch.Size([3, 8])
        """
        if count < 1:
            raise HookedError(f"count must be at least 1 text, got {count}")
        return self[torch.linspace(0, len(self) - 1, count, dtype=torch.float64).long()]


@cached(maxsize=None)
def _stream(part: Part) -> Tensor:
    seen, held_out = stdlib_gpt.split()
    encoded = _tokenizer().encode_batch(list((seen if part == "seen" else held_out).values()), add_special_tokens=False)
    return torch.tensor([token for text in encoded for token in (BOS, *text.ids)])


@cached(maxsize=None)
def hooked() -> HookedGPT:
    """`stdlib-gpt` as circuits are read in it; loaded once. Raises AssetError when the shipped model is damaged.

    >>> hooked().cfg.n_layers, hooked().cfg.d_model
    (4, 256)
    """
    return HookedGPT.from_transformers(stdlib_gpt.load()[0])


def encode_prompt(text: str, *, bos: bool = True) -> Int[Tensor, " t"]:
    """A prompt's tokens, the boundary before them unless ``bos`` is false.

    Raises HookedError when there is nothing to read, or more than the model's context holds.

    >>> pieces(encode_prompt("def f(x):"))
    ['<|endoftext|>', 'def', ' f', '(', 'x', '):']
    """
    found = _tokenizer().encode(text, add_special_tokens=False).ids
    if not found:
        raise HookedError("text: the prompt is empty; it needs at least one character")
    tokens = [BOS, *found] if bos else found
    if len(tokens) > stdlib_gpt.CONTEXT:
        spare = " and the boundary before them" if bos else ""
        raise HookedError(
            f"text: the prompt has {len(found)} tokens; the model reads {stdlib_gpt.CONTEXT - bos} at most{spare}"
        )
    return torch.tensor(tokens)


def pieces(tokens: Iterable[int] | Int[Tensor, " t"]) -> list[str]:
    r"""The text of each token: blanks as they are, line ends as ↵, tabs as ⇥, bytes that are no character as \xNN.

    Raises HookedError for a token outside the vocabulary.

    >>> pieces(encode_prompt("x = 1\n\ty", bos=False))
    ['x', ' =', ' 1', '↵', '⇥', 'y']
    """
    known = _vocabulary()
    wanted = tokens.tolist() if isinstance(tokens, Tensor) else [int(token) for token in tokens]
    if outside := [token for token in wanted if not 0 <= token < len(known)]:
        raise HookedError(f"token {outside[0]} does not exist; the vocabulary is 0 ... {len(known) - 1}")
    return [known[token] for token in wanted]


@cached(maxsize=None)
def _tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(assets.folder(stdlib_gpt.NAME) / "tokenizer.json"))


@cached(maxsize=None)
def _vocabulary() -> tuple[str, ...]:
    tokenizer, letters = _tokenizer(), _letters()
    names = [str(tokenizer.id_to_token(token)) for token in range(tokenizer.get_vocab_size())]
    return tuple(name if name == stdlib_gpt.BOUNDARY else _shown(bytes(letters[c] for c in name)) for name in names)


def _letters() -> dict[str, int]:
    """Byte-level encodings write each byte as one printable letter: itself where it is one, else the next after 255."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _shown(raw: bytes) -> str:
    text = raw.decode("utf-8", errors="backslashreplace")
    return "".join(SEEN_AS.get(c, c if c.isprintable() else c.encode("unicode_escape").decode()) for c in text)
