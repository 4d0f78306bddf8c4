"""Verdicts and claims as pages show them: the verdict first, each with its own hue and icon, then paper and lab."""

from __future__ import annotations

from collections import Counter

import streamlit as st

from lab import ledger, provenance
from lab.catalog import Card
from lab.ledger import Judgement, Standing
from ui.look import escaped

CHIPS = {
    "shown": ":green-badge[:material/check: shown]",
    "direction only": ":blue-badge[:material/trending_up: direction]",
    "not shown": ":gray-badge[:material/remove: not shown]",
    "opposite": ":red-badge[:material/close: opposite]",
    "out of reach": ":violet-badge[:material/block: out of reach]",
    "not measured": ":gray-badge[:material/hourglass_empty: not measured]",
}
GREY = "a grey line is our reading of why, not a measurement"
STALE = ":yellow-badge[:material/history: older code]"


def chip(line: Standing) -> str:
    """A standing's verdict, and a mark where older code recorded it."""
    return CHIPS[line.ours.verdict] + (f" {STALE}" if line.stale else "")


def counts(card: Card) -> str:
    """A paper's verdicts, counted."""
    found = Counter(line.ours.verdict for line in ledger.standings(card))
    return " ".join(f"{CHIPS[verdict]} × {found[verdict]}" for verdict in CHIPS if found[verdict])


def estimate(judgement: Judgement, line: Standing) -> str:
    """An estimate with its interval and unit; an en dash where nothing was measured."""
    if judgement.estimate is None:
        return "–"
    unit = "×" if line.claim.rule.name == "race" else f" {line.claim.unit}".rstrip()
    text = f"{judgement.estimate:.3g}{unit}"
    if judgement.interval:
        low, high = judgement.interval
        text += f" [{low:.3g}, {high:.3g}]"
    return escaped(text)


def replicates(judgement: Judgement, line: Standing) -> str:
    """How many, and what each made anew."""
    if judgement.estimate is None or not judgement.n:
        return ""
    if line.claim.rule.name == "race":
        return f"{judgement.n} races"
    return f"n = {judgement.n} ({line.claim.replication})" if line.claim.replication else "exact"


def says(line: Standing) -> str:
    """What the paper claims, its figure and where it stands; below, in grey, why the lab's verdict is what it is."""
    source = "; ".join(part for part in (line.claim.figure, line.claim.where) if part)
    text = f"{escaped(line.claim.paper)} *({escaped(source)})*"
    return f"{text}  \n:gray[{escaped(line.ours.reason)}]" if line.ours.reason else text


def measured(line: Standing) -> str:
    """What the lab measured, the reader's own measurement if there is one; below, in grey, of what, and by which rule."""
    rule = line.claim.rule
    if rule.name == "out_of_reach":
        if not line.yours or rule.yours is None:
            return "–"
        text = f"yours: {estimate(line.yours, line)} {line.yours.verdict}  \n{replicates(line.yours, line)}"
        return f"{text}  \n:gray[{escaped(line.claim.metric)}; rule: {escaped(str(rule.yours))}]"
    text = f"{estimate(line.ours, line)}  \n{replicates(line.ours, line)}".rstrip()
    if line.yours:
        text += f"  \nyours: {estimate(line.yours, line)} {line.yours.verdict}"
    return f"{text}  \n:gray[{escaped(line.claim.metric)}; rule: {escaped(str(line.claim.rule))}]"


def claims_strip(card: Card) -> None:
    """A paper's claims: verdict, what the paper says, what the lab measured; then why, and where it was recorded."""
    lines = ledger.standings(card)
    if not lines:
        return
    st.subheader("What the paper claims, what the lab measures")
    rows = [{"verdict": chip(line), "paper": says(line), "lab, 95 % interval": measured(line)} for line in lines]
    st.table(rows, border="horizontal", hide_index=True)
    places = dict.fromkeys(provenance.describe(line.record) for line in lines if line.record)
    st.caption(
        " · ".join([escaped(place) for place in places] + ([GREY] if any(line.ours.reason for line in lines) else []))
    )
    st.page_link("claims.py", label="The whole ledger, its rules and verdicts", icon=":material/fact_check:")
