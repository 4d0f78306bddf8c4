"""Pictures of a circuit: everything can be clicked and told apart, and the bars add up to what they say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import circuit_toys
import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from lab.circuits.transcoders.models.languages import Language
from lab.circuits.transcoders.views.circuit import experiment as circuit_experiment
from lab.circuits.transcoders.views.circuit.answer_figures import (
    SHOWN,
    cut_title,
    live_and_frozen,
    next_tokens,
    waterfall,
)
from lab.circuits.transcoders.views.circuit.cut_experiment import CutResult, Cuts, run_cut
from lab.circuits.transcoders.views.circuit.experiment import CircuitConfig, CircuitResult, run_circuit
from lab.circuits.transcoders.views.circuit.figures import SYMBOLS, circuit_graph, graph_title
from lab.circuits.transcoders.views.circuit.layout import HIGH, layout
from lab.circuits.transcoders.views.circuit.words import counted
from lab.plot import DARK, LIGHT

PIECES = ["<s>", "a", " b", "c", "<b>", "e", "f", "g", "h", "i", "↵"]
CONFIGS = {
    "paths": CircuitConfig(steps=4, branches=30, most=120),
    "influence": CircuitConfig(method="influence", nodes=0.95, edges=0.98, most=120),
    "merged": CircuitConfig(branches=30, merge=True),
    "feature": CircuitConfig(root="feature", layer=1, feature=4),
    "whole MLPs": CircuitConfig(coders="no layer"),
    "small": CircuitConfig(steps=1, branches=1),
}


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A random model of two layers in the place of the lab's own, with a token that looks like HTML."""

    def encode(text: str, bos: bool) -> torch.Tensor:
        return torch.tensor([0] * bos + [4, 5, 2, 9, 3, 7, 10, 1, 6])

    of = Language(
        "toy",
        circuit_toys.model(),
        circuit_toys.coders(),
        encode,
        lambda tokens: [PIECES[int(one)] for one in tokens],
        0,
        "any",
    )
    monkeypatch.setattr(circuit_experiment, "language", lambda name: of)
    circuit_experiment.live.cache_clear()
    yield
    circuit_experiment.live.cache_clear()


def named_trace(fig: go.Figure, name: str) -> Any:
    """The only trace of that name."""
    (trace,) = (trace for trace in fig.data if trace.name == name)
    return trace


def cuttable(result: CircuitResult, count: int) -> Cuts:
    """The first nodes and edges that can be cut."""
    nodes, edges = (frame.index[frame["cuttable"]][:count].tolist() for frame in (result.nodes, result.edges))
    return Cuts(tuple(nodes), tuple(edges))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_node_and_edge_answers_to_a_click(name: str) -> None:
    result = run_circuit(CONFIGS[name])
    fig = circuit_graph(result)
    nodes, edges = named_trace(fig, "nodes"), named_trace(fig, "edges")
    assert [tuple(data) for data in nodes.customdata] == [("node", place) for place in range(len(result.nodes))]
    drawn = [place for place in result.edges.index if result.nodes["kind"][result.edges["source"][place]] != "rest"]
    assert [tuple(data) for data in edges.customdata] == [("edge", place) for place in drawn]
    for trace in (nodes, edges):
        assert "markers" in trace.mode and len(trace.x) == len(trace.y) == len(trace.text) == len(trace.customdata)
        assert trace.selected.marker.opacity == trace.unselected.marker.opacity  # a click fades nothing
    others = [trace for trace in fig.data if trace.name not in ("nodes", "edges")]
    assert others and all(trace.hoverinfo == "skip" for trace in others)


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_covers_anything_else(name: str) -> None:
    result = run_circuit(CONFIGS[name])
    places = layout(result.nodes, result.edges, result.position + 1)
    apart = places.nodes[(result.nodes["kind"] != "rest").to_numpy()]
    distance = np.linalg.norm(apart[:, None] - apart[None], axis=2) + 9 * np.eye(len(apart))
    assert distance.min() >= 0.9
    assert places.height < 2 * HIGH
    for curve, handle in zip(places.curves, places.handles, strict=True):
        assert np.linalg.norm(curve - handle, axis=1).min() == 0
    ends = places.nodes[result.edges[["source", "target"]].to_numpy()]
    assert np.allclose(places.curves[:, 0], ends[:, 0]) and np.allclose(places.curves[:, -1], ends[:, 1])


