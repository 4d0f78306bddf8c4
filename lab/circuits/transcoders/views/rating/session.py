"""The blind rating: does a feature have a meaning, of a transcoder, an autoencoder, or a neuron, which the rater is not told?

The paper's raters looked at features without knowing whose they were and said of each whether it has a meaning. No program
can do that, so the reader may: a session draws live units of each kind at random and shuffles them. Hidden are a unit's
kind, number and scale, and what it does on the tokens around an example: how densely a unit fires is enough to tell most
neurons from features. A finished session is one replicate on the ledger.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab import ledger, paths
from lab.circuits.transcoders.coders.evaluation import LIVE
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.units.activations import Activations, UnitKind, Units
from lab.circuits.transcoders.units.dashboard import Dashboard, Pieces, coloured_tokens_html, dashboard
from lab.provenance import Declared, Record

SLUG, STUDY = "transcoders", "rating"
Answer = Literal["yes", "maybe", "no"]
KINDS: tuple[UnitKind, ...] = get_args(UnitKind)
BANDS, EXAMPLES = 5, 2  # of a card
MAX_CARDS, MAX_BYTES = 300, 2**20
LONGEST_WAIT = 600.0  # seconds counted for one card; a reader who went for lunch is not slow


class RatingError(ValueError):
    """A deck, an answer or a stored session cannot be used; one sentence that says why."""


@dataclass(frozen=True)
class RatingCard:
    """What the rater sees of one unit, and nothing that says which it is.

    examples   (band, pieces, the token among them on which the unit fires, how much of its maximum); 0 is the top band
    promotes, suppresses   tokens that it makes likelier and less likely, strongest first
    """

    number: int
    examples: tuple[tuple[int, tuple[str, ...], int, float], ...]
    promotes: tuple[str, ...]
    suppresses: tuple[str, ...]

    def html(self, example: int) -> str:
        """One example, the token on which the unit fires coloured by how much."""
        _, pieces, place, strength = self.examples[example]
        values = [strength if number == place else 0.0 for number in range(len(pieces))]
        return coloured_tokens_html(pieces, values, maximum=1.0, mark=place)


@dataclass(frozen=True)
class Deck:
    """The cards of one session, and the key to them: kind and number of each unit.

    coders   hex digits that name the units the cards were drawn from
    """

    seed: int
    coders: str
    cards: tuple[RatingCard, ...]
    key: tuple[tuple[UnitKind, int], ...] = field(repr=False)


def draw_cards(
    texts: Activations,
    layer: int,
    units: Mapping[UnitKind, Units],
    *,
    pieces: Pieces,
    per_kind: int = 5,
    seed: int = 0,
) -> Deck:
    """Cards of ``per_kind`` live units of each kind, drawn uniformly and shuffled; another seed, other units.

    Live is what fires on more than one token in ten thousand of the texts. Raises CircuitError for a kind that is not one,
    or has too few live units, and RatingError for a number of cards that nobody would rate.
    """
    if strange := sorted(set(units) - set(KINDS)):
        raise CircuitError(f"units: {strange[0]!r} is none of the kinds {', '.join(KINDS)}")
    if not 1 <= per_kind * len(units) <= MAX_CARDS:
        raise RatingError(f"per_kind: {per_kind} of {len(units)} kinds make no deck of 1 ... {MAX_CARDS} cards")
    generator = torch.Generator().manual_seed(seed)
    drawn: list[Dashboard] = []
    for kind in KINDS:
        if kind in units:
            drawn += _live(texts, layer, units[kind], per_kind, seed, generator, pieces)
    order = torch.randperm(len(drawn), generator=generator).tolist()
    cards = tuple(_card(number, drawn[place]) for number, place in enumerate(order))
    key = tuple((_kind(drawn[place].kind), drawn[place].unit) for place in order)
    return Deck(seed, fingerprint(units), cards, key)


def _live(
    texts: Activations, layer: int, units: Units, wanted: int, seed: int, generator: torch.Generator, pieces: Pieces
) -> list[Dashboard]:
    """The first live ones of the units in random order."""
    found: list[Dashboard] = []
    for unit in torch.randperm(units.W_enc.shape[1], generator=generator).tolist():
        if float((texts.of(layer, units, unit) > 0)[texts.counted].float().mean()) > LIVE:
            found.append(
                dashboard(
                    texts.model, units, layer, texts, unit, bands=BANDS, examples=EXAMPLES, seed=seed, pieces=pieces
                )
            )
        if len(found) == wanted:
            return found
    raise CircuitError(
        f"per_kind: only {len(found)} units of kind {units.kind!r} are live on these texts, not {wanted}"
    )


def _card(number: int, board: Dashboard) -> RatingCard:
    examples = []
    for _, rows in board.examples.groupby("example"):
        place = int(rows["centre"].to_numpy().argmax())
        strength = round(float(rows["value"].iloc[place]) / board.maximum, 2)
        examples.append((int(rows["band"].iloc[0]), tuple(rows["piece"]), place, strength))
    return RatingCard(number, tuple(examples), tuple(board.top_logits["piece"]), tuple(board.bottom_logits["piece"]))


def _kind(name: str) -> UnitKind:
    return next(kind for kind in KINDS if kind == name)


def fingerprint(units: Mapping[UnitKind, Units]) -> str:
    """Sixteen hex digits of the units' weights: ratings belong to the units that were rated."""
    digest = hashlib.sha256()
    for kind in sorted(units):
        for weight in (units[kind].W_enc, units[kind].b_enc, units[kind].W_dec):
            digest.update(weight.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class Ratings(BaseModel):
    """A session as it stands: one answer a card, or None; kept in the reader's folder after every card.

    >>> session = Ratings(seed=0, coders="0" * 16, kinds=("sae", "neuron"), units=(3, 5), answers=(None, None))
    >>> session.rate(0, "yes", seconds=8).next
    1
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(ge=0)
    coders: str = Field(pattern=r"^[0-9a-f]{16}$")
    kinds: tuple[UnitKind, ...] = Field(min_length=1, max_length=MAX_CARDS)
    units: tuple[Annotated[int, Field(ge=0)], ...]
    answers: tuple[Answer | None, ...]
    seconds: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> Ratings:
        if not len(self.kinds) == len(self.units) == len(self.answers):
            raise ValueError("kinds, units and answers must be of one length")
        return self

    @classmethod
    def resume(cls, deck: Deck) -> Ratings:
        """The reader's session of a deck as far as it went, else a fresh one. Raises RatingError for a damaged file."""
        kinds, units = tuple(kind for kind, _ in deck.key), tuple(unit for _, unit in deck.key)
        fresh = cls(seed=deck.seed, coders=deck.coders, kinds=kinds, units=units, answers=(None,) * len(kinds))
        if not fresh.path.exists():
            return fresh
        stored = cls.load(fresh.path)
        same = (stored.seed, stored.coders, stored.kinds, stored.units) == (deck.seed, deck.coders, kinds, units)
        return stored if same else fresh

    @classmethod
    def load(cls, path: Path) -> Ratings:
        """Read a session. Raises RatingError naming the file when it is too large, damaged or no session."""
        try:
            return cls.model_validate_json(_bounded(path))
        except ValidationError as error:
            raise RatingError(
                f"{path} is no rating session ({error.errors()[0]['msg']}); delete it to rate anew"
            ) from error

    @property
    def path(self) -> Path:
        """Where it is kept, in the reader's folder."""
        return paths.user_folder("ratings", SLUG) / f"{self.coders}-{self.seed}.json"

    @property
    def next(self) -> int | None:
        """The first card without an answer; None when it is finished."""
        return next((number for number, answer in enumerate(self.answers) if answer is None), None)

    def rate(self, number: int, answer: Answer, *, seconds: float = 0.0) -> Ratings:
        """The session with one more answer (or another one), and the seconds it took."""
        if not 0 <= number < len(self.answers):
            raise RatingError(f"number: there is no card {number}; they are 0 ... {len(self.answers) - 1}")
        if answer not in get_args(Answer):
            raise RatingError(f"answer must be one of {', '.join(get_args(Answer))}, got {answer!r}")
        if not 0 <= seconds < math.inf:
            raise RatingError(f"seconds must be a finite number of at least 0, got {seconds}")
        answers = (*self.answers[:number], answer, *self.answers[number + 1 :])
        took = self.seconds + min(seconds, LONGEST_WAIT)
        return self.model_copy(update={"answers": answers, "seconds": took})

    def save(self) -> Path:
        """Keep it; the file is the old one or the new one, never half of it."""
        paths.write_atomic(self.path, self.model_dump_json(indent=1))
        return self.path

    def shares(self) -> dict[str, float]:
        """The ledger's columns of a finished session: "transcoder_yes" and so on, each kind's share of "yes"."""
        if self.next is not None:
            raise RatingError(f"card {self.next} has no answer yet; a session counts when it is finished")
        return {
            f"{kind}_yes": counts["yes"] / sum(counts.values()) for kind, counts in summarise([self]).counts.items()
        }


@dataclass(frozen=True)
class Comparison:
    """Transcoder against a baseline: the difference of their shares of "yes", its 95 % interval, Fisher's exact p."""

    baseline: UnitKind
    difference: float
    interval: tuple[float, float]
    p: float


@dataclass(frozen=True)
class Summary:
    """Answers counted by kind, and the transcoder compared with each other kind."""

    counts: dict[UnitKind, dict[Answer, int]]
    comparisons: tuple[Comparison, ...]


def summarise(sessions: Sequence[Ratings]) -> Summary:
    """What the answers of some sessions say together; cards without an answer are left out.

    The interval is Newcombe's, of two Wilson intervals; it holds for the few cards of a session too.
    """
    given = [pair for one in sessions for pair in zip(one.kinds, one.answers, strict=True)]
    counts: dict[UnitKind, dict[Answer, int]] = {
        kind: {answer: given.count((kind, answer)) for answer in get_args(Answer)} for kind in KINDS
    }
    counts = {kind: found for kind, found in counts.items() if sum(found.values())}
    others = [kind for kind in counts if kind != "transcoder"] if "transcoder" in counts else []
    return Summary(counts, tuple(_compared(kind, counts["transcoder"], counts[kind]) for kind in others))


def _compared(baseline: UnitKind, ours: dict[Answer, int], theirs: dict[Answer, int]) -> Comparison:
    from scipy.stats import binomtest, fisher_exact

    table = [(found["yes"], sum(found.values()) - found["yes"]) for found in (ours, theirs)]
    (one, low_one, high_one), (other, low_other, high_other) = (
        (yes / (yes + rest), *binomtest(yes, yes + rest).proportion_ci(method="wilson")) for yes, rest in table
    )
    low = one - other - math.hypot(one - low_one, high_other - other)
    high = one - other + math.hypot(high_one - one, other - low_other)
    return Comparison(baseline, one - other, (low, high), float(fisher_exact(table).pvalue))


def sessions(coders: str) -> list[Ratings]:
    """The reader's sessions about some units, by seed; files that cannot be read are left out."""
    found = []
    for path in paths.user_folder("ratings", SLUG).glob(f"{coders}-*.json"):
        try:
            found.append(Ratings.load(path))
        except RatingError:
            continue
    return sorted((one for one in found if one.coders == coders), key=lambda one: one.seed)


def put_on_ledger(about: Declared, coders: str) -> int:
    """Make the reader's ledger say what their finished sessions about these units say; how many those are.

    One row a session, with its seed, as `lab measure` writes them: they are the reader's measurements, not the lab's.
    """
    folder = ledger.own_folder(about)
    finished = {one.seed: one for one in sessions(coders) if one.next is None}
    for path in folder.glob("*.json"):
        if path.stem not in {str(seed) for seed in finished}:
            path.unlink()
    for seed, one in finished.items():
        config = {"coders": coders, "cards": len(one.answers)}
        record = Record.now(about, one.seconds, config=config, opened={})
        ledger.keep(about, seed, one.shares(), record, replication="sampling")
    return len(finished)


def _bounded(path: Path) -> bytes:
    """A file of the reader's folder, refused before it is read when it is larger than any of ours."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RatingError(f"{path} is larger than {MAX_BYTES:,} bytes, so it is none of the lab's; delete it")
        return path.read_bytes()
    except OSError as error:
        raise RatingError(f"{path} cannot be read ({error.strerror or error})") from error
