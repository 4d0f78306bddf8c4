"""The page's main picture, as data: the circuit behind one prediction of a prompt.

A circuit is read off the prompt up to one position (Section 4 of the paper): the logit of one token minus another's, or a
feature, is followed backwards by greedy paths, or by the full adjacency pruned by influence. The graph itself stays on a
small shelf, where `cut_experiment` finds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import pandas as pd

from lab.cache import cached
from lab.circuits.transcoders.attribution.adjacency import adjacency
from lab.circuits.transcoders.attribution.contributions import Attribution, attribute_run
from lab.circuits.transcoders.attribution.frozen_run import Feature, FrozenRun, LogitDiff, Node, Root
from lab.circuits.transcoders.attribution.graph import CircuitGraph, Edge
from lab.circuits.transcoders.attribution.greedy_paths import Path, greedy_paths
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.models.languages import (
    EXAMPLES,
    START,
    Language,
    LanguageName,
    as_typed,
    language,
    own_language,
    quoted,
)
from lab.circuits.transcoders.views.circuit.frames import (
    direct,
    drawn,
    edge_frame,
    in_root_units,
    likely,
    node_frame,
    waterfall,
)
from lab.experiment import Config, Progress, experiment, knob, no_progress

TARGETS = 160  # features whose own rows an adjacency has, the most influential ones; more than are ever drawn
KEPT = 24  # circuits in memory, where `cut_experiment` finds their graphs
TOKEN = 40  # characters that a token has at most


class CircuitConfig(Config):
    """Which prediction of which prompt, and how its circuit is found."""

    primary: ClassVar[tuple[str, ...]] = ("prompt", "plus", "minus", "model")

    prompt: str = knob(
        EXAMPLES["stdlib-gpt"],
        "what the model reads; ↵ or \\n is a new line. Left as it is, or empty: the model's own example",
        max_length=300,
    )
    plus: str = knob(
        "",
        "one token, blanks count, and ␣ is one. Empty: the most likely next token",
        max_length=TOKEN,
        label="why this token",
    )
    minus: str = knob("", "one token. Empty: the mean of all tokens", max_length=TOKEN, label="rather than")
    model: LanguageName = knob("stdlib-gpt", "stdlib-gpt: four layers, reads Python. spans-1l: one layer, knows years")
    method: Literal["paths", "influence"] = knob(
        "paths",
        "paths: the paper's greedy search, which keeps what adds most. influence: every edge, then the least are "
        "pruned (Ameisen et al., 2025)",
        label="how it is found",
    )
    steps: int = knob(3, "paths: how many nodes one may have behind the answer", ge=1, le=4, label="depth")
    branches: int = knob(15, "paths: how many stay after each step", ge=1, le=30)
    nodes: float = knob(
        0.7, "influence: the share of it that nodes must carry", ge=0.2, le=0.95, step=0.05, label="share of nodes"
    )
    edges: float = knob(
        0.9, "influence: the share of it that edges must carry", ge=0.5, le=0.98, step=0.02, label="share of edges"
    )
    most: int = knob(
        60, "at most so many nodes are drawn; the least influential go", ge=5, le=120, step=5, label="most nodes"
    )
    merge: bool = knob(False, "one node for all positions of a feature or a head", label="merge positions")
    root: Literal["next token", "feature"] = knob("next token", "what the circuit explains", label="explain")
    layer: int = knob(2, "of the feature that is explained", ge=0, le=47)
    feature: int = knob(0, "the number of the feature that is explained", ge=0, le=131_071)
    position: int = knob(-1, "where in the prompt; -1 is its end. What stands behind it is not read", ge=-1, le=300)
    coders: Literal["every layer", "no layer"] = knob(
        "every layer", "no layer: every MLP stays whole, one grey node a token", label="transcoders in"
    )
    bos: bool = knob(True, "begin with the token that all training texts began with", label="boundary token")
    source: str = knob(
        "",
        "a GPT-2 of your own instead: a local folder or a hub id; untested on released weights",
        private=True,
        max_length=300,
        label="model's folder or hub id",
    )
    coder_source: str = knob(
        "",
        "its transcoders, from a folder or hub id, in the format of SAELens, circuit-tracer or sparsify. Empty: none",
        private=True,
        max_length=300,
        label="transcoders' folder or hub id",
    )


@dataclass(frozen=True)
class CircuitResult:
    """A circuit in plain data.

    tokens      the whole prompt's pieces; what stands behind `position` was not read
    root        what is explained, in words; answer: the same, short; measure: what `value` measures; feature: whether it is
                a pre-activation, not a difference of logits
    nodes       kind, layer, token, index, source, fires, influence (share by absolute weights), contribution (what it brings
                to the root through what is drawn), label, writes (tokens that a feature makes likelier), cuttable; row 0 is
                the root; token -1 where positions are merged
    edges       source, target (rows of nodes), weight (in units of the root), direct (in units of what reads it), fires,
                wired (direct / fires), readers (how many read it; behind a head there may be several), cuttable
    waterfall   part, kind, layer, value, start, end, count, largest: all contributions to the root; they end at it
    gap         by how much they miss it, relative to the sum of their sizes
    direct      features and heads that are drawn and write straight into the root, share: of all that adds to it
    logits      piece, token, logit, probability at the position; scores: "replacement" and "completeness", see CircuitGraph
    warnings    what a reader must know, a sentence each
    """

    model: str
    tokens: tuple[str, ...]
    position: int
    root: str
    answer: str
    measure: str
    value: float
    feature: bool
    merged: bool
    nodes: pd.DataFrame
    edges: pd.DataFrame
    waterfall: pd.DataFrame
    gap: float
    direct: dict[str, float]
    logits: pd.DataFrame
    scores: dict[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Live:
    """A circuit as it can be cut: the graph, and which of its nodes and edges each drawn one stands for."""

    graph: CircuitGraph
    nodes: list[tuple[Node, ...]]
    edges: list[tuple[Edge, ...]]
    language: Language
    shown: tuple[int, ...]
    result: CircuitResult


@experiment("circuit", "A circuit", cost="live", small={"steps": 2, "branches": 5})
def run_circuit(config: CircuitConfig, *, progress: Progress = no_progress) -> CircuitResult:
    """The circuit behind one prediction. Raises a ValueError of one sentence for what does not go together."""
    progress(0.0, "tracing the circuit")
    found = live(config).result
    progress(1.0, "done")
    return found


@cached(maxsize=KEPT)
def live(config: CircuitConfig) -> Live:
    """The circuit of a config; the last ones are kept, read only."""
    of = own_language(config.source, config.coder_source) if config.source else language(config.model)
    coders = of.coders if config.coders == "every layer" else {}
    own = config.prompt.strip() not in ("", EXAMPLES["stdlib-gpt"])
    tokens = of.encode(as_typed(config.prompt if own else of.example), config.bos)
    if config.position >= len(tokens):
        raise CircuitError(
            f"position: {config.position} lies beyond the prompt, which has positions 0 ... {len(tokens) - 1}"
        )
    position = config.position % len(tokens)
    run = FrozenRun(of.model, coders, tokens[: position + 1])
    root, words, answer, measure = _root(config, of, run)
    attribution = attribute_run(run, root)
    graph = _graph(config, attribution, root, tuple(of.seen(run.tokens.tolist())))
    nodes, edges = drawn(graph, config.merge)
    edge_table = edge_frame(edges, nodes, graph, in_root_units(graph, paths=config.method == "paths"))
    shown = (*root.plus, *root.minus) if isinstance(root, LogitDiff) else ()
    result = CircuitResult(
        of.name,
        tuple(of.seen(tokens.tolist())),
        position,
        words,
        answer,
        measure,
        attribution.value,
        isinstance(root, Feature),
        config.merge,
        node_frame(nodes, edge_table, graph, of, merge=config.merge),
        edge_table,
        waterfall(attribution, graph),
        attribution.gap,
        direct(graph, attribution),
        likely(of, run.logits[-1], shown),
        graph.scores(),
        tuple(_warnings(config, of, run, root, attribution.value)),
    )
    return Live(graph, nodes, edges, of, shown, result)


def _root(config: CircuitConfig, of: Language, run: FrozenRun) -> tuple[Root, str, str, str]:
    """What is explained: for the graph, in words, short, and what it measures."""
    if config.root == "feature":
        if not run.coders:
            raise CircuitError("root: there is no feature to explain without transcoders; explain the next token")
        name = f"feature {config.feature} of layer {config.layer}"
        where = quoted(of.seen([int(run.tokens[-1])])[0])
        return Feature(config.layer, config.feature), f"why {name} fires at {where}", name, f"pre-activation of {name}"
    plus = of.token(config.plus, "plus") if config.plus else int(run.logits[-1].argmax())
    minus = (of.token(config.minus, "minus"),) if config.minus else ()
    if minus == (plus,):
        raise CircuitError(f"minus: {quoted(config.minus)} is what it is compared with; give another token, or none")
    first = quoted(of.pieces([plus])[0])
    other, less = (quoted(of.pieces(minus)[0]),) * 2 if minus else ("the average token", "the mean of all")
    return (
        LogitDiff((plus,), minus),
        f"why {first} comes next rather than {other}",
        first,
        f"logit of {first} minus {less}",
    )


def _graph(config: CircuitConfig, attribution: Attribution, root: Root, pieces: tuple[str, ...]) -> CircuitGraph:
    run = attribution.run
    if config.method == "paths":
        paths = _down_to_tokens(greedy_paths(attribution, config.steps, config.branches))
        return _at_most(CircuitGraph.from_paths(paths, run, root, tokens=pieces), config.most)
    full = adjacency(run, root, max_targets=TARGETS)
    graph = CircuitGraph.from_adjacency(full, root, node=config.nodes, edge=config.edges, tokens=pieces)
    return _at_most(graph, config.most)


def _down_to_tokens(paths: list[Path]) -> list[Path]:
    """A head of the first layer reads nothing but a token and its position: the search ends with it, the picture does not."""
    ends = [path for path in paths if path.nodes[-1].kind == "head" and path.nodes[-1].layer == 0]
    return paths + [
        Path(
            (*path.nodes, Node("embedding", -1, path.nodes[-1].source)),
            (*path.values, path.value),
            (*path.units, path.units[-1]),
        )
        for path in ends
    ]


def _at_most(graph: CircuitGraph, most: int) -> CircuitGraph:
    """The graph with the largest share of its influence that `most` nodes carry; what stands for the rest is not counted."""

    def size(of: CircuitGraph) -> int:
        return sum(node.kind != "rest" for node in of.nodes)

    if size(graph) <= most:
        return graph
    low, high, best = 0.0, 1.0, graph.prune(0.0, 1.0)
    for _ in range(7):
        share = (low + high) / 2
        tried = graph.prune(share, 1.0)
        low, high, best = (share, high, tried) if size(tried) <= most else (low, share, best)
    return best


def _warnings(config: CircuitConfig, of: Language, run: FrozenRun, root: Root, value: float) -> list[str]:
    """What a reader must know, a sentence each."""
    found = []
    if isinstance(root, Feature) and value <= 0:
        found.append(f"The feature does not fire here ({value:+.2f}): this is what keeps it silent.")
    if not config.bos and of.boundary is not None and len(run) < of.model.cfg.n_ctx:
        with_it = FrozenRun(of.model, run.coders, run.tokens.new_tensor([of.boundary, *run.tokens.tolist()]))
        as_trained = attribute_run(with_it, root).value
        found.append(
            f"Every training text began with {START}, and this prompt does not: attention has "
            f"nowhere to rest, so the first word takes that part. It changes what fires: {_firing(run, 0):.0f} features a "
            f"token instead of {_firing(with_it, 1):.0f}, and the answer: {value:+.2f} instead of {as_trained:+.2f}."
        )
    if config.coders == "no layer" or not of.coders:
        found.append("Without transcoders every MLP is one grey node: what goes on inside it stays dark.")
    return found


def _firing(run: FrozenRun, skip: int) -> float:
    """Features that fire at a position, over all layers, on average."""
    return sum(float((active.z[skip:] > 0).sum()) for active in run.active.values()) / (len(run) - skip)
