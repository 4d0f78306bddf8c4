"""Pictures of the ledger's seeds of all three papers: every setting with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from lab import ledger
from lab.plot import LIGHT, Theme, figure
from lab.quantization.axis_figures import METRICS, TRUE_BITS_BOUND, log_ticks, metric_axis, named_rows, short
from lab.quantization.quality_figures import Mark, family, pareto, quality_and_bits

VARIANTS: dict[str, str] = {
    "xnor": "one bit, scale a row",
    "rtn": "round to nearest, one scale",
    **{f"rtn_{bits}": f"round to nearest, {bits} bit" for bits in (2, 3, 4, 8)},
    **{f"gptq_{bits}": f"GPTQ, {bits} bit" for bits in (2, 3, 4, 8)},
    **{f"pb_{share}": f"PB-LLM, {share} %" for share in (0, 5, 10, 20, 30)},
    "pb_10_rtn": "PB-LLM, no compensation",
    "pb_10_magnitude": "PB-LLM, by magnitude",
    "pb_10_exact": "PB-LLM, the paper's Hessian",
    "pb_10_groups": "PB-LLM, groups of 128",
    "pb_10_official": "PB-LLM, the code's means",
    "pb_equal": "PB-LLM, 13 %",
    "pb_fewer": "PB-LLM, 4.9 %",
    "billm": "BiLLM",
    "ptq": "PTQ1.61",
    "ptq_start": "PTQ1.61, nothing learned",
    "ptq_no_angle": "PTQ1.61, no angular loss",
    "ptq_hessian": "PTQ1.61, by Hessian",
    "ptq_random": "PTQ1.61, by chance",
    "ptq_wider": "PTQ1.61, 56 % of channels",
    "none": "PTQ1.61, no mask",
    "mask": "PTQ1.61, mask alone",
    "preprocess": "PTQ1.61, only preprocessed",
    "learned": "PTQ1.61, not preprocessed",
    "all": "PTQ1.61, preprocessed",
    "flexround": "FlexRound, one scale",
    **{f"flexround_{bits}": f"FlexRound, {bits} bit" for bits in (3, 4, 8)},
    "adaround": "AdaRound, one scale",
    "adaquant": "AdaQuant, one scale",
    "signround": "SignRound, one scale",
    "no_s1": "FlexRound, fixed step",
    "no_s3": "FlexRound, no row factor",
}  # what the studies' columns begin with; "one scale" is one for a whole layer, else each row has its own


def over_seeds(
    rows: Mapping[str, Sequence[Mapping[str, float]]],
    ours: str = "",
    metric: str = "cosine",
    theme: Theme = LIGHT,
) -> go.Figure:
    """The ledger's replicates of all papers in one picture: mean quality with its 95 % interval, against true bits.

    rows: by study, the named numbers of each seed as `comparison.columns` gives them, `NAME_bits`, `NAME_bound` and
    `NAME_METRIC`; a setting that two studies measured counts once. ours: the method in the accent, "PB-LLM". ValueError
    where no study has such numbers.
    """
    higher = metric != "perplexity"
    marks = seed_marks(rows, metric)
    if not marks:
        raise ValueError(f"rows holds no setting with {metric} and bits")
    seeds = {len(replicates) for replicates in rows.values()}
    number = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    front = [mark.family for mark in pareto(marks, higher)]
    title = f"Of {len(front)} settings that none beats with as few bits, {ours} has {front.count(ours)} "
    if not ours:
        title = f"{len(front)} of {len(marks)} settings are beaten by none with as few bits "
    title += f"(means of {number} seeds)"
    fig = figure(title, theme=theme, x=TRUE_BITS_BOUND, y=metric_axis(metric), height=480)
    full = [row[f"full_{metric}"] for replicates in rows.values() for row in replicates if f"full_{metric}" in row]
    level = float(np.mean(full)) if full else math.nan
    return quality_and_bits(fig, marks, level, higher, {ours}, theme, joined=False)


def seeds_by_name(
    rows: Mapping[str, Sequence[Mapping[str, float]]],
    ours: str = "",
    metric: str = "cosine",
    theme: Theme = LIGHT,
) -> go.Figure:
    """The same settings by name, best first, with their intervals; arguments and errors as `over_seeds`."""
    higher = metric != "perplexity"
    marks = sorted(seed_marks(rows, metric), key=lambda mark: -mark.value if higher else mark.value)
    if not marks:
        raise ValueError(f"rows holds no setting with {metric} and bits")
    place = next((place for place, mark in enumerate(marks, start=1) if mark.family == ours), 0)
    title = f"Best {METRICS[metric]} of {len(marks)} settings: {marks[0].name}, {short(marks[0].value)}"
    if place > 1:
        title += f"; the best of {ours} is number {place}, {short(marks[place - 1].value)}"
    axis = metric_axis(metric) + "<br><sup>bars: 95 % intervals</sup>"
    fig = figure(title, theme=theme, height=110 + 25 * len(marks), x=axis)
    names = [mark.name for mark in marks]
    for mine in (False, True):
        part = [place for place, mark in enumerate(marks) if (mark.family == ours) is mine]
        up, down = (
            [abs(edge - marks[place].value) if math.isfinite(edge) else 0.0 for place, edge in ends]
            for ends in ([(place, marks[place].high) for place in part], [(place, marks[place].low) for place in part])
        )
        shade = theme.accent if mine else theme.baselines[0]
        bars = {"type": "data", "array": up, "arrayminus": down, "thickness": 1.5, "width": 5, "color": shade}
        fig.add_trace(
            go.Scatter(
                x=[marks[place].value for place in part],
                y=[names[place] for place in part],
                mode="markers",
                marker={"color": shade, "size": 9},
                error_x=bars,
                name=ours if mine else "others",
                hovertemplate="%{y}: %{x:.3g}<extra></extra>",
            )
        )
    named_rows(fig, names, [mark.family == ours for mark in marks], [mark.bits for mark in marks], theme)
    if not higher:
        fig.update_xaxes(type="log", **log_ticks([mark.value for mark in marks]))
    return fig


def seed_marks(rows: Mapping[str, Sequence[Mapping[str, float]]], metric: str) -> list[Mark]:
    """The mean of every setting over its seeds, with its 95 % interval; perplexities are averaged in logarithms."""
    found: dict[str, Mark] = {}
    for replicates in rows.values():
        for name, label in VARIANTS.items():
            if label in found or not replicates or not {f"{name}_{metric}", f"{name}_bits"} <= set(replicates[0]):
                continue
            values = np.array([row[f"{name}_{metric}"] for row in replicates], dtype=float)
            logarithmic = metric == "perplexity"
            if not np.isfinite(values).all() or (logarithmic and (values <= 0).any()):
                continue
            parts = ledger.t_interval(list(np.log(values) if logarithmic else values))
            mean, low, high = (math.exp(min(part, 700.0)) if logarithmic else part for part in parts)
            bits, bound = (
                float(np.mean([row.get(f"{name}_{part}", math.nan) for row in replicates]))
                for part in ("bits", "bound")
            )
            note = f"95 % interval {low:.3g} to {high:.3g}, {len(values)} seeds" if len(values) > 1 else "one seed"
            if len(values) < 2:
                low = high = math.nan
            found[label] = Mark(label, family(label), bits, mean, bound, False, note, low, high)
    return list(found.values())
