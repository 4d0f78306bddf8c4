"""Pictures of units, their wiring and their rating: what they draw is what the result says, dead and empty ones included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from lab.circuits.transcoders.units.dashboard import Dashboard
from lab.circuits.transcoders.views.browse import Survey
from lab.circuits.transcoders.views.features import figures as features_figures
from lab.circuits.transcoders.views.rating import figures as rating_figures
from lab.circuits.transcoders.views.rating.experiment import PAPER, Outcome
from lab.circuits.transcoders.views.rating.session import Comparison
from lab.circuits.transcoders.views.wiring import figures as wiring_figures
from lab.circuits.transcoders.views.wiring.experiment import WiringResult
from lab.plot import DARK, LIGHT, Theme

BOTH = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
NASTY = ["<b>x</b>", '"', " self", "        y", "\\\\n", "a", "b", "c", "d", "e"]


def listed(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"token": range(10), "piece": NASTY, "value": values})


def board(**changes: Any) -> Dashboard:
    """A feature on 1,000 tokens: 8 firings in the weakest of four bands, 2 in the strongest."""
    bins = np.linspace(0, 2.0, 41)
    counts = np.zeros(40, dtype=int)
    counts[[1, 39]] = 8, 2
    empty = pd.DataFrame(columns=["example"])
    fields = {
        "kind": "transcoder",
        "layer": 2,
        "unit": 1,
        "tokens": 1000,
        "frequency": 0.01,
        "maximum": 2.0,
        "at_bos": 0.0,
        "edges": np.array([2.0, 1.5, 1.0, 0.5, 0.0]),
        "shares": np.array([0.002, 0.0, 0.0, 0.008]),
        "bins": bins,
        "counts": counts,
        "examples": empty,
        "top_logits": listed(np.linspace(1, 0.1, 10)),
        "bottom_logits": listed(-np.linspace(2, 0.1, 10)),
        "deembedding": empty,
        "ov_norms": None,
        "pullbacks": empty,
        "note": "",
    }
    return Dashboard(**(fields | changes))


def dead() -> Dashboard:
    return board(frequency=0.0, maximum=0.0, edges=np.zeros(5), shares=np.zeros(4), counts=np.zeros(40, dtype=int))


def wiring(**changes: Any) -> WiringResult:
    """A feature of layer 2 with 60 earlier ones, of which the best wired adds nothing and the second adds most."""
    weight = np.linspace(1.0, -0.5, 60)
    strength = np.zeros(60)
    strength[[1, 40]] = 0.8, 0.3
    earlier = pd.DataFrame({"layer": [0, 1] * 30, "feature": range(60), "weight": weight, "strength": strength})
    earlier["writes"] = ['‘<i>’ ‘"’'] * 10 + [""] * 50
    through = pd.DataFrame(
        {"head": ["1.0"] * 2 + ["2.1"] * 2, "layer": 0, "feature": range(4), "weight": 0.5, "writes": "w"}
    )
    reads = pd.concat([listed(np.linspace(3, 1, 10)).assign(way=way) for way in ("direct", "extended", "head 2.1")])
    fields = {
        "model": "stdlib-gpt",
        "kind": "transcoder",
        "layer": 2,
        "unit": 7,
        "heads": np.array([[0.1, 0.2], [0.3, 0.1], [0.2, 0.9]]),
        "reads": reads,
        "earlier": earlier,
        "through": through,
        "agreement": {"10": 0.2, "50": 0.84},
        "over": "at ‘<’",
        "note": "",
        "context": pd.DataFrame(columns=["piece", "value", "mark"]),
    }
    return WiringResult(**(fields | changes))


def traces(fig: go.Figure) -> dict[str, Any]:
    return {trace.name: trace for trace in fig.data}


def sound(fig: go.Figure, theme: Theme) -> str:
    """It has a title, the theme's ink, and nothing in it that plotly would take for markup or cannot name."""
    written = str(fig.to_dict())
    assert fig.layout.font.color == theme.ink and "&quot;" not in written
    assert not any(tag in written for tag in ("<b>x", "<i>"))
    assert fig.layout.title.text
    return str(fig.layout.title.text)


# --- one unit --------------------------------------------------------------------------------------------------------


