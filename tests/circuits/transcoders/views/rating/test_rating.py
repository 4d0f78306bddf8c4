"""The blind rating: what a card hides, what a session survives, what its answers say, and the way to the ledger."""

from __future__ import annotations

import functools
import json

import circuit_toys
import numpy as np
import pytest
import torch

from lab import ledger, paths
from lab.catalog import Claim
from lab.circuits.transcoders.coders.coder import CoderConfig, SparseAutoencoder
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.units.activations import Activations, Neurons, UnitKind, Units
from lab.circuits.transcoders.views.rating import session as rating
from lab.circuits.transcoders.views.rating.experiment import run_rating
from lab.circuits.transcoders.views.rating.session import (
    Answer,
    Deck,
    RatingError,
    Ratings,
    draw_cards,
    fingerprint,
    put_on_ledger,
    sessions,
    summarise,
)

READ, OUT = "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"
MODEL, CODER = circuit_toys.model(), circuit_toys.coders()[1]
TOKENS = torch.randint(0, circuit_toys.VOCABULARY, (60, 10), generator=torch.Generator().manual_seed(7))
TEXTS = Activations.collect(MODEL, TOKENS, [READ, OUT], dtype=torch.float64)
CODERS = "0123456789abcdef"


def units() -> dict[UnitKind, Units]:
    sae = SparseAutoencoder(CoderConfig(12, 30, 12, hook_name=OUT, hook_name_out=OUT)).double().requires_grad_(False)
    sae.load_state_dict(CODER.state_dict())
    return {"transcoder": CODER, "sae": sae, "neuron": Neurons(MODEL, 1)}


def pieces(tokens: object) -> list[str]:
    return [chr(97 + token) for token in tokens]  # type: ignore[attr-defined]


@functools.cache
def deck(seed: int = 0, per_kind: int = 4) -> Deck:
    return draw_cards(TEXTS, 1, units(), pieces=pieces, per_kind=per_kind, seed=seed)


def session(seed: int = 0, answers: str = "yyynymnnn", coders: str = CODERS, seconds: float = 90) -> Ratings:
    """Three cards of each kind, the answers by their first letters, "-" for none."""
    words: dict[str, Answer | None] = {"y": "yes", "m": "maybe", "n": "no", "-": None}
    kinds: tuple[UnitKind, ...] = ("transcoder",) * 3 + ("sae",) * 3 + ("neuron",) * 3
    return Ratings(
        seed=seed,
        coders=coders,
        kinds=kinds,
        units=tuple(range(9)),
        answers=tuple(words[a] for a in answers),
        seconds=seconds,
    )


# --- cards --------------------------------------------------------------------------------------------------------


def test_each_kind_has_its_share_and_no_unit_comes_twice() -> None:
    found = deck()
    kinds = [kind for kind, _ in found.key]
    assert len(found.cards) == 12 and len(set(found.key)) == 12
    assert {kind: kinds.count(kind) for kind in kinds} == {"transcoder": 4, "sae": 4, "neuron": 4}
    assert [card.number for card in found.cards] == list(range(12))


def test_a_card_tells_neither_kind_nor_number_nor_scale() -> None:
    found = deck()
    for card in found.cards:
        shown = repr(card) + "".join(card.html(number) for number in range(len(card.examples)))
        assert not any(word in shown for word in ("transcoder", "sae", "neuron", "unit", "layer"))
        assert max(strength for *_, strength in card.examples) >= 0.8, "the strongest band begins there"
        assert all(
            card.html(number).count("rgba") == 1 for number in range(len(card.examples)) if card.examples[number][3]
        )
    assert "neuron" not in repr(found)


def test_all_kinds_of_cards_have_the_same_parts() -> None:
    for card in deck().cards:
        assert len(card.promotes) == len(card.suppresses) == 10
        assert len(card.examples) <= 10 and {band for band, *_ in card.examples} <= set(range(5))
        for band, some, place, strength in card.examples:
            assert len(some) > place >= 0 and 0.8 - 0.2 * band - 0.01 <= strength <= 1 - 0.2 * band + 0.01


def test_a_seed_gives_the_same_deck_and_another_one_other_cards() -> None:
    assert deck(seed=1) == deck.__wrapped__(seed=1)
    assert deck(seed=1).key != deck(seed=2).key


def test_cards_are_shuffled() -> None:
    orders = {tuple(kind for kind, _ in deck(seed=seed, per_kind=2).key) for seed in range(6)}
    assert len(orders) > 3


