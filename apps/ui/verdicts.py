"""Verdicts and claims as pages show them: the verdict first, each with its own hue and icon, then paper and lab."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import streamlit as st

from lab import ledger, provenance
from lab.catalog import Card, Verdict
from lab.ledger import Judgement, Standing
from ui.look import escaped

CHIPS: Mapping[Verdict, str] = {  # short enough for a phone
    "shown": ":green-badge[:material/check: shown]",
    "direction only": ":blue-badge[:material/trending_up: direction]",
    "not shown": ":gray-badge[:material/remove: not shown]",
    "opposite": ":red-badge[:material/close: opposite]",
    "out of reach": ":violet-badge[:material/block: out of reach]",
    "not measured": ":gray-badge[:material/hourglass_empty: not measured]",
}
GREY = "a grey line is our reading of why, not a measurement"


def chip(line: Standing) -> str:
    """A standing's verdict, and a mark where its number may be another one today."""
    return CHIPS[line.ours.verdict] + stale_chip(line.stale)


def stale_chip(reason: str) -> str:
    """A mark that says why a recorded number may be another one today; empty where there is no reason.

    >>> stale_chip("recorded by older code")
    ' :yellow-badge[:material/history: older code]'
    """
    words = reason.removeprefix("recorded by ").removeprefix("recorded with ")
    return f" :yellow-badge[:material/history: {escaped(words)}]" if reason else ""


def counts(card: Card) -> str:
    """A paper's verdicts, counted."""
    count = Counter(line.ours.verdict for line in ledger.standings(card))
    return " ".join(f"{CHIPS[verdict]} × {count[verdict]}" for verdict in ledger.VERDICTS if count[verdict])


def claims_table(rows: list[tuple[Standing, str]]) -> None:
    """Standings as a table: verdict, what the paper says as the row's text has it, what the lab measured."""
    st.table(
        [{"verdict": chip(line), "paper": paper, "lab, 95 % interval": measured(line)} for line, paper in rows],
        border="horizontal",
        hide_index=True,
    )


def statement(line: Standing) -> str:
    """What the paper claims, its figure and where it stands; below, in grey, why the lab's verdict is what it is."""
    source = "; ".join(words for words in (line.claim.figure, line.claim.where) if words)
    text = f"{escaped(line.claim.paper)} *({escaped(source)})*"
    return f"{text}  \n:gray[{escaped(line.ours.reason)}]" if line.ours.reason else text


def measured(line: Standing) -> str:
    """What the lab measured, the reader's own measurement if there is one; below, in grey, of what, and by which rule."""
    rule = line.claim.rule
    if rule.name == "out_of_reach":
        if not line.yours or rule.yours is None:
            return "–"
        text = f"{_yours(line, line.yours)}  \n{_replicates(line.yours, line)}"
        return f"{text}  \n:gray[{escaped(line.claim.metric)}; rule: {escaped(str(rule.yours))}]"
    text = f"{escaped(line.ours.text(line.claim))}  \n{_replicates(line.ours, line)}".rstrip()
    if line.yours:
        text += f"  \n{_yours(line, line.yours)}"
    return f"{text}  \n:gray[{escaped(line.claim.metric)}; rule: {escaped(str(rule))}]"


def _yours(line: Standing, judgement: Judgement) -> str:
    """The reader's own estimate and verdict."""
    return f"yours: {escaped(judgement.text(line.claim))} {judgement.verdict}"


def _replicates(judgement: Judgement, line: Standing) -> str:
    """How many, and what each made anew."""
    if judgement.estimate is None or not judgement.n:
        return ""
    if line.claim.rule.name == "race":
        return f"{judgement.n} races"
    return f"n = {judgement.n} ({line.claim.replication})" if line.claim.replication else "exact"


def claims_strip(card: Card) -> None:
    """A paper's claims: verdict, what the paper says, what the lab measured; then why, and where it was recorded."""
    lines = ledger.standings(card)
    if not lines:
        return
    st.subheader("What the paper claims, what the lab measures")
    claims_table([(line, statement(line)) for line in lines])
    records = dict.fromkeys(escaped(provenance.describe(line.record)) for line in lines if line.record)
    st.caption(" · ".join([*records] + ([GREY] if any(line.ours.reason for line in lines) else [])))
    st.page_link("claims.py", label="The whole ledger, its rules and verdicts", icon=":material/fact_check:")
