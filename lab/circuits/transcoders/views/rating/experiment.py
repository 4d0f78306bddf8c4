"""The blind rating as an experiment: which cards a session deals, and what the answers of several sessions say together.

Answers are the reader's and no result of a config: they are kept by `rating.Ratings` and counted by `outcome`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, get_args

from lab.circuits.transcoders.models.languages import language
from lab.circuits.transcoders.views import browse
from lab.circuits.transcoders.views.features.experiment import LAYERS
from lab.circuits.transcoders.views.rating.session import (
    KINDS,
    Answer,
    Comparison,
    Deck,
    RatingCard,
    Ratings,
    draw_cards,
    summarise,
)
from lab.experiment import Config, Progress, experiment, knob, no_progress

PER_KIND = 5  # cards of each kind: a session of some four minutes
PAPER: dict[str, dict[str, int]] = {  # stored output of the official code; its autoencoder read the MLP's input
    "transcoder": {"yes": 41, "maybe": 8, "no": 1},
    "sae": {"yes": 38, "maybe": 8, "no": 4},
}


class RatingConfig(Config):
    """Which session: another number deals other units."""

    primary: ClassVar[tuple[str, ...]] = ("session", "layer")

    session: int = knob(1, "another session deals other units; each finished one is a replicate", ge=1, le=99)
    layer: int = knob(2, "whose units are dealt", ge=0, le=LAYERS - 1)


@dataclass(frozen=True)
class RatingResult:
    """The cards of one session, and the key to them that a rater should not look at before the end.

    coders   hex digits that name the units; session: its number
    cards    a dict a card: number, examples (band, pieces, place, strength), promotes, suppresses
    kinds, units   the key, an entry a card
    """

    session: int
    coders: str
    cards: tuple[dict[str, Any], ...]
    kinds: tuple[str, ...]
    units: tuple[int, ...]

    @functools.cached_property
    def deck(self) -> Deck:
        """The cards as they are rated."""
        key = tuple(
            (next(kind for kind in KINDS if kind == name), unit)
            for name, unit in zip(self.kinds, self.units, strict=True)
        )
        return Deck(self.session, self.coders, tuple(RatingCard(**card) for card in self.cards), key)


@dataclass(frozen=True)
class Outcome:
    """What finished sessions say together.

    counts       by kind: yes, maybe, no; comparisons: the transcoder against each other kind
    sessions     how many were finished; cards: how many were rated
    """

    counts: dict[str, dict[str, int]]
    comparisons: tuple[Comparison, ...]
    sessions: int
    cards: int


@experiment("rating", "The blind rating", cost="live")
def run_rating(config: RatingConfig, *, progress: Progress = no_progress) -> RatingResult:
    """Deal the cards of a session. Raises CircuitError where a kind has too few live units, AssetError for missing coders."""
    progress(0.0, "loading model and coders")
    units = {kind: browse.units_of("stdlib-gpt", kind, config.layer) for kind in KINDS}
    texts = browse.held_out("stdlib-gpt")
    progress(0.9, "dealing the cards")
    pieces = language("stdlib-gpt").pieces
    deck = draw_cards(texts, config.layer, units, pieces=pieces, per_kind=PER_KIND, seed=config.session)
    progress(1.0, "done")
    kinds, numbers = zip(*deck.key, strict=True)
    return RatingResult(config.session, deck.coders, tuple(map(asdict, deck.cards)), kinds, numbers)


def outcome(sessions: Sequence[Ratings]) -> Outcome:
    """What those of the sessions that are finished say together.

    >>> one = Ratings(seed=1, coders="0" * 16, kinds=("transcoder", "sae"), units=(3, 5), answers=("yes", "no"))
    >>> outcome([one]).counts["sae"], outcome([one]).sessions
    ({'yes': 0, 'maybe': 0, 'no': 1}, 1)
    """
    finished = [one for one in sessions if one.next is None]
    said = summarise(finished)
    counts = {
        str(kind): {str(answer): found[answer] for answer in get_args(Answer)} for kind, found in said.counts.items()
    }
    return Outcome(counts, said.comparisons, len(finished), sum(len(one.answers) for one in finished))
