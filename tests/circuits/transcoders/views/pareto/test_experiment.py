"""A small coder trains on a tiny model: its points are those of `evaluate`, what is partial is marked, Stop stops."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from stops import stopper

from lab import catalog, ledger, rooms
from lab.circuits.transcoders.coders.coder import CoderConfig, Kind, SparseAutoencoder, Transcoder
from lab.circuits.transcoders.coders.evaluation import evaluate, replacement_loss
from lab.circuits.transcoders.hooked import HookedConfig, HookedGPT
from lab.circuits.transcoders.models.languages import LanguageName
from lab.circuits.transcoders.views.pareto import experiment as pareto_experiment
from lab.circuits.transcoders.views.pareto import figures as pareto_figures
from lab.circuits.transcoders.views.pareto.experiment import ImitatedMlp, ParetoConfig, ParetoResult, run_pareto
from lab.experiment import Stopped, no_progress
from lab.plot import DARK, LIGHT

STEPS = 20


def config(**knobs: Any) -> ParetoConfig:
    """A shorter run than the knobs allow."""
    return ParetoConfig.model_construct(**{"steps": STEPS, "d_sae": 24, "rate": 1e-2, **knobs})


def coders(width: int) -> dict[tuple[Kind, float], Transcoder]:
    generator = torch.Generator().manual_seed(0)
    found: dict[tuple[Kind, float], Transcoder] = {}
    for place, lam in enumerate((1e-3, 2e-3)):
        for kind, of in (("transcoder", Transcoder), ("sae", SparseAutoencoder)):
            made = of(CoderConfig(width, 40, width), generator=generator).requires_grad_(False)
            made.b_enc.sub_(1.5 * (place + 1))  # the second of a kind is sparser
            found[kind, lam] = made
    return found


@pytest.fixture(scope="module")
def imitated() -> Iterator[ImitatedMlp]:
    """A tiny MLP to imitate in place of the lab's own."""
    torch.manual_seed(0)
    model = HookedGPT(HookedConfig(1, 8, 2, 4, 16, 12, 11)).requires_grad_(False).eval()
    model.W_out.mul_(4)
    generator = torch.Generator().manual_seed(1)
    held = torch.randint(0, 11, (16, 12), generator=generator)
    tiny = ImitatedMlp(
        model, 0, lambda seed: torch.randint(0, 11, (50, 12), generator=generator.manual_seed(seed)), held, coders(8)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pareto_experiment, "imitated_mlp", lambda name: tiny)
        for name, value in (("BATCH", 32), ("POOL", 128), ("BUFFER", 64)):
            patch.setattr(pareto_experiment, name, value)
        patch.setattr(pareto_experiment, "KEPT", (2, 4, 16, 400))
        pareto_experiment._reference.cache_clear()
        yield tiny
        pareto_experiment._reference.cache_clear()


@pytest.fixture(scope="module")
def run(imitated: ImitatedMlp) -> tuple[ParetoResult, list[ParetoResult]]:
    """A whole run and what it showed on its way."""
    partials: list[ParetoResult] = []

    def progress(fraction: float, note: str = "", partial: Any | None = None) -> None:
        assert 0 <= fraction <= 1
        if partial is not None:
            partials.append(partial)

    return run_pareto(config(), progress=progress), partials


@pytest.mark.parametrize("kind", ["transcoder", "sae"])
def test_points_are_those_of_evaluate(imitated: ImitatedMlp, kind: Kind) -> None:
    coder = imitated.coders[kind, 1e-3]
    point, one = imitated.point(coder), evaluate(imitated.model, 0, coder, imitated.held_out)
    for name in ("l0", "kl", "recovered", "fvu", "dead"):
        assert point[name] == pytest.approx(getattr(one, name), rel=1e-3, abs=1e-6), name
    assert point["added"] == pytest.approx(one.ce - one.ce_original, abs=1e-5)
    assert point["error"] > 0


def test_neurons_are_kept_by_their_size(imitated: ImitatedMlp) -> None:
    """By brute force on each token; all of them kept are the model."""
    model, (_, x, y) = imitated.model, imitated.as_it_is
    post = pareto_experiment.ACTIVATIONS[model.cfg.activation](x @ model.W_in[0] + model.b_in[0])
    kept = pareto_experiment.top_neurons(model, 0, 3)(x, y)
    for text, position in ((0, 0), (5, 7)):
        own = post[text, position]
        largest = sorted(range(16), key=lambda unit: -abs(float(own[unit])))[:3]
        by_hand = sum(own[unit] * model.W_out[0, unit] for unit in largest) + model.b_out[0]
        assert torch.allclose(kept[text, position], by_hand, atol=1e-5)
    assert imitated.faithful(pareto_experiment.top_neurons(model, 0, 16))["added"] == pytest.approx(0, abs=1e-6)
    assert list(pareto_experiment.references("spans-1l")[1]["l0"]) == [2, 4, 16]  # 400 are more than there are


def test_levels_are_those_of_the_ablations(imitated: ImitatedMlp) -> None:
    levels = pareto_experiment.references("spans-1l")[2]
    one = evaluate(imitated.model, 0, imitated.coders["sae", 1e-3], imitated.held_out)
    assert levels["original"] == pytest.approx(one.ce_original, abs=1e-5)
    assert levels["zero"] == pytest.approx(one.ce_zero - one.ce_original, abs=1e-5)
    assert levels["mean"] == pytest.approx(one.ce_mean - one.ce_original, abs=1e-5)


