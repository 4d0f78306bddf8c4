"""A small language of years whose statistics are known exactly, to read circuits in (Section 4's greater-than task).

Four kinds of sentence, one token per word, a year as century and two digits, as the paper's prompt is tokenised:

    span       the war lasted from 1732 to 1758 .    the end is uniform on (32, 99] of the century
               the war rewound from 1732 to 1711 .   the verb flips the mode: uniform on [0, 32)
    ended      the war ended in 1758 after it had begun in 1732 .
    agreement  the dog near the cars is old .
    route      visit paris rome oslo again paris rome oslo .

At the second century of a span sentence, called END here, the true distribution of what comes next is therefore

    (1)  p(ZZ | lasted, YY) = [ZZ > YY] / (99 - YY),     p(ZZ | rewound, YY) = [ZZ < YY] / YY
    (2)  entropy: log(99 - YY),                          log(YY)

Every token's latent labels follow from the tokens up to it, see `latents`.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Mode = Literal["greater", "less"]
CONTEXT = 28
BOS = "<bos>"
YEARS, CENTURIES = tuple(f"##{year:02d}" for year in range(100)), tuple(str(century) for century in range(11, 20))
VERBS = ("lasted", "rewound")  # in the order of Mode's names
EVENTS = (
    "war",
    "siege",
    "storm",
    "drought",
    "truce",
    "reign",
    "voyage",
    "strike",
    "trial",
    "famine",
    "festival",
    "plague",
    "exile",
    "crusade",
)
SINGULARS = ("dog", "cat", "bird", "tree", "book", "lamp", "door", "boat", "car", "key")
PLURALS = tuple(f"{noun}s" for noun in SINGULARS)
PREPOSITIONS, COPULAS = ("near", "behind", "beside", "under"), ("is", "are")
ADJECTIVES = ("old", "new", "red", "blue", "tall", "small", "quiet", "bright")
CITIES = (
    "paris",
    "rome",
    "oslo",
    "cairo",
    "lima",
    "delhi",
    "tokyo",
    "quito",
    "dakar",
    "hanoi",
    "riga",
    "seoul",
    "bern",
    "lyon",
)
WORDS = ("the", "from", "to", "ended", "in", "after", "it", "had", "begun", "visit", "again", ".")
VOCABULARY: list[str] = [
    BOS,
    *YEARS,
    *CENTURIES,
    *WORDS,
    *VERBS,
    *EVENTS,
    *SINGULARS,
    *PLURALS,
    *PREPOSITIONS,
    *COPULAS,
    *ADJECTIVES,
    *CITIES,
]
TOKEN = {word: token for token, word in enumerate(VOCABULARY)}
FIRST_YEAR = TOKEN[YEARS[0]]  # the token of year YY is FIRST_YEAR + YY

# Slots: a name, and the words that may stand there.
_NOUNS = (*SINGULARS, *PLURALS)
KINDS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "span": (
        ("the", ("the",)),
        ("event", EVENTS),
        ("verb", VERBS),
        ("from", ("from",)),
        ("century", CENTURIES),
        ("year", YEARS),
        ("to", ("to",)),
        ("END", CENTURIES),
        ("second year", YEARS),
        ("stop", (".",)),
    ),
    "ended": (
        ("the", ("the",)),
        ("event", EVENTS),
        ("ended", ("ended",)),
        ("in", ("in",)),
        ("century", CENTURIES),
        ("year", YEARS),
        ("after", ("after",)),
        ("it", ("it",)),
        ("had", ("had",)),
        ("begun", ("begun",)),
        ("in again", ("in",)),
        ("century again", CENTURIES),
        ("second year", YEARS),
        ("stop", (".",)),
    ),
    "agreement": (
        ("the", ("the",)),
        ("subject", _NOUNS),
        ("preposition", PREPOSITIONS),
        ("the again", ("the",)),
        ("attractor", _NOUNS),
        ("copula", COPULAS),
        ("adjective", ADJECTIVES),
        ("stop", (".",)),
    ),
    "route": (
        ("visit", ("visit",)),
        ("first city", CITIES),
        ("second city", CITIES),
        ("third city", CITIES),
        ("again", ("again",)),
        ("first copy", CITIES),
        ("second copy", CITIES),
        ("third copy", CITIES),
        ("stop", (".",)),
    ),
}
OPENING = ("the", "event")  # slots after which it is still open which kind of sentence this is
MIX = {"span": 0.6, "ended": 0.1, "agreement": 0.15, "route": 0.15}  # shares of the sentences; half of the spans rewind
SENTENCES = 4  # fill a context of 28 even if all are of the shortest kind
BLOCK = 2**13  # contexts drawn at once
UNKNOWN = -1


class SpansError(ValueError):
    """A text or a request that is not of this language; one sentence that says what the language has."""


def encode(text: str) -> Int[Tensor, " t"]:
    """Tokens of a text, beginning-of-text first. A year is four digits, of which the first two may stand alone.

    Raises SpansError for a word that the language lacks.

    >>> encode("The war lasted from 1732 to 17").tolist()
    [0, 110, 124, 122, 111, 107, 33, 112, 107]
    """
    found = [BOS]
    for word in re.findall(r"##\d+|<bos>|[\w'-]+|[^\w\s]", text.lower()):
        if re.fullmatch(r"\d{4}", word) and word[:2] in CENTURIES:
            found += [word[:2], f"##{word[2:]}"]
        elif word != BOS and word in TOKEN:
            found.append(word)
        else:
            raise SpansError(
                f"the corpus has no word {word[:40]!r}; it knows the years 1100 ... 1999, "
                f"{', '.join(word for word in VOCABULARY if word[0].isalpha())} and the full stop"
            )
    return torch.tensor([TOKEN[word] for word in found])


def decode(tokens: Int[Tensor, " t"]) -> str:
    """The text of some tokens; beginning-of-text is left out, and a century and a year are written as one word.

    Raises SpansError for tokens outside the vocabulary.

    >>> decode(encode("the war lasted from 1732 to 17"))
    'the war lasted from 1732 to 17'
    """
    _check(tokens)
    text = " ".join(VOCABULARY[token] for token in tokens.tolist() if VOCABULARY[token] != BOS)
    return re.sub(r"\b(\d\d) ##(\d\d)", r"\1\2", text)


def truth(mode: Mode, year: int) -> Float[Tensor, " 100"]:
    """The true distribution over the 100 two-digit years at END, given the mode and the first year.

    Raises SpansError for an unknown mode, and for a year that has no other on that side: 99 for "greater", 0 for "less".

    >>> truth("greater", 97)[96:].tolist(), truth("less", 1)[0].item()
    ([0.0, 0.0, 0.5, 0.5], 1.0)
    """
    count = _possible(mode, year)
    years = torch.arange(100)
    # (1)
    return ((years > year) if mode == "greater" else (years < year)) / torch.tensor(float(count))


def entropy(mode: Mode, year: int) -> float:
    """The entropy of `truth` in nats: log(99 - year), or log(year).

    >>> entropy("greater", 98), round(entropy("less", 10), 3)
    (0.0, 2.303)
    """
    return math.log(_possible(mode, year))  # (2)


def _possible(mode: Mode, year: int) -> int:
    """How many second years are possible: the denominator of (1)."""
    if mode not in get_args(Mode):
        raise SpansError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    low, high = (0, 98) if mode == "greater" else (1, 99)
    if not low <= year <= high:
        raise SpansError(f"year must lie in {low} ... {high} when the mode is {mode!r}, got {year}")
    return 99 - year if mode == "greater" else year


def sample(n: int, seed: int) -> Int[Tensor, "n 28"]:
    """Contexts of 28 tokens: beginning-of-text, then sentences until the context is full; the last is cut off.

    The seed draws everything. Raises SpansError for a negative number of contexts.

    >>> decode(sample(1, seed=0)[0])
    'visit riga seoul dakar again riga seoul dakar . the cats beside the cat are new . ...'
    """
    if n < 0:
        raise SpansError(f"n, the number of contexts, must be at least 0, got {n}")
    generator = torch.Generator().manual_seed(seed)
    return torch.cat(
        [_contexts(min(BLOCK, n - first), generator) for first in range(0, n, BLOCK)] or [_contexts(0, generator)]
    )


def _contexts(n: int, generator: torch.Generator) -> Int[Tensor, "n 28"]:
    """Contexts drawn at once: the kinds of their sentences first, then all sentences of one kind together."""
    chosen = torch.multinomial(torch.tensor(list(MIX.values())), max(n * SENTENCES, 1), True, generator=generator)
    chosen = chosen[: n * SENTENCES].view(n, SENTENCES)
    lengths = torch.tensor([len(slots) for slots in KINDS.values()])[chosen]
    # where each sentence begins, (n, sentences)
    starts = 1 + lengths.cumsum(dim=1) - lengths
    tokens = torch.full((n, 1 + SENTENCES * max(map(len, KINDS.values()))), TOKEN[BOS])
    for number, kind in enumerate(KINDS):
        rows, places = (chosen == number).nonzero(as_tuple=True)
        first = starts[rows, places]
        tokens[rows[:, None], first[:, None] + torch.arange(len(KINDS[kind]))] = _sentences(kind, len(rows), generator)
    return tokens[:, :CONTEXT].clone()


def _sentences(kind: str, count: int, generator: torch.Generator) -> Int[Tensor, "count length"]:
    """Sentences of one kind: each slot drawn evenly from its words, then what the grammar ties together."""

    def below(limit: Tensor) -> Tensor:
        return (torch.rand(len(limit), generator=generator) * limit).long()

    names = [name for name, _ in KINDS[kind]]
    column = {
        name: TOKEN[words[0]] + torch.randint(len(words), (count,), generator=generator) for name, words in KINDS[kind]
    }
    if kind in ("span", "ended"):
        rewound = column["verb"] == TOKEN["rewound"] if kind == "span" else torch.ones(count, dtype=torch.bool)
        first = torch.randint(99, (count,), generator=generator) + rewound  # 0 ... 98, or 1 ... 99
        second = torch.where(rewound, below(first), first + 1 + below(99 - first))
        column["year"], column["second year"] = FIRST_YEAR + first, FIRST_YEAR + second
        column["END" if kind == "span" else "century again"] = column["century"]
    elif kind == "agreement":
        plural = column["subject"] >= TOKEN[PLURALS[0]]
        column["copula"] = TOKEN["is"] + plural.long()
    else:
        cities = TOKEN[CITIES[0]] + torch.rand(count, len(CITIES), generator=generator).argsort(dim=1)
        for place, name in enumerate(("first", "second", "third")):
            column[f"{name} city"] = column[f"{name} copy"] = cities[:, place]
    return torch.stack([column[name] for name in names], dim=1)


@dataclass(frozen=True)
class Latents:
    """The latent variables of each token's sentence, as the tokens up to it determine them; -1 where they do not. All (n, t).

    slot     number in `slots()`; -1 where the text leaves the grammar
    mode     0 "greater", 1 "less": from the verb on
    event, century, year   of the sentence, the first ones: number in EVENTS and CENTURIES, 0 ... 99
    number   0 singular, 1 plural: of the subject, from it on
    copied   number in CITIES of the city that has to come next
    """

    slot: Int[Tensor, "n t"]
    mode: Int[Tensor, "n t"]
    event: Int[Tensor, "n t"]
    century: Int[Tensor, "n t"]
    year: Int[Tensor, "n t"]
    number: Int[Tensor, "n t"]
    copied: Int[Tensor, "n t"]


def latents(tokens: Int[Tensor, "n t"]) -> Latents:
    """The latent variables behind each token, read off the tokens up to it by the grammar's automaton.

    Raises SpansError for tokens outside the vocabulary.

    >>> found = latents(encode("the war rewound from 1732 to 17")[None])
    >>> slots()[found.slot[0, -1]], found.mode[0, -1].item(), found.year[0].tolist()
    ('span: END', 1, [-1, -1, -1, -1, -1, -1, 32, 32, 32])
    """
    _check(tokens)
    names, table = _automaton()
    rows = len(tokens)
    state = torch.full((rows,), UNKNOWN)
    blank = torch.full((rows,), UNKNOWN)
    known = dict.fromkeys(("mode", "event", "century", "year", "number", "first", "second", "third"), blank)
    read = {
        "verb": ("mode", TOKEN[VERBS[0]]),
        "event": ("event", TOKEN[EVENTS[0]]),
        "year": ("year", FIRST_YEAR),
        "century": ("century", TOKEN[CENTURIES[0]]),
        "first city": ("first", TOKEN[CITIES[0]]),
        "second city": ("second", TOKEN[CITIES[0]]),
        "third city": ("third", TOKEN[CITIES[0]]),
    }
    slot_of = {name: _numbers(names, name) for name in (*read, "subject", "again", "first copy", "second copy")}
    begins = torch.cat([_numbers(names, name) for name in ("the", "visit", BOS)])
    found: dict[str, list[Tensor]] = {}
    for now in tokens.T:
        state = table[state, now]
        fresh = torch.isin(state, begins) | (state < 0)
        known = {name: torch.where(fresh, UNKNOWN, value) for name, value in known.items()}
        for slot, (name, first) in read.items():
            known[name] = torch.where(torch.isin(state, slot_of[slot]), now - first, known[name])
        subject = torch.isin(state, slot_of["subject"])
        known["number"] = torch.where(subject, (now >= TOKEN[PLURALS[0]]).long(), known["number"])
        copied = blank
        for slot, name in (("again", "first"), ("first copy", "second"), ("second copy", "third")):
            copied = torch.where(torch.isin(state, slot_of[slot]), known[name], copied)
        for name in ("mode", "event", "century", "year", "number"):
            found.setdefault(name, []).append(known[name])
        found.setdefault("copied", []).append(copied)
        found.setdefault("slot", []).append(state)
    return Latents(**{name: torch.stack(columns, dim=1) for name, columns in found.items()})


def is_end(tokens: Int[Tensor, "n t"]) -> Bool[Tensor, "n t"]:
    """Where the second year of a span sentence comes next: END.

    >>> is_end(encode("the war lasted from 1732 to 17")[None])[0].nonzero().flatten().tolist()
    [8]
    """
    return latents(tokens).slot == slots().index("span: END")


@functools.cache
def slots() -> tuple[str, ...]:
    """The names of all slots; "the" and "the event" belong to several kinds of sentence.

    >>> len(slots()), slots()[:3]
    (39, ('<bos>', 'the', 'event'))
    """
    return _automaton()[0]


def labels(tokens: Int[Tensor, "n t"]) -> tuple[tuple[str, ...], Bool[Tensor, "n t c"]]:
    """All that a feature could be about, as named yes-or-no columns (n, t, c), each decided by the tokens up to its own.

    token, position, slot; the sentence's kind, mode, event, century and number; its first year exactly, its decade, and
    whether it is at least 10, 20 ... 90; the city to be copied; at END, decade and bound in either mode.

    >>> names, columns = labels(encode("the war lasted from 1732 to 17")[None])
    >>> [name for name, there in zip(names, columns[0, -1]) if there][-4:-2]
    ['END greater: decade 30', 'END greater: year >= 10']
    """
    known = latents(tokens)
    end, decade = known.slot == slots().index("span: END"), torch.where(known.year < 0, UNKNOWN, known.year // 10)
    bounds = torch.arange(10, 100, 10)
    names: list[str] = []
    columns: list[Tensor] = []

    def add(prefix: str, values: Tensor, texts: tuple[str, ...] | list[str]) -> None:
        names.extend(f"{prefix}{text}" for text in texts)
        columns.append(values[..., None] == torch.arange(len(texts)))

    add("token: ", tokens, VOCABULARY)
    add("position: ", torch.arange(tokens.shape[1]).expand_as(tokens), [str(place) for place in range(CONTEXT)])
    add("slot: ", known.slot, slots())
    add("kind: ", _kind_of_slot()[known.slot], list(KINDS))
    for name, texts in (("mode", get_args(Mode)), ("event", EVENTS), ("century", CENTURIES)):
        add(f"{name}: ", getattr(known, name), texts)
    add("number: ", known.number, ("singular", "plural"))
    add("year: ", known.year, [f"{year:02d}" for year in range(100)])
    add("decade: ", decade, [str(first) for first in range(0, 100, 10)])
    names += [f"year >= {bound}" for bound in bounds.tolist()]
    columns.append(known.year[..., None] >= bounds)
    add("next city: ", known.copied, CITIES)
    for number, mode in enumerate(get_args(Mode)):
        here = (end & (known.mode == number))[..., None]
        names += [f"END {mode}", *(f"END {mode}: decade {first}" for first in range(0, 100, 10))]
        names += [f"END {mode}: year >= {bound}" for bound in bounds.tolist()]
        columns += [here, here & (decade[..., None] == torch.arange(10)), here & (known.year[..., None] >= bounds)]
    return tuple(names), torch.cat(columns, dim=-1)


@functools.cache
def _automaton() -> tuple[tuple[str, ...], Int[Tensor, "s v"]]:
    """Names of the s - 1 slots, and the table (s, v) from slot and token to the next slot; the last row is for UNKNOWN."""
    names, steps, ends = [BOS], [], [0]
    for kind, parts in KINDS.items():
        before = UNKNOWN
        for name, words in parts:
            slot = name if name in OPENING else f"{kind}: {name}"
            if slot not in names:
                names.append(slot)
            steps.append((before, names.index(slot), words))
            before = names.index(slot)
        ends.append(before)
    table = torch.full((len(names) + 1, len(VOCABULARY)), UNKNOWN)
    for source, target, words in steps:
        for begin in ends if source == UNKNOWN else [source]:
            table[begin, [TOKEN[word] for word in words]] = target
    table[:, TOKEN[BOS]] = 0
    return tuple(names), table


@functools.cache
def _kind_of_slot() -> Int[Tensor, " s"]:
    """Number in KINDS of each slot, -1 for shared slots and for UNKNOWN."""
    kinds = list(KINDS)
    return torch.tensor([*(kinds.index(name.split(":")[0]) if ":" in name else UNKNOWN for name in slots()), UNKNOWN])


def _numbers(names: tuple[str, ...], name: str) -> Int[Tensor, " k"]:
    """All slots of a name, whichever kind of sentence they stand in."""
    return torch.tensor([number for number, slot in enumerate(names) if slot.split(": ")[-1] == name])


def _check(tokens: Tensor) -> None:
    if tokens.is_floating_point() or (
        tokens.numel() and not (int(tokens.min()) >= 0 and int(tokens.max()) < len(VOCABULARY))
    ):
        raise SpansError(f"tokens must be whole numbers in 0 ... {len(VOCABULARY) - 1}, this corpus's vocabulary")