def test_tokens_run_across_and_layers_up() -> None:
    result = run_circuit(CONFIGS["paths"])
    places = layout(result.nodes, result.edges, result.position + 1)
    height = {
        (kind, layer): places.nodes[result.nodes.index[of], 1]
        for (kind, layer), of in (
            ((kind, layer), (result.nodes["kind"] == kind) & (result.nodes["layer"] == layer))
            for kind, layer in {*zip(result.nodes["kind"], result.nodes["layer"], strict=True)}
            if kind != "rest"
        )
    }
    order = [("embedding", -1), ("head", 0), ("feature", 0), ("head", 1), ("feature", 1), ("root", 2)]
    present = [height[row] for row in order if row in height]
    assert len(present) > 3 and all(low.max() < high.min() for low, high in itertools.pairwise(present))
    middles = list(places.columns.values())
    assert middles == sorted(middles) and list(places.columns) == list(range(result.position + 1))
    names = [name for name, _, _ in places.rows]
    assert names[0] == "tokens" and names[-1] == "answer"


def test_tokens_without_nodes_give_way_in_a_long_prompt() -> None:
    result = run_circuit(CONFIGS["small"])
    nodes = result.nodes.assign(token=np.where(result.nodes["kind"] == "root", 40, 3))
    places = layout(nodes, result.edges, 41)
    assert list(places.columns) == [3, 40] and len(places.skipped) == 2
    assert list(layout(nodes.assign(token=3), result.edges, 12).columns) == list(range(12))


def test_hovering_shows_firing_times_wiring() -> None:
    result = run_circuit(CONFIGS["feature"])
    fig = circuit_graph(result, names={(0, 3): "<i>after a comma"})
    into = result.edges.index[(result.edges["target"] == 0) & result.edges["cuttable"]]
    place = next(place for place in into if result.nodes["kind"][result.edges["source"][place]] == "feature")
    edge, trace = result.edges.loc[place], named_trace(fig, "edges")
    text = trace.text[[data[1] for data in trace.customdata].index(place)]
    assert f"{edge['weight']:+.2f} = {edge['fires']:.2f} (fires) × {edge['wired']:+.2f} (wired)" in text
    hovers = " ".join(named_trace(circuit_graph(run_circuit(CONFIGS["paths"])), "nodes").text)
    assert "‘&lt;b&gt;’" in hovers and "<b>’" not in hovers and "(attends)" in hovers


def test_a_reader_s_names_stand_in_the_picture() -> None:
    result = run_circuit(CONFIGS["paths"])
    place = result.nodes.index[result.nodes["kind"] == "feature"][0]
    node = result.nodes.loc[place]
    fig = circuit_graph(result, names={(int(node["layer"]), int(node["index"])): "<i>after a comma"})
    assert "&lt;i&gt;after a comma" in named_trace(fig, "nodes").text[place]
    assert not any("<i>" in note.text for note in fig.layout.annotations)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_cuts_are_crossed_out_and_nothing_moves(theme: Any) -> None:
    result = run_circuit(CONFIGS["paths"])
    cuts = cuttable(result, 2)
    plain, cut = circuit_graph(result, theme), circuit_graph(result, theme, cuts=cuts, selected=("edge", cuts.edges[0]))
    for name in ("nodes", "edges"):
        assert named_trace(plain, name).x == pytest.approx(named_trace(cut, name).x)
    marks = [trace for trace in cut.data if trace.name == "mark"]
    line, crosses, ring = marks
    assert line.mode == "lines" and crosses.marker.symbol == "x-thin" and ring.marker.symbol == "circle-open"
    assert len(crosses.x) == 4 and (ring.x[0], ring.y[0]) == (crosses.x[2], crosses.y[2])
    assert any(trace.name == "cut" for trace in cut.data) and not any(
        trace.name in ("mark", "cut") for trace in plain.data
    )
    assert named_trace(cut, "nodes").marker.color[cuts.nodes[0]] == theme.grid
    (lonely,) = (trace for trace in circuit_graph(result, selected=("node", 0)).data if trace.name == "mark")
    assert (lonely.x[0], lonely.y[0]) == (named_trace(plain, "nodes").x[0], named_trace(plain, "nodes").y[0])


