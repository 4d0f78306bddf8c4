"""Dashboards: activations against the model's own, bands and examples by brute force, and HTML that cannot harm."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import circuit_toys
import numpy as np
import pandas as pd
import pytest
import torch

from lab import results
from lab.circuits.transcoders.coders.coder import CoderConfig, SparseAutoencoder, Transcoder
from lab.circuits.transcoders.errors import CircuitError, HookedError
from lab.circuits.transcoders.hooked import ACTIVATIONS
from lab.circuits.transcoders.units.activations import Activations, Neurons
from lab.circuits.transcoders.units.dashboard import NO_STREAM, Dashboard, coloured_tokens_html, dashboard
from lab.circuits.transcoders.units.weight_readings import deembed, encoder_direction, logit_lens, ov_norms, pullback
from lab.provenance import Record

READ, OUT = "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"
MODEL, CODERS = circuit_toys.model(), circuit_toys.coders()
CODER = CODERS[1]
TOKENS = torch.randint(0, circuit_toys.VOCABULARY, (60, 10), generator=torch.Generator().manual_seed(7))
TOKENS[:, 0] = 0
TEXTS = Activations.collect(MODEL, TOKENS, [READ, OUT], dtype=torch.float64)
CACHE = MODEL.run_with_cache(TOKENS)[1]


def sae() -> SparseAutoencoder:
    made = SparseAutoencoder(CoderConfig(12, 30, 12, hook_name=OUT, hook_name_out=OUT)).double()
    made.load_state_dict(CODER.state_dict())
    return made.requires_grad_(False)


# --- activations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation, more", [("relu", {}), ("topk", {"k": 4}), ("jumprelu", {})])
def test_one_feature_is_a_column_of_all(activation: str, more: dict[str, int]) -> None:
    coder = Transcoder(CoderConfig(12, 30, 12, activation, **more)).double()  # type: ignore[arg-type]
    coder.load_state_dict(CODER.state_dict(), strict=False)
    if coder.threshold is not None:
        coder.threshold.data = torch.linspace(0, 2, 30, dtype=torch.float64)
    z = coder.encode(CACHE[READ])
    for feature in range(0, 30, 7):
        torch.testing.assert_close(TEXTS.of(1, coder, feature), z[..., feature])
    torch.testing.assert_close(torch.cat(list(TEXTS.encoded(1, coder, TEXTS.counted))), z[:, 1:].flatten(0, 1))


def test_an_autoencoder_reads_the_output_or_what_it_says() -> None:
    torch.testing.assert_close(TEXTS.of(1, sae(), 4), sae().encode(CACHE[OUT])[..., 4])
    other = SparseAutoencoder(CoderConfig(12, 30, 12, hook_name=READ, hook_name_out=READ)).double()
    torch.testing.assert_close(TEXTS.of(1, other, 4), other.encode(CACHE[READ])[..., 4])


def test_neurons_are_the_models_own() -> None:
    neurons = Neurons(MODEL, 1)
    for number in (0, 19):
        torch.testing.assert_close(TEXTS.of(1, neurons, number), CACHE["blocks.1.mlp.hook_post"][..., number])


def test_half_precision_takes_two_bytes_a_number_and_stays_close() -> None:
    half = Activations.collect(MODEL, TOKENS, [READ])
    assert half.bytes == 2 * 60 * 10 * 12
    torch.testing.assert_close(half.of(1, CODER, 5), TEXTS.of(1, CODER, 5), rtol=0.01, atol=0.01)
    loud = circuit_toys.model()
    loud.b_out[1] += 1e6
    with pytest.raises(CircuitError, match="dtype torch.float16 is too narrow"):
        Activations.collect(loud, TOKENS, [OUT])


# --- dashboards ---------------------------------------------------------------------------------------------------


def board(unit: int = 5, **more: object) -> Dashboard:
    return dashboard(MODEL, CODER, 1, TEXTS, unit, **more)  # type: ignore[arg-type]


def test_figures_by_brute_force() -> None:
    found = board(bands=5)
    z = CODER.encode(CACHE[READ])[:, 1:, 5].flatten().tolist()
    firing = [value for value in z if value > 0]
    assert found.tokens == 540 and found.frequency == pytest.approx(len(firing) / 540)
    assert found.maximum == pytest.approx(max(firing)) and found.live and found.note == ""
    assert found.at_bos == pytest.approx(float(CODER.encode(CACHE[READ])[0, 0, 5]))
    width = max(firing) / 5
    np.testing.assert_allclose(np.diff(found.edges), -width)
    for band in range(5):
        low, high = max(firing) - (band + 1) * width, max(firing) - band * width
        inside = sum(low < value <= high for value in firing)
        assert found.shares[band] == pytest.approx(inside / 540)
    assert found.counts.sum() == len(firing) and found.bins[-1] == pytest.approx(max(firing))
    assert found.shares.sum() == pytest.approx(found.frequency)


def test_examples_stand_in_their_bands_and_show_their_texts() -> None:
    found = board(bands=4, examples=3, window=2, pieces=lambda some: [f"<{token}>" for token in some])
    z = CODER.encode(CACHE[READ])[..., 5]
    assert found.examples["example"].nunique() == 12
    for _, rows in found.examples.groupby("example"):
        assert rows["centre"].sum() == 1
        centre = rows[rows["centre"]].iloc[0]
        high, low = found.edges[centre["band"]], found.edges[centre["band"] + 1]
        assert low < centre["value"] <= high + 1e-12 and centre["position"] > 0
        first, last = max(0, centre["position"] - 2), min(9, centre["position"] + 2)
        assert rows["position"].tolist() == list(range(first, last + 1))
        text = centre["text"]
        assert rows["token"].tolist() == TOKENS[text, first : last + 1].tolist()
        assert rows["piece"].tolist() == [f"<{token}>" for token in rows["token"]]
        np.testing.assert_allclose(rows["value"], z[text, first : last + 1])


def test_examples_are_drawn_uniformly_from_a_band_and_none_twice() -> None:
    """Ten draws of each of 40 seeds: chi-square over ten groups of firings stays below its 0.1 % point."""
    z = CODER.encode(CACHE[READ])[..., 5]
    firing = [(n, t) for n in range(60) for t in range(1, 10) if z[n, t] > 0]
    group = {place: number * 10 // len(firing) for number, place in enumerate(firing)}
    counts, expected = np.zeros(10), np.bincount(list(group.values())) / len(firing) * 400
    for seed in range(40):
        rows = board(bands=1, examples=10, window=0, seed=seed).examples
        places = set(zip(rows["text"], rows["position"], strict=True))
        assert len(places) == 10
        for place in places:
            counts[group[place]] += 1
    assert ((counts - expected) ** 2 / expected).sum() < 27.9


def test_a_seed_gives_the_same_dashboard_and_another_seed_other_examples() -> None:
    pd.testing.assert_frame_equal(board(seed=3).examples, board(seed=3).examples)
    assert not board(seed=3).examples.equals(board(seed=4).examples)


def test_tokens_do_as_well_as_what_was_collected() -> None:
    half = Activations.collect(MODEL, TOKENS, [READ])
    one, other = dashboard(MODEL, CODER, 1, TOKENS, 5), dashboard(MODEL, CODER, 1, half, 5)
    pd.testing.assert_frame_equal(one.examples, other.examples)


def test_readings_are_listed_from_the_strongest() -> None:
    found = board(earlier={0: CODERS[0]}, pieces=lambda some: [f"#{token}" for token in some])
    logits = logit_lens(MODEL, CODER, 5)
    assert found.top_logits["token"].tolist() == logits.argsort(descending=True)[:10].tolist()
    assert found.bottom_logits["token"].tolist() == logits.argsort()[:10].tolist()
    assert found.top_logits["piece"].iloc[0] == f"#{int(logits.argmax())}"
    direction = encoder_direction(CODER, 5)
    norms = ov_norms(MODEL, direction)
    np.testing.assert_allclose(found.ov_norms, norms)
    layer, head = divmod(int(norms.argmax()), 2)
    ways = {
        "direct": deembed(MODEL, direction),
        "extended": deembed(MODEL, direction, extended=True),
        f"head {layer}.{head}": deembed(MODEL, direction, (layer, head), extended=layer > 0),
    }
    assert found.deembedding["way"].unique().tolist() == list(ways)
    for way, scores in ways.items():
        rows = found.deembedding[found.deembedding["way"] == way]
        np.testing.assert_allclose(rows["value"], scores.sort(descending=True).values[:10])
    weights = pullback(direction, CODERS[0])
    assert found.pullbacks["feature"].tolist() == weights.argsort(descending=True)[:10].tolist()
    assert set(found.pullbacks["layer"]) == {0}


def test_layer_0_has_no_extended_embedding_and_heads_of_its_own_layer_only() -> None:
    found = dashboard(MODEL, CODERS[0], 0, TOKENS, 5)
    assert found.ov_norms is not None and found.ov_norms.shape == (1, 2)
    assert found.deembedding["way"].str.replace(r"\d$", "", regex=True).unique().tolist() == ["direct", "head 0."]


def test_a_neurons_positive_part_is_shown() -> None:
    found = dashboard(MODEL, Neurons(MODEL, 1), 1, TEXTS, 2)
    post = CACHE["blocks.1.mlp.hook_post"][:, 1:, 2]
    assert bool((post < 0).any()) and found.kind == "neuron"
    assert found.frequency == pytest.approx(float((post > 0).double().mean())) and (found.examples["value"] >= 0).all()
    assert float(ACTIVATIONS["gelu_new"](torch.linspace(-9, 9, 9001, dtype=torch.float64)).min()) > -0.1701


def test_a_dead_feature_says_so() -> None:
    coder = circuit_toys.coders()[1]
    coder.b_enc[7] = -1e6
    found = dashboard(MODEL, coder, 1, TEXTS, 7)
    assert not found.live and found.maximum == found.frequency == found.counts.sum() == found.shares.sum() == 0
    assert "silent on all 540 tokens" in found.note and found.examples.empty
    assert len(found.top_logits) == 10 and len(found.deembedding) == 30


def test_no_weight_leads_to_an_autoencoder_of_the_output() -> None:
    found = dashboard(MODEL, sae(), 1, TEXTS, 5, earlier={0: CODERS[0]})
    assert found.note == NO_STREAM and found.ov_norms is None
    assert found.deembedding.empty and found.pullbacks.empty and len(found.examples) and found.kind == "sae"


def test_texts_without_a_boundary_count_every_token() -> None:
    texts = Activations.collect(MODEL, TOKENS, [READ], bos=False)
    found = dashboard(MODEL, CODER, 1, texts, 5)
    assert found.tokens == 600 and math.isnan(found.at_bos)


@pytest.mark.parametrize("units", [CODER, sae(), Neurons(MODEL, 1)])
def test_a_dashboard_is_stored_and_read_back(units: Transcoder | Neurons, tmp_path: Path) -> None:
    found = dashboard(MODEL, units, 1, TEXTS, 5)
    record = Record(
        slug="transcoders", kind="experiment", key="x", code="", seconds=0.0, recorded="", machine={}, versions={}
    )
    results.save(tmp_path / "r", found, record)
    back, _ = results.load(tmp_path / "r", Dashboard)
    for field in dataclasses.fields(Dashboard):
        mine, other = getattr(found, field.name), getattr(back, field.name)
        if isinstance(mine, pd.DataFrame):
            pd.testing.assert_frame_equal(mine, other, check_index_type=False, check_column_type=False)
        else:
            np.testing.assert_array_equal(mine, other)


def test_what_is_not_there_is_a_sentence() -> None:
    for unit in (-1, 30):
        with pytest.raises(CircuitError, match=f"feature {unit} does not exist; the coder has 30, from 0"):
            board(unit)
    with pytest.raises(CircuitError, match="neuron 20 does not exist; the MLP has 20"):
        dashboard(MODEL, Neurons(MODEL, 1), 1, TEXTS, 20)
    for name, value in (("bands", 0), ("examples", 0), ("window", -1)):
        with pytest.raises(CircuitError, match=f"{name} must be at least"):
            board(**{name: value})
    with pytest.raises(CircuitError, match="layer 2 does not exist"):
        dashboard(MODEL, CODER, 2, TEXTS, 5)
    with pytest.raises(CircuitError, match="hook_name is 'blocks.1"):
        dashboard(MODEL, CODER, 0, TEXTS, 5)
    with pytest.raises(CircuitError, match="'blocks.0.ln2.hook_normalized' was not collected"):
        dashboard(MODEL, CODERS[0], 0, TEXTS, 5)
    with pytest.raises(CircuitError, match="neurons are of layer 1"):
        dashboard(MODEL, Neurons(MODEL, 1), 0, TEXTS, 5)
    with pytest.raises(CircuitError, match="collected of another model"):
        dashboard(circuit_toys.model(), CODER, 1, TEXTS, 5)
    with pytest.raises(CircuitError, match="earlier: layer 1 does not come before layer 1"):
        board(earlier={1: CODER})
    with pytest.raises(CircuitError, match="maps width 5"):
        dashboard(MODEL, Transcoder(CoderConfig(5, 30, 5)), 1, TEXTS, 5)
    with pytest.raises(CircuitError, match="reads width 5"):
        dashboard(MODEL, SparseAutoencoder(CoderConfig(5, 30, 5, hook_name=READ)), 1, TEXTS, 5)
    with pytest.raises(CircuitError, match="example 99 does not exist"):
        board().html(99)
    for places in ([], ["hook_embed"], ["blocks.7.hook_mlp_out"]):
        with pytest.raises(HookedError, match="hook"):
            Activations.collect(MODEL, TOKENS, places)
    with pytest.raises(HookedError, match="at least one text"):
        Activations.collect(MODEL, TOKENS[:0], [READ])


# --- coloured tokens ----------------------------------------------------------------------------------------------


class Spans(HTMLParser):
    """Reads the tokens back as a browser would."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.styles: list[str] = []
        self.shown: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "span":
            self.titles.append(dict(attrs)["title"] or "")
            self.styles.append(dict(attrs).get("style") or "")
            self.shown.append("")

    def handle_data(self, data: str) -> None:
        self.shown[-1] += data


