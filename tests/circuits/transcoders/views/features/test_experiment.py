"""Units that are browsed, on a toy model: what is counted, wired and dealt equals what the method's parts say one by one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import circuit_toys
import numpy as np
import pytest
import torch

from lab import results
from lab.circuits.transcoders.coders.coder import CoderConfig, SparseAutoencoder
from lab.circuits.transcoders.errors import CircuitError, HookedError
from lab.circuits.transcoders.models.languages import Language
from lab.circuits.transcoders.units.activations import UnitKind
from lab.circuits.transcoders.units.dashboard import dashboard
from lab.circuits.transcoders.units.labels import Labels
from lab.circuits.transcoders.units.weight_readings import (
    agreement,
    deembed,
    encoder_direction,
    pullback,
    strong,
    through_head,
)
from lab.circuits.transcoders.views import browse, own_labels
from lab.circuits.transcoders.views.browse import Survey
from lab.circuits.transcoders.views.features import experiment as features_experiment
from lab.circuits.transcoders.views.features.experiment import FeatureConfig, run_features
from lab.circuits.transcoders.views.rating import experiment as rating_experiment
from lab.circuits.transcoders.views.rating.experiment import RatingConfig, outcome, run_rating
from lab.circuits.transcoders.views.rating.session import KINDS, Ratings, draw_cards
from lab.circuits.transcoders.views.wiring import experiment as wiring_experiment
from lab.circuits.transcoders.views.wiring.experiment import WiringConfig, WiringResult, run_wiring
from lab.experiment import Experiment
from lab.files import FileError
from lab.provenance import Record

LAYERS = 3
MODEL, CODERS = circuit_toys.model(LAYERS), circuit_toys.coders(LAYERS)
TOKENS = torch.randint(0, circuit_toys.VOCABULARY, (40, 10), generator=torch.Generator().manual_seed(3))
TOKENS[:, 0] = 0
STDLIB = "stdlib-gpt"


def sae(layer: int) -> SparseAutoencoder:
    out = f"blocks.{layer}.hook_mlp_out"
    made = SparseAutoencoder(CoderConfig(12, 30, 12, hook_name=out, hook_name_out=out)).double().requires_grad_(False)
    made.load_state_dict(CODERS[layer].state_dict())
    return made


SAES = {layer: sae(layer) for layer in range(LAYERS)}


def pieces(tokens: Any) -> list[str]:
    return [chr(97 + int(token)) for token in tokens]


def encode(text: str, bos: bool) -> torch.Tensor:
    assert bos
    if not text:
        raise HookedError("text: the prompt is empty")
    return torch.tensor([0, *(ord(letter) - 97 for letter in text)])


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The browser's model, coders and texts are toys; the list grows by one whenever the texts are asked for."""
    asked: list[int] = []

    def texts() -> torch.Tensor:
        asked.append(1)
        return TOKENS

    def clear() -> None:
        browse.units_of.cache_clear()
        browse.survey.cache_clear()
        browse.held_out.cache_clear()

    of = Language("toy", MODEL, CODERS, encode, pieces, 0, "", texts)
    for module in (browse, features_experiment, rating_experiment, wiring_experiment):
        monkeypatch.setattr(module, "language", lambda model: of)
    monkeypatch.setattr(
        browse, "coders", lambda model, kind="transcoder": {"transcoder": CODERS, "sae": SAES}.get(kind, {})
    )
    clear()
    yield asked
    clear()


def wired(**knobs: Any) -> WiringResult:
    return run_wiring(WiringConfig(**({"layer": 2, "unit": 5} | knobs)))


# --- what is browsed -------------------------------------------------------------------------------------------------


