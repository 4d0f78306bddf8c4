"""The room's pictures: pure functions from a Result to a plotly figure."""

from __future__ import annotations

import itertools

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab.plot import LIGHT, Theme, figure
from lab.quantization.axis_figures import TRUE_BITS, log_ticks, short
from lab.quantization.figures import LAYER, MATRIX, SEARCH, model_view
from lab.quantization.layer_figures import PARTS, layer_columns, layer_peers, stacked_bits
from lab.quantization.model_figures import model_blocks, model_scatter
from lab.quantization.ptq1_61.bill_experiment import BillResult
from lab.quantization.ptq1_61.preprocess_experiment import PreprocessResult
from lab.views import View

__all__ = [
    "VIEWS",
    "bill_parts",
    "bill_widths",
    "layer_columns",
    "layer_peers",
    "model_blocks",
    "model_scatter",
    "preprocess_rows",
    "preprocess_salience",
]
OURS = "PTQ1.61"
PREPROCESSED = ("preprocessed", "preprocessed, one bit", "all three")  # rows whose weights LoRA made
WIDTHS = (64, 256, 1024, 4096)


def bill_parts(result: BillResult, theme: Theme = LIGHT) -> go.Figure:
    """What a weight costs, part by part, by each method; a mark where its paper's own count stands."""
    bill = result.bill
    total = bill[list(PARTS)].sum(axis=1)
    ours = int(np.argmax(bill["what"] == OURS))
    low = int(np.argmax((total - bill["paper"]).to_numpy()))
    title = f"At width {result.width:,} {OURS} costs {total[ours]:.2f} bits a weight, its paper counts {bill['paper'][ours]:.2f}"
    if low != ours:
        title += f"; {bill['what'][low]} is {total[low] - bill['paper'][low]:.2f} above its count"
    fig = figure(title, theme=theme, x=TRUE_BITS, height=110 + 62 * len(bill))
    stacked_bits(fig, bill.replace({"what": {name: f"<b>{name}</b>" for name in [OURS]}}), theme)
    shown = [f"<b>{name}</b>" if name == OURS else name for name in bill["what"]]
    fig.add_trace(
        go.Scatter(
            x=bill["paper"],
            y=shown,
            mode="markers",
            name="the paper's count",
            marker={"symbol": "line-ns-open", "size": 30, "color": theme.truth, "line": {"width": 3}},
            hovertemplate="%{y}, as the paper counts: %{x:.3f} bits<extra></extra>",
        )
    )
    fig.update_yaxes(
        tickvals=shown, ticktext=[name.replace(", ", ",<br>") for name in shown], type="category", tickfont={"size": 13}
    )
    return fig


def bill_widths(result: BillResult, theme: Theme = LIGHT) -> go.Figure:
    """How the true bits fall with the layer's width: scales are shared by ever more weights."""
    lines = {str(name): part for name, part in result.curves.groupby("method", sort=False)}
    ours = lines[OURS]
    narrow, wide = ours.iloc[0], ours.iloc[-1]
    title = f"{OURS} costs {narrow['bits']:.2f} bits a weight in a layer of width {narrow['width']:,} and "
    title += f"{wide['bits']:.2f} in one of {wide['width']:,}"
    fig = figure(title, theme=theme, x="width (channels, logarithmic)", y=TRUE_BITS)
    dashes = ("dot", "solid", "solid", "dash", "dashdot", "longdash")
    ends = sorted((float(part["bits"].iloc[-1]), name) for name, part in lines.items())
    below = {name for (bits, name), (above, _) in itertools.pairwise(ends) if above - bits < 0.3}
    for (name, part), dash in zip(lines.items(), dashes, strict=False):
        color = theme.accent if name == OURS else theme.baselines[0]
        line = {"color": color, "width": 3 if name == OURS else 1.6, "dash": dash}
        fig.add_trace(
            go.Scatter(
                x=part["width"],
                y=part["bits"].astype(np.float32),
                mode="lines",
                name=name,
                line=line,
                hovertemplate=name + ", width %{x:,}: %{y:.2f} bits<extra></extra>",
            )
        )
        under = name in below and name != OURS
        fig.add_annotation(
            x=float(np.log10(part["width"].iloc[-1])),
            y=float(part["bits"].iloc[-1]),
            text=name,
            showarrow=False,
            xanchor="right",
            yanchor="top" if under else "bottom",
            yshift=-2 if under else 6,
            font={"color": color, "size": 13},
        )
    fig.add_vline(x=result.width, line={"color": theme.truth, "width": 1, "dash": "dash"})
    ticks = sorted([result.width, *(each for each in WIDTHS if not 0.5 < each / result.width < 2)])
    fig.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])
    return fig


