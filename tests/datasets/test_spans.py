"""The spans corpus: what it says is grammatical, and its years have the distribution that the closed form gives."""

from __future__ import annotations

import math
import re

import pytest
import torch

from lab.datasets import spans
from lab.datasets.spans import CONTEXT, FIRST_YEAR, TOKEN, VOCABULARY, SpansError, decode, encode

SENTENCE = re.compile(
    r"the (?P<event>\w+) (?P<verb>lasted|rewound) from (?P<c>\d\d)(?P<y>\d\d) to (?P<c2>\d\d)(?P<z>\d\d) \."
    r"|the \w+ ended in (?P<c3>\d\d)(?P<z3>\d\d) after it had begun in (?P<c4>\d\d)(?P<y4>\d\d) \."
    r"|the (?P<subject>\w+) \w+ the \w+ (?P<copula>is|are) \w+ \."
    r"|visit (?P<cities>\w+ \w+ \w+) again (?P<copy>\w+ \w+ \w+) \."
)


@pytest.fixture(scope="module")
def some() -> torch.Tensor:
    return spans.sample(4000, seed=5)


def test_the_vocabulary_has_each_word_once() -> None:
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 186
    assert VOCABULARY[0] == spans.BOS and [VOCABULARY[FIRST_YEAR + year] for year in (0, 42, 99)] == [
        "##00",
        "##42",
        "##99",
    ]


def test_every_sentence_keeps_the_grammar(some: torch.Tensor) -> None:
    assert some.shape == (4000, CONTEXT) and bool((some[:, 0] == TOKEN[spans.BOS]).all())
    assert not bool((some[:, 1:] == TOKEN[spans.BOS]).any())
    kinds = set()
    for text in map(decode, some[:400]):
        whole = re.findall(r"[^.]+ \.", text)
        assert whole, text
        for sentence in whole:
            found = SENTENCE.fullmatch(sentence.strip())
            assert found is not None, sentence
            it = found.groupdict()
            kinds.add(next(name for name in ("event", "c3", "subject", "cities") if it[name]))
            if it["event"]:
                assert it["c"] == it["c2"] and (it["z"] > it["y"]) == (it["verb"] == "lasted") and it["z"] != it["y"]
            elif it["c3"]:
                assert it["c3"] == it["c4"] and it["y4"] < it["z3"]
            elif it["subject"]:
                assert (it["copula"] == "are") == (it["subject"] in spans.PLURALS)
            else:
                assert it["cities"] == it["copy"] and len(set(it["cities"].split())) == 3
    assert kinds == {"event", "c3", "subject", "cities"}


