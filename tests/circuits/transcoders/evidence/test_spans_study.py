"""The study of year spans runs at toy size, its columns are what they say, and its rules are right where that is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lab.circuits.transcoders.coders.coder import CoderConfig, SparseAutoencoder, Transcoder
from lab.circuits.transcoders.coders.evaluation import evaluate, replace_mlps
from lab.circuits.transcoders.coders.training import CoderTraining
from lab.circuits.transcoders.evidence import spans_study, spans_tuning
from lab.circuits.transcoders.evidence.spans_study import Size, matched_means
from lab.circuits.transcoders.hooked import HookedGPT
from lab.circuits.transcoders.models import greater_than, spans_1l, spans_sweep
from lab.circuits.transcoders.models.spans_sweep import LAMBDAS
from lab.datasets import spans
from lab.experiment import no_progress

TINY = Size(2, CoderTraining(steps=3, batch=32, warm_up=1, buffer=128), short=1, contexts=30, measured=4)
MODES = ("greater", "less")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_sweep, "WIDTH", 48)
    monkeypatch.setattr(spans_study, "KEPT", (1, 4))


@pytest.fixture(scope="module")
def model() -> HookedGPT:
    return spans_1l.train_lm(11, steps=2)


def coders() -> dict[str, Transcoder]:
    """A random one of each kind and place, the dearer the sparser."""
    found: dict[str, Transcoder] = {}
    for kind, made in (("transcoder", Transcoder), ("sae", SparseAutoencoder)):
        for place in range(4):
            names = ("blocks.0.ln2.hook_normalized" if kind == "transcoder" else spans_study.OUT, spans_study.OUT)
            generator = torch.Generator().manual_seed(place)
            coder = made(CoderConfig(128, 48, 128, hook_name=names[0], hook_name_out=names[1]), generator=generator)
            with torch.no_grad():
                coder.b_enc.fill_(0.05 - 0.3 * place if kind == "transcoder" else 0.02 - 0.02 * place)
            found[f"{kind}_{place}"] = coder.requires_grad_(False)
    return found


def test_a_replicate_s_columns() -> None:
    told: list[float] = []

    def progress(fraction: float, note: str = "", partial: Any | None = None) -> None:
        told.append(fraction)

    found = spans_study.measure.run(0, progress=progress, size=TINY)
    assert sorted(found) == sorted(spans_study.measure.columns)
    assert told == sorted(told) and told[0] >= 0 and told[-1] <= 1
    for prefix in ("", "short_"):
        for kind in ("transcoder", "sae"):
            for place in range(4):
                name = f"{prefix}{kind}_{place}"
                assert 0 <= found[f"{name}_l0"] <= 48 and 0 <= found[f"{name}_end_l0"] <= 48 and found[f"{name}_kl"] > 0
                assert all(-1 <= found[f"{name}_{mode}_pd"] <= 1 for mode in MODES)
        assert {f"{prefix}added_ratio", f"{prefix}kl_ratio"} <= set(found)
    for units in ("features", *(f"features_{place}" for place in range(4)), "neurons"):
        for mode in MODES:
            for variant in ("zero", "mean"):
                assert found[f"{units}_{mode}_{variant}_kl"] > 0 and abs(found[f"{units}_{mode}_{variant}_pd"]) <= 1
    assert found["features_less_mean_kl"] == found["features_1_less_mean_kl"], "the fixed lambda"
    assert found["one"] == 1 and 0 <= found["gate"] <= 1
    assert {"label_transcoder", "label_sae", "label_neurons", "label_neurons_zero", "steps_features"} <= set(found)


def test_the_sweep_is_what_single_measurements_say(model: HookedGPT) -> None:
    own, held = coders(), spans_1l.texts(1, "measure", 20)
    found = spans_sweep.sweep_scores(model, own, held)
    for name in ("transcoder_1", "sae_2"):
        one = evaluate(model, 0, own[name], held)
        assert (found[f"{name}_l0"], found[f"{name}_kl"]) == (one.l0, one.kl)
        assert found[f"{name}_added"] == one.ce - one.ce_original
        z = spans_sweep.features_at(model, own[name], held)
        assert (z > 0).float().sum(-1).mean().item() == pytest.approx(one.l0, rel=1e-5)
        at_end = (z > 0).float().sum(-1)[spans.is_end(held)].mean()
        assert found[f"{name}_end_l0"] == pytest.approx(at_end.item())
        with replace_mlps(model, {0: own[name]}):
            assert found[f"{name}_less_pd"] == greater_than.measure(model, greater_than.prompts("less")).pd


def test_both_ablations_and_the_gate(model: HookedGPT) -> None:
    held = spans_1l.texts(2, "measure", 30)
    found = spans_study.model_scores(model, held)
    mean = evaluate(model, 0, coders()["sae_0"], held)
    assert found["model_loss"] == pytest.approx(mean.ce_original, rel=1e-5)
    assert found["zero_loss"] == pytest.approx(mean.ce_zero, rel=1e-5)
    assert found["mean_loss"] == pytest.approx(mean.ce_mean, rel=1e-5)
    with torch.no_grad():
        blind = spans_1l.restored({name: weight.clone() for name, weight in model.state_dict().items()})
        blind.W_Q.zero_()
        blind.b_Q.zero_()
    assert spans_study.gate(blind) == pytest.approx(0, abs=1e-6), "even attention cannot gate"
    assert spans_study.gate(model) > 0


def test_areas_are_those_of_the_curves(model: HookedGPT) -> None:
    own = coders()
    found = spans_study.years_scores(model, own)
    given = greater_than.prompts("less")
    curve = greater_than.sufficiency_curve(model, greater_than.features(own["transcoder_2"]), given, range(5), "mean")
    assert found["features_2_less_mean_kl"] == pytest.approx(float(curve.kl[1:].mean()))
    assert found["features_2_less_mean_pd"] == pytest.approx(float(curve.pd[1:].mean()))


def test_a_feature_that_is_a_label_is_named(model: HookedGPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every feature fires at END alone, at the cheaper prices everywhere: F1 is one, and that of what is everywhere."""
    held, own = spans_1l.texts(3, "measure", 40), coders()
    end = spans.is_end(held)[..., None].float().expand(-1, -1, 48)

    def features_at(model: HookedGPT, coder: Transcoder, tokens: torch.Tensor) -> torch.Tensor:
        return end if coder is own["transcoder_3"] else torch.ones_like(end)

    monkeypatch.setattr(spans_study, "features_at", features_at)
    found = spans_study.named_scores(model, own, held)
    columns = spans.labels(held)[1].flatten(0, 1)
    half = len(columns) // 2
    widest = columns[half:, columns[:half].sum(0).argmax()].float().mean().item()
    assert found["label_transcoder_3"] == 1
    assert found["label_transcoder_0"] == pytest.approx(2 * widest / (1 + widest), rel=1e-5)
    assert found["label_neurons"] >= found["label_neurons_zero"] - 0.1


