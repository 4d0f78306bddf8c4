"""What is left of a circuit's answer when some of its nodes and edges are cut: in the model, and by the circuit's own word.

A cut runs the model again (live), and beside it the frozen stand-in that the circuit was read from; the graph lies on the
shelf of `circuit_experiment`, so the two forward passes are all that it costs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.views.circuit.experiment import CircuitConfig, live
from lab.circuits.transcoders.views.circuit.frames import compared
from lab.circuits.transcoders.views.circuit.words import named
from lab.experiment import Progress, experiment, no_progress

INTO_ROOT = (
    "An edge into the answer is taken off this difference of logits alone: the list of tokens does not know of it."
)


@dataclass(frozen=True)
class Cuts:
    """Nodes and edges of a circuit that are cut, by their rows in its result: a selection, made by clicking."""

    accept: ClassVar[tuple[str, ...]] = ()
    max_megabytes: ClassVar[int] = 1

    nodes: tuple[int, ...] = ()
    edges: tuple[int, ...] = ()

    @classmethod
    def read(cls, source: Path | bytes, *, name: str) -> Cuts:
        """There is no such file: raises FileError."""
        from lab.files import FileError

        raise FileError(f"{name}: cuts are made by clicking, not read from a file")

    def fingerprint(self) -> str:
        """Sixteen hex digits; the order of the cuts is nothing to it.

        >>> Cuts((1, 2)).fingerprint() == Cuts((2, 1)).fingerprint() != Cuts((1,), (2,)).fingerprint()
        True
        """
        return hashlib.sha256(repr((sorted(self.nodes), sorted(self.edges))).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CutResult:
    """What is left of the root and of the next token.

    measure                what the root measures
    before, live, frozen   the root as it was; what the model itself answers without the cut parts; what the circuit, with
                           attention and LayerNorm as they were, says it should answer
    logits   piece, token, before, after: probabilities of the next token in the model itself, the likeliest first
    cuts     what was cut, in words; note: what to know about it, or empty
    """

    measure: str
    before: float
    live: float
    frozen: float
    logits: pd.DataFrame
    cuts: tuple[str, ...]
    note: str


@experiment("cut", "A circuit, cut", cost="live", small={"steps": 2, "branches": 5})
def run_cut(config: CircuitConfig, cuts: Cuts, *, progress: Progress = no_progress) -> CutResult:
    """Run the prompt again without some of a circuit's nodes and edges. Raises CircuitError for what cannot be cut.

    Nothing flows along an edge whose source is cut as well: it is not taken off a second time.
    """
    progress(0.0, "tracing the circuit")
    circuit = live(config)
    result = circuit.result
    places = _checked(cuts.nodes, result.nodes, "node")
    carry = [
        place for place in _checked(cuts.edges, result.edges, "edge") if result.edges["source"][place] not in places
    ]
    nodes = [node for place in places for node in circuit.nodes[place]]
    edges = [edge for place in carry for edge in circuit.edges[place]]
    alive = circuit.graph.ablate(nodes, edges)
    progress(0.5, "what the circuit predicts")
    frozen = circuit.graph.ablate(nodes, edges, frozen=True)
    into_root = any(result.edges["target"][place] == 0 for place in carry) and not result.feature
    said = (
        *(named(result, "node", place) for place in places),
        *(named(result, "edge", place) for place in cuts.edges),
    )
    table = compared(circuit.language, alive.logits_before, alive.logits_after, circuit.shown)
    return CutResult(
        result.measure, alive.before, alive.after, frozen.after, table, said, INTO_ROOT if into_root else ""
    )


def _checked(places: tuple[int, ...], frame: pd.DataFrame, kind: str) -> tuple[int, ...]:
    for place in places:
        if not 0 <= place < len(frame):
            raise CircuitError(f"cuts: there is no {kind} {place}; the circuit has {kind}s 0 ... {len(frame) - 1}")
        if not frame["cuttable"][place]:
            why = f"it is {frame['label'][place]}" if kind == "node" else "it stands for what is not drawn"
            raise CircuitError(f"cuts: {kind} {place} cannot be cut, {why}")
    return places
