"""The greater-than study runs on a small random model: its parts agree with each other and with the model itself."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from lab.circuits.transcoders.coders.coder import CoderConfig, Transcoder
from lab.circuits.transcoders.coders.evaluation import replace_mlps
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.hooked import HookedConfig, HookedGPT
from lab.circuits.transcoders.models import greater_than, spans_1l
from lab.circuits.transcoders.views.years import experiment as years_experiment
from lab.circuits.transcoders.views.years import figures as years_figures
from lab.circuits.transcoders.views.years.experiment import YearsConfig, YearsResult, run_years
from lab.datasets import spans
from lab.knobs import controls
from lab.plot import DARK, LIGHT

PICTURES = (years_figures.year_plot, years_figures.few_units, years_figures.logit_boosts, years_figures.without_mlp)
MOST = 5
SHIPPED = years_experiment.transcoder


@pytest.fixture(scope="module")
def model() -> HookedGPT:
    torch.manual_seed(0)
    made = HookedGPT(HookedConfig(1, 16, 2, 4, 40, spans.CONTEXT, len(spans.VOCABULARY)))
    return made.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def coder() -> Transcoder:
    made = Transcoder(CoderConfig(16, 80, 16), generator=torch.Generator().manual_seed(0))
    return made.requires_grad_(False)


@pytest.fixture(scope="module", autouse=True)
def small(model: HookedGPT, coder: Transcoder) -> Iterator[None]:
    """A random model and transcoder in place of the shipped ones, and few units kept at most."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(years_experiment, "language_model", lambda: model)
        patch.setattr(years_experiment, "transcoder", lambda lam: coder)
        patch.setattr(years_experiment, "MEAN_TEXTS", 4)
        patch.setattr(years_experiment, "MOST", MOST)
        patch.setattr(greater_than, "MEASURED", torch.arange(4, 98, 15))
        forget()
        yield
        forget()


def forget() -> None:
    for cached in (years_experiment.curve, years_experiment.mean_output, answer):
        cached.cache_clear()


@functools.cache
def answer(**knobs: Any) -> YearsResult:
    return run_years(YearsConfig(**knobs))


def way(result: YearsResult, name: str) -> dict[str, float]:
    return result.ways.set_index("way").loc[name].to_dict()


def test_each_way_is_what_its_name_says(model: HookedGPT, coder: Transcoder) -> None:
    given = greater_than.prompts("less")
    result = answer(year=40, verb="rewound", keep="all")
    assert result.prompt == "the war rewound from 1740 to 17" and tuple(result.ways["way"]) == years_experiment.WAYS
    whole = greater_than.measure(model, given)
    assert way(result, "model")["pd_mean"] == pytest.approx(whole.pd, abs=1e-5)
    assert way(result, "model")["kl_mean"] == pytest.approx(whole.kl, abs=1e-5)
    with replace_mlps(model, {0: coder}):
        replaced = greater_than.measure(model, given)
        logits = model(given.tokens)[40, -1, given.years]
    for name in ("transcoder", "kept"):  # all features kept are the whole transcoder
        assert way(result, name)["kl_mean"] == pytest.approx(replaced.kl, abs=1e-4)
    np.testing.assert_allclose(result.few, logits.softmax(-1).numpy(), atol=1e-5)
    np.testing.assert_allclose(result.truth, spans.truth("less", 40).numpy())
    assert result.kept == "all 80 features" and result.count == 80


def test_all_neurons_are_the_model_itself() -> None:
    result = answer(units="neurons", keep="all")
    np.testing.assert_allclose(result.few, result.model, atol=1e-5)
    assert result.kept == "all 40 neurons"


@pytest.mark.parametrize("kind", ["features", "neurons"])
@pytest.mark.parametrize("others", ["zero", "their mean"])
def test_what_is_kept_stands_on_the_curve(kind: str, others: str) -> None:
    for k in (0, MOST):
        result = answer(units=kind, others=others, k=k)
        row = result.curve[(result.curve["units"] == kind) & (result.curve["k"] == k)].iloc[0]
        assert way(result, "kept")["kl_mean"] == pytest.approx(row["kl"], abs=1e-4)
        assert way(result, "kept")["pd_mean"] == pytest.approx(row["pd"], abs=1e-4)
    assert result.areas[kind] == pytest.approx(result.curve[result.curve["units"] == kind]["kl"][1:].mean(), abs=1e-5)


def test_no_features_and_others_at_zero_leave_the_bias(model: HookedGPT, coder: Transcoder) -> None:
    given = greater_than.prompts("greater")
    bias = years_experiment.constant(coder.b_dec)
    result = answer(k=0)
    np.testing.assert_allclose(result.few, years_experiment.answers(given, bias)[32].softmax(-1).numpy(), atol=1e-6)
    assert result.kept == "0 of 80 features"