@pytest.mark.parametrize("mode", ["greater", "less"])
def test_second_years_have_the_true_distribution(some: torch.Tensor, mode: spans.Mode) -> None:
    known, end = spans.latents(some), spans.is_end(some)
    end[:, -1] = False
    rows, places = (end & (known.mode == spans.VERBS.index({"greater": "lasted", "less": "rewound"}[mode]))).nonzero(
        as_tuple=True
    )
    first, second = known.year[rows, places], some[rows, places + 1] - FIRST_YEAR
    assert len(first) > 2000
    low = 0 if mode == "greater" else 1
    truth = torch.stack([spans.truth(mode, year) for year in range(low, low + 99)])[first - low]
    assert bool((truth[torch.arange(len(first)), second] > 0).all()), "nothing impossible happens"
    # Its place among the possible ones is uniform: mean 1/2, variance (1 - 1/n^2) / 12, n the number of them.
    count = (truth > 0).sum(1)
    place = ((second - first - 0.5) if mode == "greater" else (second + 0.5)) / count
    assert abs(float(place.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / len(place))
    spread = (1 - 1 / count.double().square()).mean() / 12
    assert float((place.double() - 0.5).square().mean()) == pytest.approx(float(spread), rel=0.06)


def test_the_truth_is_uniform_on_its_side() -> None:
    for year in range(99):
        later, earlier = spans.truth("greater", year), spans.truth("less", year + 1)
        assert later.sum() == pytest.approx(1) and earlier.sum() == pytest.approx(1)
        assert not bool(later[: year + 1].any()) and torch.allclose(later[year + 1 :], torch.tensor(1 / (99 - year)))
        assert torch.equal(earlier, spans.truth("greater", 98 - year).flip(0)), "one mode mirrors the other"
        entropy = -(later[year + 1 :] * later[year + 1 :].log()).sum()
        assert (
            spans.entropy("greater", year)
            == pytest.approx(float(entropy), abs=1e-5)
            == pytest.approx(math.log(99 - year), abs=1e-5)
        )
        assert spans.entropy("less", year + 1) == pytest.approx(math.log(year + 1))


def test_the_seed_draws_everything() -> None:
    assert torch.equal(spans.sample(50, 1), spans.sample(50, 1))
    assert not torch.equal(spans.sample(50, 1), spans.sample(50, 2))
    before = torch.get_rng_state()
    spans.sample(5, 3)
    assert torch.equal(before, torch.get_rng_state())
    assert spans.sample(0, 1).shape == (0, CONTEXT)


def test_text_and_tokens_are_each_other_s_inverse(some: torch.Tensor) -> None:
    for row in some[:200]:
        assert torch.equal(encode(decode(row)), row)
    assert decode(encode("The War lasted from 1732 to 17")) == "the war lasted from 1732 to 17"


@pytest.mark.parametrize("word", ["treaty", "42", "2042", "<bos>", "##100", "?", "1032"])
def test_an_unknown_word_is_named_with_what_is_known(word: str) -> None:
    with pytest.raises(SpansError, match=re.escape(f"no word {word!r}")) as error:
        encode(f"the {word} lasted")
    assert "1100 ... 1999" in str(error.value) and "siege" in str(error.value)


def test_latents_are_read_off_the_tokens_so_far(some: torch.Tensor) -> None:
    known = spans.latents(some)
    assert bool((known.slot >= 0).all()), "what the corpus says is all grammatical"
    for cut in (5, 17):
        early = spans.latents(some[:, :cut])
        for name in ("slot", "mode", "event", "century", "year", "number", "copied"):
            assert torch.equal(getattr(early, name), getattr(known, name)[:, :cut]), name
    copied = known.copied[:, :-1] >= 0
    assert torch.equal(some[:, 1:][copied], TOKEN[spans.CITIES[0]] + known.copied[:, :-1][copied])


def test_latents_by_hand() -> None:
    known = spans.latents(
        encode("the dogs near the car are old . the siege ended in 1450 after it had begun in 1420 .")[None]
    )
    names = spans.slots()
    assert [names[slot] for slot in known.slot[0, :9]] == [
        "<bos>",
        "the",
        "agreement: subject",
        "agreement: preposition",
        "agreement: the again",
        "agreement: attractor",
        "agreement: copula",
        "agreement: adjective",
        "agreement: stop",
    ]
    assert known.number[0].tolist() == [-1, -1] + [1] * 7 + [-1] * 14
    assert known.year[0].tolist() == [-1] * 14 + [50] * 9, "the sentence's first year, not its second"
    assert known.event[0, 10] == spans.EVENTS.index("siege") and known.century[0, -1] == spans.CENTURIES.index("14")
    assert bool((known.mode == -1).all())


def test_ungrammatical_text_has_no_slot_until_a_sentence_begins() -> None:
    known = spans.latents(encode("the war paris the")[None])
    assert known.slot[0].tolist()[:3] == [0, 1, 2] and known.slot[0].tolist()[3:] == [-1, -1]


def test_end_is_where_the_second_year_comes_next(some: torch.Tensor) -> None:
    end = spans.is_end(some)
    following = some[:, 1:][end[:, :-1]]
    assert bool(((following >= FIRST_YEAR) & (following < FIRST_YEAR + 100)).all())
    assert 0.04 < float(end.float().mean()) < 0.07
    brute = sum(len(re.findall(r"(?:lasted|rewound) from \d{4} to \d\d", decode(row))) for row in some[:300])
    assert int(end[:300].sum()) == brute


def test_labels_agree_with_the_tokens(some: torch.Tensor) -> None:
    names, columns = spans.labels(some[:200])
    assert len(names) == len(set(names)) == columns.shape[-1] and columns.dtype == torch.bool
    known = spans.latents(some[:200])

    def column(name: str) -> torch.Tensor:
        return columns[..., names.index(name)]

    assert torch.equal(column("token: war"), some[:200] == TOKEN["war"])
    assert torch.equal(column("year: 32"), known.year == 32)
    assert torch.equal(column("decade: 30"), (known.year >= 30) & (known.year < 40))
    assert torch.equal(column("year >= 70"), known.year >= 70)
    assert torch.equal(
        column("END less: year >= 40"), spans.is_end(some[:200]) & (known.mode == 1) & (known.year >= 40)
    )
    assert torch.equal(column("END greater") | column("END less"), spans.is_end(some[:200]))
    groups = {group: [n for n in names if n.startswith(f"{group}: ")] for group in ("token", "slot", "position")}
    for group, members in groups.items():
        assert bool((sum(column(name).long() for name in members) == 1).all()), f"one {group} a token"


@pytest.mark.parametrize(("mode", "year"), [("greater", 99), ("less", 0), ("greater", -1), ("less", 100)])
def test_a_year_without_others_on_its_side_is_refused(mode: spans.Mode, year: int) -> None:
    for function in (spans.truth, spans.entropy):
        with pytest.raises(SpansError, match="year must lie in"):
            function(mode, year)


def test_bad_requests_are_named() -> None:
    with pytest.raises((TypeError, ValueError), match="mode|beartype|Mode"):
        spans.truth("equal", 3)  # type: ignore[arg-type]
    with pytest.raises(SpansError, match="n, the number of contexts"):
        spans.sample(-1, 0)
    for tokens in (torch.tensor([[186]]), torch.tensor([[-1]])):
        with pytest.raises(SpansError, match="tokens must be whole numbers in 0 ... 185"):
            spans.latents(tokens)
