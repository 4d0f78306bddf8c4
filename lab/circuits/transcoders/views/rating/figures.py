"""Pictures of the blind rating: what a reader answered, beside what the paper's raters did."""

from __future__ import annotations

import plotly.graph_objects as go

from lab.circuits.transcoders.views.rating.experiment import PAPER, Outcome
from lab.plot import LIGHT, Theme, figure

NAMES = {"transcoder": "transcoder", "sae": "autoencoder", "neuron": "neurons"}


def answers(found: Outcome, theme: Theme = LIGHT) -> go.Figure:
    """Shares of yes, maybe and no by kind, yours above the paper's."""
    rows = [(f"{NAMES[kind]}, you", counts) for kind, counts in found.counts.items()]
    rows += [(f"{NAMES[kind]}, paper", dict(counts)) for kind, counts in PAPER.items()]
    order = sorted(
        range(len(rows)), key=lambda place: (list(NAMES.values()).index(rows[place][0].split(",")[0]), place)
    )
    rows = [rows[place] for place in order]
    fig = figure(rating_title(found), theme=theme, x="share of the cards", height=120 + 44 * len(rows))
    colors = {"yes": theme.accent, "maybe": theme.baselines[2], "no": theme.baselines[0]}
    for answer, color in colors.items():
        counts = [of[answer] for _, of in rows]
        totals = [sum(of.values()) for _, of in rows]
        fig.add_trace(
            go.Bar(
                x=[count / total if total else 0.0 for count, total in zip(counts, totals, strict=True)],
                y=list(range(len(rows))),
                orientation="h",
                name=answer,
                width=0.66,
                marker={"color": color},
                text=[str(count) if count else "" for count in counts],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"color": theme.surface, "size": 13},
                customdata=totals,
                hovertemplate=answer + ": %{text} of %{customdata}<extra></extra>",
            )
        )
    fig.update_xaxes(tickformat=".0%", range=[0, 1.0])
    fig.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[label for label, _ in rows],
        autorange="reversed",
        showgrid=False,
        ticks="",
    )
    fig.update_layout(barmode="stack", showlegend=True, legend={"y": 1.02, "yanchor": "bottom", "traceorder": "normal"})
    return fig


def rating_title(found: Outcome) -> str:
    """How many of each kind have a meaning, in the reader's eyes."""
    if not found.counts:
        return "No session is finished yet"
    parts = [
        f"{counts['yes']} of {sum(counts.values())} {'neurons' if kind == 'neuron' else NAMES[kind] + ' features'}"
        for kind, counts in found.counts.items()
    ]
    return f"You found a meaning in {', '.join(parts[:-1])}{' and ' if len(parts) > 1 else ''}{parts[-1]}"