def preprocess_rows(result: PreprocessResult, theme: Theme = LIGHT) -> go.Figure:
    """The ablation: perplexity after each combination, below the two unquantized models that it starts from."""
    table = result.table
    values = dict(zip(table["step"], table["perplexity"], strict=True))
    first, last = (str(table["step"].iloc[place]) for place in (0, -1))
    title = f"Perplexity {short(values[first])} with {first}, {short(values[last])} with {last}; preprocessing takes "
    title += f"the unquantized model from {short(result.full)} to {short(result.preprocessed)}"
    rows = ["full precision", "preprocessed", *table["step"]]
    found = np.array([result.full, result.preprocessed, *table["perplexity"]], dtype=float)
    bits = [32.0, 32.0, *table["bits"]]
    color = [theme.truth] * 2 + [theme.accent if name == last else theme.baselines[0] for name in table["step"]]
    shape = ["diamond" if name in PREPROCESSED else "circle" for name in rows]
    known = np.isfinite(found) & (found > 0)
    fig = figure(title, theme=theme, x="held-out perplexity (log)", height=120 + 50 * len(rows))
    fig.add_trace(
        go.Scatter(
            x=np.where(known, found, np.nan),
            y=rows,
            mode="markers",
            name="perplexity",
            marker={"color": color, "size": 14, "symbol": shape},
            customdata=bits,
            hovertemplate="%{y}: %{x:.4g} at %{customdata:.2f} bits<extra></extra>",
        )
    )
    middle = float(np.sqrt(found[known].min() * found[known].max())) if known.any() else 1.0
    for name, value, cost, shade, there in zip(rows, found, bits, color, known, strict=True):
        left = there and value > middle
        place = {"x": float(np.log10(value)), "xref": "x"} if there else {"x": 1, "xref": "x domain"}
        fig.add_annotation(
            y=name,
            text=f"{short(value) if there else 'not finite'} · {cost:.3g} bits",
            showarrow=False,
            xanchor="right" if left or not there else "left",
            xshift=-12 if left else 12 if there else 0,
            font={"color": shade, "size": 13},
            **place,
        )
    for value, dash in ((result.full, "dash"), (result.preprocessed, "dot")):
        fig.add_vline(x=value, line={"color": theme.truth, "width": 1.2, "dash": dash}, layer="below")
    fig.update_xaxes(type="log", **log_ticks(found[known]))
    fig.update_yaxes(
        type="category",
        autorange="reversed",
        tickvals=rows,
        ticktext=[name.replace(", ", ",<br>").replace("mask and ", "mask and<br>") for name in rows],
    )
    return fig


def preprocess_salience(result: PreprocessResult, theme: Theme = LIGHT) -> go.Figure:
    """Where the largest 5 % of a layer's weights lie, before and after preprocessing: a corner of the layer."""
    before, after = result.columns
    title = f"The largest weights fall on the input channels {after:.2f} times as unevenly as by chance, {before:.2f} before"
    names = ["before", "preprocessed"]
    fig = make_subplots(rows=1, cols=2, subplot_titles=names, horizontal_spacing=0.05, shared_yaxes=True)
    fig.update_layout(figure(title, theme=theme, height=430).layout)
    parts = zip(names, (result.salience_before, result.salience_after), (theme.baselines[0], theme.accent), strict=True)
    for place, (name, marked, color) in enumerate(parts, start=1):
        fig.add_trace(
            go.Heatmap(
                z=marked.astype(np.uint8),
                colorscale=[[0, theme.surface], [1, color]],
                showscale=False,
                zmin=0,
                zmax=1,
                name=name,
                hovertemplate="output %{y}, input %{x}<extra>" + name + "</extra>",
            ),
            row=1,
            col=place,
        )
    fig.update_xaxes(showgrid=False, title_text="input channel", ticks="", linecolor=theme.muted, mirror=True)
    fig.update_yaxes(showgrid=False, ticks="", autorange="reversed", linecolor=theme.muted, mirror=True)
    fig.update_yaxes(title_text="output", col=1, row=1)
    fig.update_annotations(font={"size": 14, "color": theme.muted})
    return fig


VIEWS = (
    LAYER,
    View("bill", "Bill", {"Part by part": bill_parts, "Width": bill_widths}),
    model_view("PTQ1.61"),
    SEARCH,
    View("preprocess", "Preprocessing", {"Perplexity": preprocess_rows, "Largest weights": preprocess_salience}),
    MATRIX,
)