def test_units_are_drawn_uniformly_from_the_live_ones() -> None:
    """Silence all but six features: none of the silent is drawn, and in 12 decks of 3 each other one is (missed: 0.0015)."""
    coder = circuit_toys.coders()[1]
    coder.b_enc[:24] = -1e6
    drawn = [
        unit
        for seed in range(12)
        for _, unit in draw_cards(TEXTS, 1, {"transcoder": coder}, pieces=pieces, per_kind=3, seed=seed).key
    ]
    counts = np.bincount(drawn, minlength=30)
    assert counts[:24].sum() == 0 and (counts[24:] > 0).all()


def test_a_deck_that_cannot_be_drawn_is_a_sentence() -> None:
    coder = circuit_toys.coders()[1]
    coder.b_enc[3:] = -1e6
    with pytest.raises(CircuitError, match="per_kind: only 3 units of kind 'transcoder' are live"):
        draw_cards(TEXTS, 1, {"transcoder": coder}, pieces=pieces, per_kind=4)
    with pytest.raises((TypeError, CircuitError), match="units"):
        draw_cards(TEXTS, 1, {"head": coder}, pieces=pieces)  # type: ignore[dict-item]
    for wrong in (0, 101):
        with pytest.raises(RatingError, match=f"per_kind: {wrong} of 3 kinds"):
            deck(per_kind=wrong)


def test_other_weights_have_another_name() -> None:
    before = fingerprint(units())
    assert fingerprint(units()) == before == deck().coders and len(before) == 16
    other = units()
    other["sae"].W_dec.data[0, 0] += 1e-9
    assert fingerprint(other) != before


# --- sessions -----------------------------------------------------------------------------------------------------


def test_a_session_goes_on_where_it_was_left() -> None:
    cards = deck()
    fresh = Ratings.resume(cards)
    assert fresh.next == 0 and fresh.kinds == tuple(kind for kind, _ in cards.key)
    fresh.rate(0, "yes", seconds=5).rate(1, "no", seconds=7).save()
    again = Ratings.resume(cards)
    assert again.next == 2 and again.answers[:2] == ("yes", "no") and again.seconds == 12
    assert Ratings.resume(deck(seed=9)).next == 0, "another deck has a session of its own"


def test_an_answer_can_be_changed_and_lunch_does_not_count() -> None:
    one = session(seconds=0).rate(4, "no", seconds=3600)
    assert one.answers[4] == "no" and one.seconds == 600 and one.next is None
    assert session(answers="yy-------").next == 2


def test_cards_of_other_texts_are_a_new_session() -> None:
    cards = deck()
    other = Ratings.resume(cards).rate(0, "yes").model_copy(update={"units": tuple(range(12))})
    other.save()
    assert Ratings.resume(cards).next == 0


@pytest.mark.parametrize(
    "number, answer, seconds, said",
    [
        (9, "yes", 0, "no card 9"),
        (-1, "yes", 0, "no card -1"),
        (0, "perhaps", 0, "answer"),
        (0, "yes", -1.0, "seconds"),
        (0, "yes", float("nan"), "seconds"),
    ],
)
def test_an_answer_that_is_none_is_a_sentence(number: int, answer: str, seconds: float, said: str) -> None:
    with pytest.raises((TypeError, RatingError), match=said):
        session().rate(number, answer, seconds=seconds)  # type: ignore[arg-type]


def damaged(change: dict[str, object]) -> bytes:
    return json.dumps(json.loads(session().model_dump_json()) | change).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        damaged({"more": 1}),
        damaged({"answers": ["yes"]}),
        damaged({"seed": -1}),
        damaged({"answers": ["perhaps"] * 9}),
        damaged({"coders": "../../x"}),
        damaged({"kinds": ["head"] * 9}),
        damaged({"seconds": -1}),
    ],
)
def test_a_damaged_session_is_a_sentence_and_left_out_of_the_list(raw: bytes) -> None:
    session(seed=1).save()
    path = session(seed=0).save()
    path.write_bytes(raw)
    with pytest.raises(RatingError, match=r"-0.json is no rating session .* delete it"):
        Ratings.load(path)
    assert [one.seed for one in sessions(CODERS)] == [1]


def test_a_file_that_is_too_large_is_not_read() -> None:
    path = session().save()
    path.write_bytes(b" " * (rating.MAX_BYTES + 1))
    with pytest.raises(RatingError, match="is larger than 1,048,576 bytes"):
        Ratings.load(path)
    with pytest.raises(RatingError, match="cannot be read"):
        Ratings.load(path.parent / "absent.json")