@BOTH
def test_a_histogram_shows_what_the_maxima_hide(theme: Theme) -> None:
    fig = features_figures.histogram(board(), theme)
    assert "20 % of its firings: 2 of 10" in sound(fig, theme)
    (bars,) = fig.data
    assert list(bars.y) == [8, 2] and np.allclose(bars.x, [0.075, 1.975])
    assert bars.marker.opacity[0] < bars.marker.opacity[1] == 1
    assert [note.text for note in fig.layout.annotations] == ["0.20 %", "0 %", "0 %", "0.80 %"]
    assert [shape.x0 for shape in fig.layout.shapes] == [1.5, 1.0, 0.5]


@BOTH
def test_a_dead_unit_has_a_picture_that_says_so(theme: Theme) -> None:
    fig = features_figures.histogram(dead(), theme)
    assert sound(fig, theme) == "Feature 1 of layer 2 never fires" and not fig.data
    assert "silent on all 1,000 tokens" in fig.layout.annotations[0].text


def test_a_headline_names_the_unit_and_where_its_firings_lie() -> None:
    assert features_figures.headline(board()) == (
        "Feature 1 of layer 2 fires on 1.0 % of tokens, 80 % of them in the weakest of 4 bands"
    )
    assert "“ends a call”" in features_figures.headline(board(kind="sae"), "ends a call")
    assert features_figures.headline(dead()) == "Feature 1 of layer 2 is silent on all 1,000 tokens"


@BOTH
def test_logits_go_both_ways_from_zero(theme: Theme) -> None:
    fig = features_figures.logits(board(), theme)
    title = sound(fig, theme)
    found = traces(fig)
    assert list(found["likelier"].x) == list(np.linspace(1, 0.1, 10)) and max(found["less likely"].x) < 0
    assert "‘&lt;b&gt;x&lt;/b&gt;’" in title and list(found["likelier"].text)[1:4] == ['‘"’', "‘␣self’", "‘␣×8y’"]
    low, high = fig.layout.xaxis.range
    assert low == -high and high > 2


@BOTH
def test_all_units_lie_where_they_fire(theme: Theme) -> None:
    found = Survey(
        1000, np.array([0.0, 0.01, 0.2, 1e-4]), np.array([0.0, 0.5, 1.5, 0.2]), np.array([0.0, 2.0, 4.0, 0.3])
    )
    labels = {(2, 2): "<i>commas", (1, 0): "another layer's", (2, 99): "no such unit"}
    fig = features_figures.all_units(found, board(), theme, labels=labels)
    assert sound(fig, theme) == (
        "2 of the 4 features of layer 2 are live; 1 never fire, 1 on at most one token in 10,000"
    )
    groups = traces(fig)
    assert {name: list(trace.customdata) for name, trace in groups.items()} == {
        "live": [1, 2],
        "rare or silent": [0, 3],
        "with your label": [2],
        "this one": [1],
    }
    assert groups["rare or silent"].x[0] > 0, "a logarithmic axis has no zero"
    assert "&lt;i&gt;commas" in groups["with your label"].text[0] and "never" in groups["rare or silent"].text[0]
    assert "never" in fig.layout.xaxis.ticktext and list(groups["live"].y) == [0.5, 1.5]


def test_a_layer_without_silent_units_says_so() -> None:
    found = Survey(1000, np.array([0.3, 0.01]), np.ones(2), np.ones(2))
    fig = features_figures.all_units(found, board(), labels=None)
    assert str(fig.layout.title.text).endswith("are live; none is silent") and "never" not in fig.layout.xaxis.ticktext


# --- wiring ----------------------------------------------------------------------------------------------------------


@BOTH
def test_the_map_of_heads_can_be_clicked(theme: Theme) -> None:
    fig = wiring_figures.ov_map(wiring(), theme, head="2.1")
    assert sound(fig, theme).startswith("Head 2.1 can bring feature 7 of layer 2 most from elsewhere: 0.90")
    found = traces(fig)
    assert np.allclose(found["OV norm"].z, wiring().heads)
    assert list(found["heads"].customdata) == ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1"]
    assert found["heads"].marker.opacity == 0 and found["heads"].unselected.marker.opacity == 0
    (frame,) = fig.layout.shapes
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (0.5, 1.5, 1.5, 2.5)
    assert not wiring_figures.ov_map(wiring(), theme).layout.shapes