def test_a_run_and_its_way(imitated: ImitatedMlp, run: tuple[ParetoResult, list[ParetoResult]]) -> None:
    result, partials = run
    assert result.done and result.path["step"].tolist() == [4, 8, 12, 16, 20]
    assert result.loss["step"].iloc[-1] == STEPS and result.loss["loss"].iloc[-1] < result.loss["loss"].iloc[0]
    assert result.path["fvu"].iloc[-1] < result.path["fvu"].iloc[0]
    assert partials and not any(partial.done for partial in partials)
    for partial in partials:
        pd.testing.assert_frame_equal(partial.path, result.path.head(len(partial.path)), check_dtype=False)


def test_the_same_seed_gives_the_same_coder(imitated: ImitatedMlp) -> None:
    once, again, other = (run_pareto(config(steps=2, seed=seed), progress=no_progress).path for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(once, again)
    assert not np.allclose(once["kl"], other["kl"])


@pytest.mark.parametrize("kind", ["sae", "topk", "skip"])
def test_every_kind_trains(imitated: ImitatedMlp, kind: str) -> None:
    result = run_pareto(config(kind=kind, steps=2, k=5), progress=no_progress)
    now = result.path.iloc[-1]
    assert np.isfinite(now.to_numpy(float)).all() and result.kind == kind
    if kind == "topk":
        assert now["l0"] <= 5 + 1e-5


def test_sites_are_what_was_asked_for() -> None:
    topk = pareto_experiment.site(ParetoConfig(kind="topk", k=8, d_sae=1024), 2)
    assert (topk.activation, topk.k, topk.d_sae, topk.layer, topk.loss.lam) == ("topk", 8, 1024, 2, 0.0)
    assert pareto_experiment.site(ParetoConfig(kind="skip", lam=2e-3), 0).skip
    assert pareto_experiment.site(ParetoConfig(kind="sae"), 0).kind == "sae"


def test_stop_stops(imitated: ImitatedMlp) -> None:
    pareto_experiment._reference.cache_clear()
    with pytest.raises(Stopped):
        run_pareto(config(), progress=stopper(8))  # while others are measured
    with pytest.raises(Stopped):
        run_pareto(config(steps=100_000), progress=stopper(25))


def test_pictures_of_a_run_and_of_one_that_has_just_begun(run: tuple[ParetoResult, list[ParetoResult]]) -> None:
    result, partials = run
    begun = partials[0].__class__(**{**vars(result), "path": result.path.head(0), "done": False})
    for one in (result, begun):
        for theme in (LIGHT, DARK):
            for draw in (pareto_figures.pareto_scatter, pareto_figures.loss_curve, pareto_figures.dead_share):
                fig = draw(one, theme)
                assert fig.to_json() and fig.layout.title.text
    assert "is measured a few times" in pareto_figures.pareto_title(begun)
    assert any(trace.name == "this transcoder" for trace in pareto_figures.pareto_scatter(result).data)
    assert not any(trace.name == "this transcoder" for trace in pareto_figures.pareto_scatter(begun).data)


def test_the_scatter_shows_the_ledger_s_seeds_and_either_measure(run: tuple[ParetoResult, list[ParetoResult]]) -> None:
    result, _ = run
    row = {
        "transcoder_0_l0": 20.0,
        "transcoder_0_added": -0.1,
        "transcoder_0_kl": 0.3,
        "short_transcoder_0_l0": 7.0,
        "one": 1,
    }
    plain = pareto_figures.pareto_scatter(result)
    for measure, value in (("added", pareto_figures.FLOOR), ("kl", 0.3)):
        fig = pareto_figures.pareto_scatter(result, measure=measure, seeds=[row, row])
        assert len(fig.data) == len(plain.data) + 1
        assert list(fig.data[0].x) == [20.0, 20.0] and list(fig.data[0].y) == [value, value]
    by_kl = pareto_figures.pareto_scatter(result, measure="kl")
    np.testing.assert_allclose(by_kl.data[-1].y, result.path["kl"])


def test_the_title_compares_only_where_others_have_been(run: tuple[ParetoResult, list[ParetoResult]]) -> None:
    path = run[0].path.tail(1).assign(l0=8.0, added=0.02)
    neurons = pd.DataFrame({"l0": [4.0, 16.0], "added": [0.4, 0.1], "error": 0.0, "kl": 0.0})
    shipped = run[0].shipped.assign(l0=[30.0, 31.0, 40.0, 41.0], added=0.01)
    result = ParetoResult(**{**vars(run[0]), "path": path, "neurons": neurons, "shipped": shipped})
    assert pareto_figures.pareto_title(result) == (
        "This transcoder: 8.0 active, 0.02 nats lost; with as many active, neurons 0.2"
    )


def test_shipped_losses_are_measured_on_the_same_tokens(imitated: ImitatedMlp) -> None:
    shipped = pareto_experiment.references("spans-1l")[0]
    assert len(shipped) == 4 and set(shipped["kind"]) == {"transcoder", "sae"}
    own = replacement_loss(imitated.model, imitated.held_out, {})
    row = shipped[(shipped["kind"] == "sae") & (shipped["lam"] == 2e-3)].iloc[0]
    one = evaluate(imitated.model, 0, imitated.coders["sae", 2e-3], imitated.held_out)
    assert row["added"] == pytest.approx(one.ce - own, abs=1e-5)


def test_the_picture_takes_the_seeds_of_the_right_study(
    monkeypatch: pytest.MonkeyPatch, run: tuple[ParetoResult, list[ParetoResult]]
) -> None:
    from lab.circuits.transcoders import figures

    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(ledger, "rows", lambda slug, study: asked.append((slug, study)) or [])  # type: ignore[func-returns-value]
    for model in get_args(LanguageName):
        figures.beside_the_ledger(dataclasses.replace(run[0], model=model))
    assert sorted(asked) == [("transcoders", "pareto"), ("transcoders", "spans")]
    assert set(figures.STUDIES.values()) <= set(rooms.studies(catalog.get("transcoders")))