def test_the_texts_are_run_once_for_all_who_ask(toy: list[int]) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(browse.held_out(STDLIB))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(toy) == 1 and len(found) == 4 and all(one is found[0] for one in found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_survey_counts_what_each_unit_does(kind: UnitKind) -> None:
    found, texts, units = browse.survey(STDLIB, kind, 1), browse.held_out(STDLIB), browse.units_of(STDLIB, kind, 1)
    assert found.tokens == 40 * 9 and len(found.frequency) == (20 if kind == "neuron" else 30)
    for unit in range(len(found.frequency)):
        z = texts.of(1, units, unit).clamp_min(0)[:, 1:]
        fires = z > 0
        assert np.isclose(found.frequency[unit], float(fires.double().mean()))
        assert np.isclose(found.maximum[unit], float(z.max()))
        assert np.isclose(found.mean[unit], float(z[fires].mean()) if bool(fires.any()) else 0.0)


def test_the_next_live_one_goes_around_the_ends() -> None:
    some = Survey(100, np.array([0.1, 0.0, 0.2, 1e-4]), np.ones(4), np.ones(4))
    assert some.live.tolist() == [True, False, True, False]
    assert (some.next_live(0), some.next_live(2), some.next_live(0, -1), some.next_live(1)) == (2, 0, 2, 2)
    assert {some.any_live(np.random.default_rng(seed)) for seed in range(20)} == {0, 2}
    none = Survey(100, np.array([0.0, 1e-5]), np.zeros(2), np.zeros(2))
    assert none.next_live(0) == 0 and none.any_live(np.random.default_rng(0)) == 1


def test_those_that_carry_the_activation_are_the_fewest_that_do() -> None:
    frequency, mean = np.array([0.5, 0.5, 0.1, 0.5, 0.0]), np.array([2.0, 1e-3, 9.0, 0.05, 5.0])
    some = Survey(1000, frequency, mean, mean)
    assert some.carrying.tolist() == [True, False, True, True, False]  # 1, .9 and .025 are needed for 99 % of 1.9255
    carried = (frequency * mean)[some.carrying]
    assert carried.sum() >= 0.99 * (frequency * mean).sum() > carried.sum() - carried.min()


def test_units_that_are_not_there() -> None:
    with pytest.raises(CircuitError, match="layer: stdlib-gpt has the layers 0 ... 2, not 3"):
        browse.units_of(STDLIB, "neuron", 3)
    with pytest.raises(CircuitError, match="feature 30 does not exist"):
        run_features(FeatureConfig(layer=2, unit=30))
    with pytest.raises(CircuitError, match="neuron 20 does not exist"):
        wired(kind="neuron", unit=20)


def test_a_kind_that_a_model_has_none_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "coders", lambda model, kind="transcoder": {})
    with pytest.raises(CircuitError, match="kind: spans-1l has no sae of layer 0"):
        browse.units_of("spans-1l", "sae", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dashboard_of_the_knobs(kind: UnitKind) -> None:
    config = FeatureConfig(kind=kind, layer=1, unit=7, bands=3, examples=2, window=4, seed=5)
    found, texts = run_features(config), browse.held_out(STDLIB)
    alone = dashboard(
        MODEL, browse.units_of(STDLIB, kind, 1), 1, texts, 7, bands=3, examples=2, window=4, seed=5, pieces=pieces
    )
    assert found.examples.equals(alone.examples) and np.array_equal(found.counts, alone.counts)
    assert (found.kind, found.layer, found.unit, len(found.shares)) == (kind, 1, 7, 3)


# --- wiring ----------------------------------------------------------------------------------------------------------


def test_weights_are_pullbacks_and_strengths_activations_times_them() -> None:
    found = wired(over="example", example=0)
    target, texts = encoder_direction(CODERS[2], 5), browse.held_out(STDLIB)
    z = texts.of(2, CODERS[2], 5).clamp_min(0) * texts.counted
    text, position = divmod(int(z.argmax()), z.shape[1])
    assert found.over.startswith("at ‘") and f"{float(z.max()):.2g}" in found.over
    for layer in (0, 1):
        rows = found.earlier[found.earlier["layer"] == layer].sort_values("feature")
        weights = pullback(target, CODERS[layer])
        (encoded,) = texts.encoded(
            layer,
            CODERS[layer],
            torch.zeros_like(z, dtype=torch.bool).index_put_(
                (torch.tensor(text), torch.tensor(position)), torch.tensor(True)
            ),
        )
        assert np.allclose(rows["weight"], weights) and np.allclose(rows["strength"], encoded[0] * weights)
    one, other = (torch.tensor(found.earlier[name].to_numpy()) for name in ("weight", "strength"))
    assert found.agreement == {k: agreement(one, other, int(k)) for k in ("10", "50")}
    assert found.earlier["weight"].is_monotonic_decreasing and all(found.earlier["writes"][:10])


def test_all_texts_average_over_where_it_fires_strongly(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = browse.held_out(STDLIB)
    where = strong(texts.of(2, CODERS[2], 5), texts.counted)
    found = wired()
    assert found.over == f"on {int(where.sum()):,} tokens where it fires strongly" and found.context.empty
    total = sum(z.sum(0) for z in texts.encoded(1, CODERS[1], where)) / int(where.sum())
    rows = found.earlier[found.earlier["layer"] == 1].sort_values("feature")
    assert np.allclose(rows["strength"], total * pullback(encoder_direction(CODERS[2], 5), CODERS[1]))
    monkeypatch.setattr(wiring_experiment, "SAMPLED", 3)
    assert wired().over == "on 3 tokens where it fires strongly"
    assert wired(seed=1).earlier["strength"].sum() != wired().earlier["strength"].sum()


def test_examples_go_from_the_strongest_to_the_weakest() -> None:
    values = [wired(over="example", example=number).context.query("mark")["value"].item() for number in (0, 4, 9)]
    z = browse.held_out(STDLIB).of(2, CODERS[2], 5)[:, 1:]
    assert values == sorted(values, reverse=True)
    assert np.isclose(values[0], float(z.max())) and np.isclose(values[-1], float(z[z > 0].min()))


def test_tokens_are_read_directly_behind_layer_0_and_through_every_head() -> None:
    found = wired()
    target = encoder_direction(CODERS[2], 5)
    assert set(found.reads["way"]) == {"direct", "extended", *(f"head {m}.{h}" for m in range(3) for h in range(2))}
    for way, scores in {
        "direct": deembed(MODEL, target),
        "extended": deembed(MODEL, target, extended=True),
        "head 0.1": deembed(MODEL, target, (0, 1)),
        "head 2.0": deembed(MODEL, target, (2, 0), extended=True),
    }.items():
        rows = found.reads[found.reads["way"] == way]
        assert rows["token"].tolist() == scores.topk(10).indices.tolist()
        assert np.allclose(rows["value"], scores.topk(10).values) and rows["piece"].tolist() == pieces(rows["token"])


def test_features_through_a_head_are_of_layers_below_it() -> None:
    found = wired()
    rows = found.through[found.through["head"] == "2.1"]
    vector = through_head(MODEL, (2, 1), encoder_direction(CODERS[2], 5))
    best = max((pullback(vector, CODERS[layer]).max().item(), layer) for layer in (0, 1))
    assert np.isclose(rows["weight"].iloc[0], best[0]) and rows["layer"].iloc[0] == best[1]
    assert (found.through["layer"] < found.through["head"].str[0].astype(int)).all()
    assert set(found.through["head"]) == {"1.0", "1.1", "2.0", "2.1"}
    layer, head = map(int, found.best_head.split("."))
    assert found.heads.shape == (3, 2) and found.heads[layer, head] == found.heads.max()


def test_an_own_text_is_read_where_the_unit_fires_most() -> None:
    found = wired(over="own text", text="bcdefgh")
    tokens = encode("bcdefgh", True)[None]
    cache = MODEL.run_with_cache(tokens)[1]
    z = CODERS[2].encode(cache["blocks.2.ln2.hook_normalized"])[0, :, 5]
    z[0] = 0
    assert np.allclose(found.context["value"], z, atol=1e-5) and "".join(found.context["piece"]) == "abcdefgh"
    assert int(found.context["mark"].to_numpy().argmax()) == int(z.argmax())
    active = CODERS[0].encode(cache["blocks.0.ln2.hook_normalized"])[0, int(z.argmax())]
    rows = found.earlier[found.earlier["layer"] == 0].sort_values("feature")
    assert np.allclose(rows["strength"], active * pullback(encoder_direction(CODERS[2], 5), CODERS[0]), atol=1e-5)
    with pytest.raises(HookedError, match="text"):
        wired(over="own text", text="")


@pytest.mark.parametrize(
    ("over", "says"), [("own text", "this text"), ("example", "never fires"), ("all texts", "never")]
)
def test_a_silent_unit_keeps_its_weights(over: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = circuit_toys.coders(LAYERS)
    dead[2].b_enc[5] = -1e6
    monkeypatch.setattr(browse, "coders", lambda model, kind="transcoder": dead)
    found = wired(over=over, text="bcd")
    assert found.over == "" and not found.agreement and says in found.note
    assert found.earlier["strength"].isna().all() and found.earlier["weight"].notna().all()
    assert len(found.context) == (4 if over == "own text" else 0)
    assert not found.context["mark"].any()


def test_nothing_comes_before_layer_0() -> None:
    found = wired(layer=0)
    assert found.earlier.empty and found.through.empty and "no earlier features" in found.note
    assert set(found.reads["way"]) == {"direct", "head 0.0", "head 0.1"}


# --- rating, results, labels -----------------------------------------------------------------------------------------


def test_a_session_deals_the_cards_of_its_number() -> None:
    found = run_rating(RatingConfig(session=2, layer=1))
    units = {kind: browse.units_of(STDLIB, kind, 1) for kind in KINDS}
    assert found.deck == draw_cards(browse.held_out(STDLIB), 1, units, pieces=pieces, per_kind=5, seed=2)
    assert {kind: found.kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, rating_experiment.PER_KIND)
    assert run_rating(RatingConfig(session=3, layer=1)).deck != found.deck


@pytest.mark.parametrize(
    ("experiment", "config"),
    [
        (run_features, FeatureConfig(layer=2, unit=5)),
        (run_wiring, WiringConfig(layer=2, unit=5)),
        (run_rating, RatingConfig(layer=2)),
    ],
    ids=["features", "wiring", "rating"],
)
def test_results_can_be_kept(experiment: Experiment, config: Any, tmp_path: Any) -> None:
    first = experiment(config)
    results.save(tmp_path / "kept", first, Record.now(experiment, 1.0, opened={}))
    again, _ = results.load(tmp_path / "kept", experiment.result)
    results.save(tmp_path / "again", again, Record.now(experiment, 1.0, opened={}))
    one, other = ((tmp_path / name / "result.json").read_text() for name in ("kept", "again"))
    assert one == other and len(one) > 100
    if experiment is run_rating:
        assert again.deck == first.deck


def test_only_finished_sessions_count() -> None:
    kinds: tuple[UnitKind, ...] = ("transcoder", "transcoder", "neuron")
    done = Ratings(seed=1, coders="0" * 16, kinds=kinds, units=(1, 2, 3), answers=("yes", "maybe", "no"))
    open_ = Ratings(seed=2, coders="0" * 16, kinds=kinds, units=(1, 2, 3), answers=("no", None, "no"))
    found = outcome([done, open_])
    assert (found.sessions, found.cards) == (1, 3)
    assert found.counts == {"transcoder": {"yes": 1, "maybe": 1, "no": 0}, "neuron": {"yes": 0, "maybe": 0, "no": 1}}
    assert [one.baseline for one in found.comparisons] == ["neuron"] and found.comparisons[0].difference == 0.5
    assert outcome([open_]).counts == {} and outcome([]).sessions == 0


def test_own_labels_survive_and_belong_to_a_kind() -> None:
    own_labels.put_label("stdlib-gpt", "transcoder", 2, 5, " ends\ta call ")
    own_labels.put_label("stdlib-gpt", "neuron", 2, 5, "dense")
    assert dict(own_labels.own_labels()) == {(2, 5): "ends a call"} and not own_labels.own_labels("spans-1l")
    assert own_labels.add_labels("stdlib-gpt", "transcoder", Labels({(2, 5): "closes", (1, 0): "digits"})) == (1, 1)
    assert dict(own_labels.own_labels()) == {(2, 5): "closes", (1, 0): "digits"}
    own_labels.put_label("stdlib-gpt", "transcoder", 2, 5, "  ")
    assert dict(own_labels.own_labels()) == {(1, 0): "digits"}
    own_labels.put_label("stdlib-gpt", "transcoder", 3, 3, "")
    assert own_labels.own_labels("stdlib-gpt", "neuron")[2, 5] == "dense"


def test_a_refused_label_leaves_the_file_as_it_is() -> None:
    own_labels.put_label("stdlib-gpt", "sae", 0, 1, "kept")
    with pytest.raises(ValueError, match="label must have 1 to 200"):
        own_labels.put_label("stdlib-gpt", "sae", 0, 1, "x" * 201)
    assert own_labels.own_labels("stdlib-gpt", "sae")[0, 1] == "kept"
    path = own_labels.labels_path("stdlib-gpt", "sae")
    path.write_text("[{")
    with pytest.raises(FileError, match="stdlib-gpt-sae"):
        own_labels.put_label("stdlib-gpt", "sae", 0, 1, "new")
    assert path.read_text() == "[{"
