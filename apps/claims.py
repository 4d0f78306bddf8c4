"""The ledger: every claim, what the paper says, what the lab measured, the verdict; filtered by theme and verdict."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import streamlit as st
import ui

from lab import catalog, ledger
from lab.ledger import Standing

RULES = """
Each claim's rule is written on its paper's card before the first measurement.

- **exceeds(margin)**: the method beats the baseline by more than the margin.
- **not worse(margin)**: it falls behind by less than the margin.
- **ordered(levels)**: each level beats the one before it.
- **holds(tolerance)**: an exact statement, checked without seeds.
- **race(ratio, peer)**: it is so many times faster than the peer, in every race of `lab bench`, on the machine named.

The first three look at paired 95 % t intervals over at least 5 replicates, 8 where one takes under 20 seconds. Beside n
stands what each replicate made anew: the training, the data, or only the sampling.
"""
INTRODUCTION = """
What the papers claim, beside what the lab measured on its own machine. A verdict is computed from the recorded numbers
whenever this page is drawn; nobody edits it.
"""
EMPTY = """
No claim stands here yet. Once a paper's page is there, its claims are measured with `lab measure SLUG`, for example
`lab measure sp2ot`.
"""


def csv_row(line: Standing) -> dict[str, Any]:
    """A standing as a row of the CSV file."""
    low, high = line.ours.interval or ("", "")
    return {
        "paper": line.card.slug,
        "claim": line.claim.key,
        "says": line.claim.paper,
        "figure": line.claim.figure,
        "where": line.claim.where,
        "rule": line.claim.rule,
        "unit": line.claim.unit,
        "replication": line.claim.replication,
        "n": line.ours.n,
        "lab": line.ours.estimate,
        "low": low,
        "high": high,
        "verdict": line.ours.verdict,
        "yours": line.yours.verdict if line.yours else "",
        "recorded": line.record.recorded if line.record else "",
        "stale": line.stale,
    }


def as_csv(lines: Sequence[Standing]) -> str:
    """The ledger as CSV."""
    rows = [csv_row(line) for line in lines]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def filters() -> tuple[str, str]:
    """Theme and verdict to show, "all" for all; both stand in the address."""
    left, right = st.columns(2)
    with left:
        theme = ui.choose("Theme", {"all": "All themes"} | catalog.THEMES, key="theme", kind=ui.select)
    with right:
        verdicts = {"all": "All verdicts"} | {str(name): str(name) for name in ledger.VERDICTS}
        verdict = ui.choose("Verdict", verdicts, key="verdict", kind=ui.select)
    return theme, verdict


def table(lines: Sequence[Standing]) -> None:
    """The claims with the names of their papers, and the same as a file."""
    ui.claims_table(
        [(line, f"**[{ui.escaped(line.card.short)}](/{line.card.slug})**  \n{ui.statement(line)}") for line in lines]
    )
    st.download_button(
        f"CSV of these {len(lines)} claims",
        lambda: as_csv(lines),
        file_name="ledger.csv",
        mime="text/csv",
        on_click="ignore",
        type="tertiary",
        icon=":material/download:",
    )


def page() -> None:
    """Draw the ledger."""
    st.title("The ledger", anchor=False)
    st.container(width=760).markdown(INTRODUCTION)
    lines = ledger.all_standings()
    theme, verdict = filters()
    ui.complaints()
    shown = [line for line in lines if theme in ("all", line.card.theme) and verdict in ("all", line.ours.verdict)]
    if not lines:
        st.info(EMPTY, icon=":material/hourglass_empty:")
    elif not shown:
        st.info("No claim matches both filters. Choose all themes or all verdicts.")
    else:
        table(shown)
    with st.expander("The five rules, and the verdicts", icon=":material/gavel:"):
        st.markdown(RULES)
        st.table(
            [{"verdict": ui.CHIPS[name], "means": f"{meaning}."} for name, meaning in ledger.VERDICTS.items()],
            border="horizontal",
            hide_index=True,
        )


page()