def test_scores_of_one_prompt_are_those_of_its_probabilities() -> None:
    result = answer(year=70)
    possible = result.truth > 0
    assert way(result, "model")["pd"] == pytest.approx(2 * result.model[possible].sum() - 1, abs=1e-5)
    assert way(result, "model")["kl"] == pytest.approx(
        float((result.truth * np.log(result.truth.clip(1e-30) / result.model))[possible].sum()), abs=1e-5
    )


def test_the_drawn_steps_are_the_best_ones() -> None:
    """R^2 from the drawn fit is the reported one, and no other single step fits better."""
    result = answer(k=0)
    for boost, fit, unit in zip(result.boosts, result.fits, result.units.itertuples(), strict=True):
        total = ((boost - boost.mean()) ** 2).sum()
        assert 1 - ((boost - fit) ** 2).sum() / total == pytest.approx(unit.r2, abs=1e-4)
        sides = [(boost[:place], boost[place:]) for place in range(1, 100)]
        left_over = [sum(((side - side.mean()) ** 2).sum() for side in pair) for pair in sides]
        assert ((boost - fit) ** 2).sum() == pytest.approx(min(left_over), rel=1e-3)
        assert set(np.flatnonzero(np.diff(fit)) + 1) == {unit.step}


def test_ends_of_the_knobs() -> None:
    for last in (False, True):
        values = {}
        for control in controls(YearsConfig):
            ends = control.options or (control.low, control.high)
            values[control.name] = ends[-1 if last else 0]
        result = run_years(YearsConfig.parse(values))
        assert np.isfinite(result.ways.drop(columns="way").to_numpy()).all()
        assert result.few.sum() == pytest.approx(1, abs=1e-4)
    assert len(YearsConfig.primary) <= 4


def test_a_transcoder_that_is_not_shipped_is_named(monkeypatch: pytest.MonkeyPatch, coder: Transcoder) -> None:
    from lab.circuits.transcoders.models import spans_assets

    SHIPPED.cache_clear()
    monkeypatch.setattr(spans_assets, "spans_coders", lambda: {("transcoder", 8e-4): coder, ("sae", 4e-4): coder})
    assert SHIPPED("8e-4") is coder
    with pytest.raises(CircuitError, match="lam: there is no transcoder of λ = 4e-4; there are 0.0008"):
        SHIPPED("4e-4")
    SHIPPED.cache_clear()


def test_the_prices_are_those_of_the_shipped_coders() -> None:
    from typing import get_args

    from lab.circuits.transcoders.models.spans_sweep import LAMBDAS, YEARS_LAMBDA

    assert tuple(map(float, get_args(years_experiment.Lambda))) == LAMBDAS
    assert float(YearsConfig().lam) == LAMBDAS[YEARS_LAMBDA]


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_pictures_draw_and_say_what_they_show(picture, theme) -> None:
    result = answer(units="neurons", keep="all")
    fig = picture(result, theme)
    assert fig.to_json() and fig.layout.title.text
    assert "exclud" not in fig.layout.title.text.lower()


def test_the_year_plot_puts_the_truth_behind() -> None:
    result = answer(k=0)
    truth, model, few = years_figures.year_plot(result).data
    np.testing.assert_allclose(truth.y, result.truth)
    np.testing.assert_allclose(model.y, result.model)
    assert few.line.color == LIGHT.accent and truth.line.color == LIGHT.truth
    assert "later years" in years_figures.year_plot(result).layout.title.text


def test_the_other_verb_flips_the_truth() -> None:
    later, earlier = answer(k=0), answer(year=40, verb="rewound", keep="all")
    assert set(np.flatnonzero(later.truth)) == set(range(33, 100)) and set(np.flatnonzero(earlier.truth)) == set(
        range(40)
    )
    assert "earlier years" in years_figures.year_plot(earlier).layout.title.text


def test_the_title_says_which_kind_is_ahead_whichever_it_is() -> None:
    assert "neurons stay nearer" in years_figures.few_title(0.6, 0.4)
    assert "features stay nearer" in years_figures.few_title(0.4, 0.6)
    assert "about as far" in years_figures.few_title(0.5, 0.5)


def test_the_mean_is_over_all_positions(model: HookedGPT) -> None:
    texts = spans_1l.texts(0, "measure", 4)
    written = model.run_with_cache(texts)[1]["blocks.0.hook_mlp_out"]
    assert torch.allclose(years_experiment.mean_output(), written.flatten(0, 1).mean(0), atol=1e-6)
