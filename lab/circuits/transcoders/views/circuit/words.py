"""A circuit's nodes and edges in words: what each is, what it brings as a product of firing and wiring, what feeds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lab.circuits.transcoders.views.circuit.experiment import CircuitResult

Part = Literal["node", "edge"]
Row = Mapping[str, Any]


def named(result: CircuitResult, kind: Part, place: int) -> str:
    """A node, or an edge by its two ends."""
    labels, edges = result.nodes["label"], result.edges
    return (
        str(labels[place]) if kind == "node" else " → ".join(labels[edges[end][place]] for end in ("source", "target"))
    )


def says(result: CircuitResult, kind: Part, place: int) -> list[str]:
    """What there is to say of a node or an edge, one line each."""
    if kind == "node":
        return node_says(result.nodes.loc[place].to_dict(), result)
    edge = result.edges.loc[place].to_dict()
    return edge_says(edge, *(result.nodes.loc[edge[end]].to_dict() for end in ("source", "target")))


def fed_by(result: CircuitResult, place: int, count: int) -> list[tuple[str, float]]:
    """The largest edges into a node: what they come from, and what they bring to the answer."""
    into = result.edges[result.edges["target"] == place]
    best = into.loc[into["weight"].abs().sort_values(ascending=False, kind="stable").index[:count]]
    labels = result.nodes["label"]
    return [(labels[source], weight) for source, weight in zip(best["source"], best["weight"], strict=True)]


def node_says(node: Row, result: CircuitResult) -> list[str]:
    """What a row of `CircuitResult.nodes` brings."""
    if node["kind"] == "root":
        return [result.root, f"{result.value:+.2f}"]
    way = "of the answer, over all drawn ways"
    if node["kind"] not in ("feature", "head"):
        return [f"{node['contribution']:+.2f} {way}"]
    lines = [product(node["contribution"], node["fires"], head=node["kind"] == "head"), way]
    return [*lines, f"makes likelier {node['writes']}"] if node["writes"] else lines


def edge_says(edge: Row, source: Row, target: Row) -> list[str]:
    """What a row of `CircuitResult.edges` brings, given those of its ends."""
    if source["kind"] == "rest":
        return [f"{edge['weight']:+.2f} of the answer"]
    plainly = edge["readers"] != 1 or target["kind"] == "root"
    value = edge["weight"] if plainly else edge["direct"]
    known = source["kind"] in ("feature", "head")
    first = product(value, edge["fires"], head=source["kind"] == "head") if known else f"{value:+.2f}"
    return [first, "of the answer" if plainly else f"of what reads it; {edge['weight']:+.2f} of the answer this way"]


def product(value: float, fires: float, *, head: bool = False) -> str:
    """A contribution as what fires times how it is wired.

    >>> product(5.25, 2.1)
    '+5.25 = 2.10 (fires) × +2.50 (wired)'
    """
    wired = value / fires if fires else 0.0
    return f"{value:+.2f} = {fires:.2f} ({'attends' if head else 'fires'}) × {wired:+.2f} (wired)"


def parts(count: int) -> str:
    """How many parts of a circuit, in words.

    >>> parts(1), parts(3)
    ('one part', 'three parts')
    """
    return f"{_number(count)} part{'s' * (count != 1)}"


def counted(features: int, heads: int) -> str:
    """How many, in words.

    >>> counted(6, 1), counted(0, 14)
    ('Six features and one head', '14 heads')
    """
    found = [
        f"{_number(count)} {name}{'s' * (count > 1)}"
        for count, name in ((features, "feature"), (heads, "head"))
        if count
    ]
    text = " and ".join(found)
    return text[:1].upper() + text[1:]


def _number(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return words[count] if count < len(words) else str(count)