@BOTH
@pytest.mark.parametrize(
    ("way", "says"), [("direct", "directly"), ("extended", "layer 0"), ("head 2.1", "end of head 2.1")]
)
def test_tokens_that_are_read(way: str, says: str, theme: Theme) -> None:
    fig = wiring_figures.tokens_read(wiring(), theme, way=way)
    assert says in sound(fig, theme)
    (bars,) = fig.data
    assert list(bars.x) == list(np.linspace(3, 1, 10)) and fig.layout.yaxis.ticktext[2] == "‘␣self’"


@BOTH
def test_earlier_features_by_weight(theme: Theme) -> None:
    fig = wiring_figures.earlier_features(wiring(), theme, labels={(1, 1): "<i>a label that is longer than its place"})
    assert (
        sound(fig, theme) == "By weights alone, feature 0 of layer 0 drives feature 7 of layer 2 most at the same token"
    )
    (bars,) = fig.data
    assert [list(data) for data in bars.customdata[:3]] == [[0, 0], [1, 1], [0, 2]] and len(bars.x) == 10
    assert fig.layout.yaxis.ticktext[1].startswith("&lt;i&gt;a label") and fig.layout.yaxis.ticktext[1].endswith("…")
    assert fig.layout.yaxis.ticktext[2] == "0 · 2"
    through = wiring_figures.earlier_features(wiring(), theme, head="2.1")
    assert "through head 2.1" in sound(through, theme) and [data[1] for data in through.data[0].customdata] == [2, 3]


@BOTH
def test_weights_against_an_input(theme: Theme) -> None:
    fig = wiring_figures.weights_and_input(wiring(), theme, labels={(0, 40): "drives it"})
    assert sound(fig, theme) == (
        "Of the features best wired to feature 7 of layer 2, 2 of the 10 and 42 of the 50 also add most at ‘&lt;’"
    )
    groups = traces(fig)
    assert sum(len(trace.x) for trace in groups.values()) == 60
    assert 1 in [data[1] for data in groups["both"].customdata]
    assert 40 in [data[1] for data in groups["adding most 10"].customdata]
    assert any("drives it" in text for text in groups["adding most 10"].text)


@BOTH
def test_without_earlier_features_or_firings_the_picture_says_why(theme: Theme) -> None:
    empty = wiring().earlier.iloc[:0]
    for fig in (
        wiring_figures.earlier_features(wiring(earlier=empty), theme),
        wiring_figures.weights_and_input(wiring(earlier=empty), theme),
        wiring_figures.weights_and_input(wiring(over=""), theme),
    ):
        assert not fig.data and any(word in sound(fig, theme) for word in ("No feature", "no earlier", "does not fire"))


# --- rating ----------------------------------------------------------------------------------------------------------


@BOTH
def test_answers_stand_beside_the_paper_s(theme: Theme) -> None:
    counts = {
        "transcoder": {"yes": 4, "maybe": 1, "no": 0},
        "sae": {"yes": 2, "maybe": 1, "no": 2},
        "neuron": {"yes": 1, "maybe": 0, "no": 4},
    }
    found = Outcome(counts, (Comparison("sae", 0.4, (-0.1, 0.8), 0.5),), 1, 15)
    fig = rating_figures.answers(found, theme)
    assert sound(fig, theme) == (
        "You found a meaning in 4 of 5 transcoder features, 2 of 5 autoencoder features and 1 of 5 neurons"
    )
    rows = list(fig.layout.yaxis.ticktext)
    assert rows == ["transcoder, you", "transcoder, paper", "autoencoder, you", "autoencoder, paper", "neurons, you"]
    shares = np.array([trace.x for trace in fig.data])
    assert np.allclose(shares.sum(0), 1) and np.isclose(shares[0, 1], PAPER["transcoder"]["yes"] / 50)
    assert list(traces(fig)["no"].text) == ["", "1", "2", "4", "4"]


def test_without_a_finished_session_the_paper_stands_alone() -> None:
    fig = rating_figures.answers(Outcome({}, (), 0, 0))
    assert fig.layout.title.text == "No session is finished yet" and len(fig.layout.yaxis.ticktext) == 2