def test_a_save_that_fails_leaves_the_old_session(monkeypatch: pytest.MonkeyPatch) -> None:
    path = session(answers="y--------").save()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(paths.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        session().save()
    assert Ratings.load(path).next == 1 and [file.name for file in path.parent.iterdir()] == [path.name]


# --- what the answers say -----------------------------------------------------------------------------------------


def test_answers_are_counted_by_kind_over_sessions() -> None:
    found = summarise([session(), session(seed=1, answers="ymm-n-nnn")])
    assert found.counts == {
        "transcoder": {"yes": 4, "maybe": 2, "no": 0},
        "sae": {"yes": 1, "maybe": 1, "no": 2},
        "neuron": {"yes": 0, "maybe": 0, "no": 6},
    }
    assert [one.baseline for one in found.comparisons] == ["sae", "neuron"]
    assert found.comparisons[0].difference == pytest.approx(4 / 6 - 1 / 4)
    assert summarise([]).counts == {} and summarise([session(answers="-" * 9)]).comparisons == ()


def big(ours: tuple[int, int], theirs: tuple[int, int]) -> rating.Comparison:
    kinds: list[UnitKind] = ["transcoder"] * sum(ours) + ["sae"] * sum(theirs)
    answers: list[Answer] = [*["yes"] * ours[0], *["no"] * ours[1], *["yes"] * theirs[0], *["no"] * theirs[1]]  # type: ignore[list-item]
    whole = Ratings(seed=0, coders=CODERS, kinds=tuple(kinds), units=tuple(range(len(kinds))), answers=tuple(answers))
    return summarise([whole]).comparisons[0]


def test_the_interval_is_newcombes() -> None:
    """His worked example: 56 of 70 against 48 of 80 gives 0.0524 ... 0.3339 (Statistics in Medicine 17, 1998)."""
    found = big((56, 14), (48, 32))
    assert found.difference == pytest.approx(0.2)
    assert found.interval == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_fishers_test_of_the_lady_tasting_tea() -> None:
    """Three of four cups told right: p = 34 / 70, two-sided."""
    assert big((3, 1), (1, 3)).p == pytest.approx(34 / 70)


def test_all_yes_against_all_yes_is_no_difference() -> None:
    found = big((5, 0), (5, 0))
    assert found.difference == 0 and found.p == 1
    assert found.interval[0] == pytest.approx(-found.interval[1]) and found.interval[1] > 0.3


# --- the ledger ---------------------------------------------------------------------------------------------------


def claim() -> Claim:
    return Claim(
        key="interpretable",
        paper="as interpretable",
        figure="41 of 50",
        where="repository",
        metric="share of yes",
        unit="",
        method="transcoder_yes",
        baseline="sae_yes",
        study="rating",
        rule={"name": "not_worse", "margin": 0.25},
        replication="sampling",
    )


def test_a_finished_session_is_the_readers_measurement() -> None:
    session(seed=3).save()
    session(seed=4, answers="yyyyyyyy-").save()
    session(seed=5, coders="f" * 16).save()
    assert put_on_ledger(run_rating, CODERS) == 1
    found = ledger.own("transcoders")["rating"]
    assert found.replication == "sampling" and len(found.rows) == 1
    row = found.rows[0]
    assert row["seed"] == 3 and row["seconds"] == 90
    assert row["values"] == pytest.approx({"transcoder_yes": 1.0, "sae_yes": 1 / 3, "neuron_yes": 0.0})
    assert found.record.config == {"coders": CODERS, "cards": 9} and not found.record.stale
    assert ledger.shipped("transcoders").get("rating") is None


def test_five_sessions_are_judged_by_the_rule() -> None:
    for seed, answers in enumerate(["yyyyynnnn", "yynyynnnn", "yyyyyynnn", "yynynnnnn", "yyyyymnnn"]):
        assert put_on_ledger(run_rating, CODERS) == seed
        session(seed=seed, answers=answers).save()
    assert put_on_ledger(run_rating, CODERS) == 5
    found = ledger.judge(claim(), ledger.own("transcoders")["rating"])
    differences = [1 / 3, 0.0, 0.0, 1 / 3, 1 / 3]
    assert found.n == 5 and found.estimate == pytest.approx(np.mean(differences)) and found.verdict == "shown"


def test_a_changed_or_withdrawn_answer_changes_the_ledger() -> None:
    session(seed=0).save()
    put_on_ledger(run_rating, CODERS)
    session(seed=0, answers="nnnyyynnn").save()
    put_on_ledger(run_rating, CODERS)
    assert ledger.own("transcoders")["rating"].rows[0]["values"]["transcoder_yes"] == 0
    session(seed=0).path.unlink()
    assert put_on_ledger(run_rating, CODERS) == 0 and "rating" not in ledger.own("transcoders")


def test_an_unfinished_session_has_no_shares() -> None:
    with pytest.raises(RatingError, match="card 2 has no answer yet"):
        session(answers="yy-------").shares()
