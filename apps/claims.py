"""The ledger: every claim, what the paper says, what the lab measured, the verdict; filtered by theme and verdict."""

from __future__ import annotations

import csv
import io

import streamlit as st
import ui
from ui.verdicts import chip, measured, says

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
COLUMNS = (
    "paper",
    "claim",
    "says",
    "figure",
    "where",
    "rule",
    "unit",
    "replication",
    "n",
    "lab",
    "low",
    "high",
    "verdict",
    "yours",
    "recorded",
    "older_code",
)


def as_csv(lines: list[Standing]) -> str:
    """The ledger as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for line in lines:
        low, high = line.ours.interval or ("", "")
        writer.writerow(
            [
                line.card.slug,
                line.claim.key,
                line.claim.paper,
                line.claim.figure,
                line.claim.where,
                line.claim.rule,
                line.claim.unit,
                line.claim.replication,
                line.ours.n,
                line.ours.estimate,
                low,
                high,
                line.ours.verdict,
                line.yours.verdict if line.yours else "",
                line.record.recorded if line.record else "",
                line.stale,
            ]
        )
    return text.getvalue()


st.title("The ledger", anchor=False)
st.container(width=760).markdown(
    "What the papers claim, beside what the lab measured on its own machine. A verdict is computed from the recorded "
    "numbers whenever this page is drawn; nobody edits it."
)
lines = ledger.all_standings()
left, right = st.columns(2)
with left:
    theme = ui.choose("Theme", {"all": "All themes"} | catalog.THEMES, key="theme", kind=ui.select)
with right:
    every = {"all": "All verdicts"} | {name: name for name in ui.CHIPS}
    verdict = ui.choose("Verdict", every, key="verdict", kind=ui.select)
ui.complaints()
shown = [line for line in lines if theme in ("all", line.card.theme) and verdict in ("all", line.ours.verdict)]
if not lines:
    st.info(
        "No claim stands here yet. Once a paper's page is there, its claims are measured with `lab measure SLUG`, for "
        "example `lab measure sp2ot`.",
        icon=":material/hourglass_empty:",
    )
elif not shown:
    st.info("No claim matches both filters. Choose all themes or all verdicts.")
else:
    st.table(
        [
            {
                "verdict": chip(line),
                "paper": f"**[{ui.escaped(line.card.short)}](/{line.card.slug})**  \n{says(line)}",
                "lab, 95 % interval": measured(line),
            }
            for line in shown
        ],
        border="horizontal",
        hide_index=True,
    )
    st.download_button(
        f"CSV of these {len(shown)} claims",
        lambda: as_csv(shown),
        file_name="ledger.csv",
        mime="text/csv",
        on_click="ignore",
        type="tertiary",
        icon=":material/download:",
    )
with st.expander("The five rules, and the verdicts", icon=":material/gavel:"):
    st.markdown(RULES)
    st.table(
        [{"verdict": ui.CHIPS[name], "means": f"{text}."} for name, text in ledger.VERDICTS.items()],
        border="horizontal",
        hide_index=True,
    )