def test_matched_means_are_read_where_both_curves_are() -> None:
    line = [(math.e**x, 2 + 3 * x) for x in (0.0, 1.0, 4.0)]
    other = [(math.e**x, 1.0) for x in (3.0, 2.0, 9.0)]
    assert matched_means(line, other) == pytest.approx((2 + 3 * 3.0, 1.0))
    assert all(math.isnan(value) for value in matched_means(line, [(100.0, 1.0), (200.0, 1.0)]))


def test_end_positions_are_a_tenth_or_more_of_training() -> None:
    texts = spans_1l.texts(0, "coders", 500)
    times, end = spans_sweep.repeats(texts), spans.is_end(texts)
    assert 0.1 < float(times[end].sum() / times.sum()) < 0.25
    assert bool((times[~end] == 1).all())


def test_the_shipped_prices_and_the_fixed_one() -> None:
    assert LAMBDAS[spans_sweep.YEARS_LAMBDA] == 8e-4
    sites = spans_sweep.sites()
    assert len(sites) == 8 and sites["sae_3"].lam == LAMBDAS[3] and sites["transcoder_0"].kind == "transcoder"
    assert [spans_sweep.place_of(name) for name in sites] == [0, 1, 2, 3] * 2


def test_the_search_tries_both_kinds_alike_and_keeps_its_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def losses(size: Size, seed: int, *, progress: Any) -> dict[str, float]:
        calls.append(seed)
        found = {}
        for name, (rates, places) in spans_tuning.METHODS.items():
            best = rates[{"language_model": 1, "transcoder": 2, "sae": 0}[name]]
            for rate in rates:
                for place in range(places):
                    found[f"{name} {rate:g} {place}"] = (place + 1) * (1 + abs(math.log(rate / best)))
        return found

    monkeypatch.setattr(spans_tuning, "_losses", losses)
    done = spans_tuning.tune(progress=no_progress)
    assert done["chosen"] == {"language_model": 5e-3, "transcoder": 4e-3, "sae": 1e-3}
    assert sorted(calls) == list(spans_tuning.SEEDS) == done["seeds"] and done["rule"] == spans_tuning.RULE
    count = {kind: sum(trial["method"] == kind for trial in done["trials"]) for kind in spans_tuning.METHODS}
    assert count == {"language_model": 3, "transcoder": 4, "sae": 4}


def test_a_trial_is_the_objective_that_coders_are_trained_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_tuning, "MODEL_RATES", (5e-3,))
    monkeypatch.setattr(spans_tuning, "RATES", (2e-3,))
    found = spans_tuning._losses(TINY, 4, progress=no_progress)
    assert len(found) == 9 and all(math.isfinite(value) and value > 0 for value in found.values())
    held = spans_1l.texts(4, "measure", TINY.measured)
    expected = float(spans_1l.next_token_loss(spans_1l.train_lm(4, steps=2), held))
    assert found["language_model 0.005 0"] == pytest.approx(expected)
