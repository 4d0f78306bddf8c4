"""The ledger: every claim, what the paper says, what the lab measured, the verdict; filtered by theme and verdict."""

from __future__ import annotations

import csv
import io

import streamlit as st
import ui

from lab import catalog, ledger
from lab.ledger import Standing

RULES = """
- **exceeds(margin)**: method minus baseline lies above the margin, by its paired 95 % t interval.
- **not_worse(margin)**: it lies above minus the margin. **ordered(levels)**: each level beats the one before it.
- **holds(tolerance)**: an exact statement, without seeds. **race(ratio, peer)**: faster by the ratio, in one run.

Verdicts are computed from the recorded rows whenever this page is drawn: **shown** (the rule holds), **direction only**
(right sign, but the interval touches the bound, or too few replicates), **not shown** (the sign is unclear), **opposite**
(the interval lies on the wrong side), **out of reach** (the card says why). At least 5 replicates, 8 where one takes under
20 s. What a replicate makes anew (a training, the data, the sampling) stands beside n.
"""


def as_csv(lines: list[Standing]) -> str:
    """The ledger as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["paper", "claim", "figure", "rule", "unit", "n", "lab", "low", "high", "verdict", "stale"])
    for line in lines:
        low, high = line.ours.interval or ("", "")
        writer.writerow(
            [line.card.slug, line.claim.key, line.claim.figure, str(line.claim.rule), line.claim.unit, line.ours.n,
             line.ours.estimate, low, high, line.ours.verdict, line.stale]
        )  # fmt: skip
    return text.getvalue()


st.title("The ledger")
st.container(width=760).markdown("Every claim we judge, by a rule that was written before the first measurement.")
lines = ledger.all_standings()
left, right = st.columns(2)
theme = left.selectbox(
    "Theme",
    ["all", *catalog.THEMES],
    key="theme",
    bind="query-params",
    format_func=lambda name: catalog.THEMES.get(name, "All themes"),
)
verdict = right.selectbox("Verdict", ["all", *ui.CHIPS], key="verdict", bind="query-params")
shown = [line for line in lines if theme in ("all", line.card.theme) and verdict in ("all", line.ours.verdict)]
if not lines:
    st.info(
        "No claim is on the ledger yet: the rooms are being built. A room's claims are measured with `lab measure`."
    )
elif not shown:
    st.info("No claim matches these filters.")
else:
    rows = [
        {
            "verdict": ui.CHIPS[line.ours.verdict],
            "paper": f"[{line.card.short}](/{line.card.slug})",
            "claim": f"{line.claim.paper} *({line.claim.figure})*",
            "lab, 95 %": ui.estimate(line) + (" :orange-badge[older code]" if line.stale else ""),
            "n": f"{line.ours.n} {line.claim.replication or ''}".strip(),
            "yours": line.yours.verdict if line.yours else "–",
        }
        for line in shown
    ]
    st.table(rows, border="horizontal", hide_index=True)
    st.download_button(
        "CSV", lambda: as_csv(shown), file_name="ledger.csv", mime="text/csv", on_click="ignore", type="tertiary"
    )
with st.expander("Rules and verdicts"):
    st.markdown(RULES)