def test_tokens_come_back_as_they_were_whatever_they_are() -> None:
    pieces = ["<script>alert(1)</script>", '" onmouseover="x', "&lt;", "'", "   ", "↵", "</span>", "日"]
    found = Spans(coloured_tokens_html(pieces, [0.0, 1, 2, 3, 4, 5, 6, 7.25]))
    assert found.tags == ["div"] + ["span"] * 8 and found.shown == pieces
    assert found.titles == ["0", "1", "2", "3", "4", "5", "6", "7.25"]


def test_colour_grows_with_the_value_and_the_mark_is_underlined() -> None:
    text = coloured_tokens_html(["a", "b", "c", "d"], [0.0, 1.0, 2.0, -3.0], maximum=4.0, mark=1)
    styles = Spans(text).styles
    strength = [float(found[1]) if (found := re.search(r",([\d.]+)\)", style)) else 0.0 for style in styles]
    assert (
        strength[0] == strength[3] == 0 and strength[2] == pytest.approx(2 * strength[1], abs=2e-3) and strength[1] > 0
    )
    assert ["underline" in style for style in styles] == [False, True, False, False]


def test_a_dashboards_examples_are_shown_on_one_scale() -> None:
    found = board(examples=1, window=0)
    strength = [float(re.search(r",([\d.]+)\)", found.html(number))[1]) for number in range(5)]  # type: ignore[index]
    values = found.examples["value"].to_numpy()
    np.testing.assert_allclose(strength, 0.6 * values / found.maximum, atol=1e-3)


def test_nothing_to_colour() -> None:
    assert Spans(coloured_tokens_html([], [])).tags == ["div"]
    assert Spans(coloured_tokens_html(["a"], [0.0])).styles == [""]
    with pytest.raises(CircuitError, match="pieces and values must go together, got 1 and 2"):
        coloured_tokens_html(["a"], [1.0, 2.0])
    with pytest.raises(CircuitError, match="values must be finite"):
        coloured_tokens_html(["a"], [math.nan])