def test_width_sign_and_symbol_say_what_they_should() -> None:
    result = run_circuit(CONFIGS["influence"])
    fig = circuit_graph(result)
    kinds = result.nodes["kind"].to_numpy()
    assert list(named_trace(fig, "nodes").marker.symbol) == [SYMBOLS.get(kind, "circle") for kind in kinds]
    lines = {
        name: [trace for trace in fig.data if trace.name == name] for name in ("adds", "takes away", "unexplained")
    }
    assert all(lines.values())
    assert {trace.line.dash for trace in lines["takes away"]} == {"dash"} and lines["adds"][0].line.dash == "solid"
    widths = [trace.line.width for trace in lines["adds"]]
    assert len(widths) > 2 and widths == sorted(widths)
    legend = fig.layout.annotations[-1].text
    assert all(word in legend for word in ("feature", "token", "unexplained", "adds", "takes"))
    assert "head" not in legend and len(fig.to_json()) < 300_000


def test_the_graph_s_title_counts_what_it_names() -> None:
    result = run_circuit(CONFIGS["paths"])
    into = result.edges[(result.edges["target"] == 0) & (result.edges["weight"] > 0)]
    kinds = result.nodes["kind"].to_numpy()[into["source"]]
    assert (result.direct["features"], result.direct["heads"]) == ((kinds == "feature").sum(), (kinds == "head").sum())
    assert graph_title(result).startswith(counted(int((kinds == "feature").sum()), int((kinds == "head").sum())))
    assert f"{result.direct['share']:.0%} of what speaks for {result.answer}" in graph_title(result)
    assert "of what makes feature 4 of layer 1 fire" in graph_title(run_circuit(CONFIGS["feature"]))
    nothing = run_circuit(CircuitConfig(steps=1, branches=1, coders="no layer", plus="a"))
    assert graph_title(nothing)[0].isupper()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_waterfall_s_bars_follow_one_another_to_the_answer(name: str) -> None:
    result = run_circuit(CONFIGS[name])
    fig = waterfall(result, DARK)
    bars = named_trace(fig, "contribution")
    base, size = np.array(bars.base, float), np.array(bars.x, float)
    assert base[0] == 0 and base[1:-1] == pytest.approx((base + size)[:-2])
    assert base[-1] == 0 and size[-1] == pytest.approx((base + size)[-2]) == result.value
    assert len(fig.layout.yaxis.ticktext) == len(size) and fig.layout.yaxis.ticktext[-1] == "the answer"
    low, high = fig.layout.xaxis.range
    assert low <= min(0, (base + size).min()) and high >= max(0, (base + size).max())
    assert f"{result.value:.2f}" in fig.layout.title.text


def test_next_tokens_before_and_after() -> None:
    result = run_circuit(CONFIGS["paths"])
    fig = next_tokens(result)
    (bars,) = fig.data
    assert list(bars.x) == result.logits["probability"].head(SHOWN).tolist()
    assert f"{result.logits['probability'][0]:.0%}" in fig.layout.title.text
    cut = run_cut(CONFIGS["paths"], cuttable(result, 3))
    before, after = next_tokens(cut, DARK).data
    assert list(before.x) == cut.logits["before"].head(SHOWN).tolist()
    assert list(after.x) == cut.logits["after"].head(SHOWN).tolist()
    assert (
        "‘&lt;b&gt;’" in " ".join(fig.layout.yaxis.ticktext) or "<b>" not in result.logits["piece"].head(SHOWN).tolist()
    )


def test_another_token_in_front_is_said() -> None:
    table = run_cut(CONFIGS["small"], Cuts()).logits
    fell = table.assign(after=table["before"].to_numpy()[::-1])
    title = next_tokens(CutResult("logits", 1.0, 0.0, 0.0, fell, ("head",), "")).layout.title.text
    assert title.startswith("Now ") and "no longer" in title


def test_live_and_frozen_stand_side_by_side() -> None:
    config = CONFIGS["paths"]
    result = run_circuit(config)
    cut = run_cut(config, cuttable(result, 1))
    (bars,) = live_and_frozen(cut).data
    assert list(bars.x) == [cut.before, cut.frozen, cut.live] and list(bars.y) == ["before", "circuit", "model"]
    assert f"{cut.live - cut.before:+.2f}" in cut_title(cut) and f"{cut.frozen - cut.before:+.2f}" in cut_title(cut)
    assert "two parts" in cut_title(cut) and "one part " in cut_title(
        run_cut(config, Cuts((cuttable(result, 1).nodes[0],)))
    )
    assert "Nothing is cut" in cut_title(run_cut(config, Cuts()))
