"""The room's pictures: pure functions from a Result to a figure, with the finding as title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab import ledger, plot
from lab.clustering.figures import (
    Line,
    fade,
    lines_figure,
    map_figure,
    methods_figure,
    name_groups,
    sizes_figure,
)
from lab.clustering.figures import head_medium_tail as groups_by_frequency
from lab.clustering.sp2ot.digits_experiment import DigitsResult
from lab.clustering.sp2ot.digits_methods import NAMES
from lab.clustering.sp2ot.features_experiment import FeaturesResult
from lab.clustering.sp2ot.growth_experiment import GrowthResult
from lab.clustering.sp2ot.plan_experiment import PlanResult
from lab.plot import LIGHT, Theme, figure, heatmap, playable
from lab.views import Picture, View

MAX_ROWS, MAX_FRAMES, MAX_POINTS = 400, 24, 4000
CLOSE = 1e-6  # L1 distance at which the solvers' iterations are counted
OURS = "SP²OT"
TERMS = {
    "transport": ("transport", "solid"),
    "semantic": ("semantic", "dash"),
    "kl": ("size penalty", "dot"),
    "entropy": ("entropy", "dashdot"),
}
SOLVERS = {"log": "the same in logarithms", "scaling": "plain scaling", "anderson": "this solver"}
PRINCIPAL = {"x": "first principal axis", "y": "second principal axis"}
SCORE_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "nmi": "NMI",
    "ari": "ARI",
    "head": "recall of the frequent classes",
    "medium": "recall of the middling classes",
    "tail": "recall of the rare classes",
}
MEASURES = {"balanced_accuracy": "balanced acc.", "f1": "F1", "nmi": "NMI", "ari": "ARI"}


def plan_image(result: PlanResult, theme: Theme = LIGHT) -> go.Figure:
    """The plan as a picture: one row per sample (by class, surest first), one column per cluster, the virtual one last."""
    order = np.lexsort((-result.plan[:, :-1].sum(1), result.truth))
    order = order[:: int(np.ceil(len(order) / MAX_ROWS))]
    truth = result.truth[order]
    title = f"{result.mass:.0%} of the mass is handed out, {result.precision_selected:.0%} of it to the right cluster"
    fig = figure(title, theme=theme, x="cluster, matched to the classes", y="samples, by true class")
    columns = [*result.class_names, "set apart"]
    fig.add_trace(
        heatmap(
            result.plan[order],
            theme=theme,
            high=1.0,
            x=columns,
            hovertemplate="%{z:.0%} of this sample to %{x}<extra></extra>",
        )
    )
    fig.update_traces(colorbar_title_text="share of<br>the sample", colorbar_tickformat=".0%")
    starts = np.flatnonzero(np.diff(truth)) + 0.5
    for start in starts:
        fig.add_hline(y=float(start), line={"color": theme.muted, "width": 0.7})
    fig.add_vline(x=len(columns) - 1.5, line={"color": theme.ink, "width": 1.5, "dash": "dot"})
    edges = np.concatenate([[-0.5], starts, [len(truth) - 0.5]])
    middles, names = (edges[1:] + edges[:-1]) / 2, [result.class_names[k] for k in dict.fromkeys(truth.tolist())]
    below = float(len(truth)) * 1.045
    for k in range(len(middles) - 1, -1, -1):  # labels of small classes would lie on one another: push them up
        below = middles[k] = min(middles[k], below - 0.045 * len(truth))
    fig.update_yaxes(autorange="reversed", showgrid=False, ticks="", tickvals=middles.tolist(), ticktext=names)
    fig.update_xaxes(type="category", showgrid=False)
    return fig


def cluster_map(result: PlanResult, theme: Theme = LIGHT) -> go.Figure:
    """The samples on the map: the hue is the cluster, the opacity the share of the sample that is handed out."""
    mass, names = result.plan[:, :-1].sum(1), result.class_names
    title = "All of every sample is handed out"
    if result.mass < 1 - 1e-3:
        ranked = np.cumsum(np.sort(mass)[::-1])
        half = np.searchsorted(ranked, ranked[-1] / 2) / len(mass)
        title = f"Half of what is handed out comes from the surest {half:.0%} of the samples; the faint ones wait"
    rows = zip(mass, result.label, result.truth, strict=True)
    text = [f"{share:.0%} to {names[k]}, truly {names[true]}" for share, k, true in rows]
    fig = map_figure(title, result.points, result.label, names, theme, opacity=fade(mass), text=text)
    name_groups(fig, result.points, result.label, names, theme)
    return fig


def cluster_sizes(result: PlanResult, theme: Theme = LIGHT) -> go.Figure:
    """The share of the handed-out mass each cluster got, beside the classes' true shares and equal shares."""
    off, equal = (np.abs(sizes - result.true_sizes).sum() / 2 for sizes in (result.sizes, result.prior))
    title = f"{off:.0%} of the mass is in clusters that are too large; with equal sizes it is {equal:.0%}"
    order = np.argsort(-result.true_sizes, kind="stable")
    names = [result.class_names[k] for k in order]
    return sizes_figure(
        title,
        names,
        result.sizes[order],
        result.true_sizes[order],
        theme,
        x="class, most frequent first",
        y="share of the mass",
        groups=True,
    )


def objective_descent(result: PlanResult, theme: Theme = LIGHT) -> go.Figure:
    """Above: the objective and its four terms at each majorize-minimize step. Below: by how much it fell or rose."""
    steps, total = result.objective["step"].to_numpy(), result.objective["total"].to_numpy()
    change, rose = np.diff(total), np.isin(steps[1:], result.rises)
    title = f"The objective fell at every one of {steps[-1]} steps"
    if rose.any():
        title = f"The objective rose at {rose.sum()} of {steps[-1]} steps, by up to {change[rose].max():.2g}"
    fig = figure(title, theme=theme, x="majorize-minimize step", y="F and its terms", height=480)
    colors = (theme.baselines[0], theme.ink, theme.baselines[1], theme.baselines[1])
    for (name, (text, dash)), color in zip(TERMS.items(), colors, strict=True):
        line = {"color": color, "width": 1.5, "dash": dash}
        fig.add_trace(go.Scatter(x=steps, y=result.objective[name].to_numpy(), mode="lines", name=text, line=line))
    line = {"color": theme.accent, "width": 2.5}
    fig.add_trace(go.Scatter(x=steps, y=total, mode="lines+markers", name="F, their sum", line=line))
    marks = (("fell", ~rose, "triangle-down", theme.accent), ("rose", rose, "triangle-up", theme.truth))
    for name, chosen, symbol, color in marks:
        at = np.flatnonzero(chosen & (change != 0))
        if len(at):
            marker = {"symbol": symbol, "color": color, "size": 9}
            size = np.abs(change)[at]
            fig.add_trace(go.Scatter(x=steps[at + 1], y=size, name=name, mode="markers", marker=marker, yaxis="y2"))
    below = fig.layout.yaxis.to_plotly_json() | {"title": {"text": "|change|", "standoff": 10}}
    below |= {"domain": [0, 0.32], "type": "log", "exponentformat": "power", "nticks": 4}
    fig.update_layout(showlegend=True, yaxis_domain=[0.42, 1], xaxis_anchor="y2", yaxis2=below)
    return fig


def solver_race(result: PlanResult, theme: Theme = LIGHT) -> go.Figure:
    """How far each solver is from the exact plan after so many iterations."""
    title = f"Within {CLOSE:g} of the exact plan after {_iterations(result, 'anderson')} iterations; "
    title += f"plain scaling needs {_iterations(result, 'scaling')}"
    fig = figure(title, theme=theme, x="iterations", y="distance to the exact plan (L1, mass)")
    lines = {
        "log": {"color": theme.baselines[3], "width": 7},
        "scaling": {"color": theme.baselines[0], "width": 2, "dash": "dash"},
        "anderson": {"color": theme.accent, "width": 2.5},
    }
    for solver, line in lines.items():
        path = result.solvers[result.solvers["solver"] == solver]
        x, error = path["iteration"].to_numpy(), np.maximum(path["error"].to_numpy(), 1e-15)
        fig.add_trace(go.Scatter(x=x, y=error, mode="lines+markers", name=SOLVERS[solver], line=line, marker_size=6))
    fig.update_layout(showlegend=True, legend_traceorder="reversed")
    fig.update_xaxes(type="log", dtick=1)
    fig.update_yaxes(type="log", exponentformat="power")
    return fig


def _iterations(result: PlanResult, solver: str) -> str:
    """How many iterations a solver needs to come close, in words."""
    path = result.solvers[result.solvers["solver"] == solver]
    close = path.loc[path["error"] <= CLOSE, "iteration"]
    return f"{close.iloc[0]}" if len(close) else f"more than {path['iteration'].max()}"


def growth_map(result: GrowthResult, theme: Theme = LIGHT) -> go.Figure:
    """The samples while the mass grows: hue the label, opacity the share that is labelled; play, pause or drag.

    Crosses are the clusters' centres, where the map is the feature space.
    """
    frames = np.unique(np.linspace(0, len(result.rho) - 1, min(MAX_FRAMES, len(result.rho))).round().astype(int))
    title = f"From {result.rho[0]:.0%} to {result.rho[-1]:.0%} of the mass: balanced accuracy "
    title += f"{result.accuracy[0]:.0%} at the start, {result.accuracy[-1]:.0%} at the end"
    fig = map_figure(title, result.points, result.label[frames[0]], result.class_names, theme)
    fig.update_layout(height=500)

    def data(step: int) -> list[go.Scatter]:
        traces = [go.Scatter(marker={"color": result.label[step].astype(np.uint8), "opacity": fade(result.mass[step])})]
        if result.centres.shape[1]:
            traces.append(go.Scatter(x=result.centres[step, :, 0], y=result.centres[step, :, 1]))
        return traces

    first = data(int(frames[0]))
    fig.data[0].update(marker_opacity=first[0].marker.opacity)
    for centres in first[1:]:
        marker = {"symbol": "x", "size": 11, "color": theme.truth}
        fig.add_trace(centres.update(mode="markers", marker=marker, hoverinfo="skip"))
    fig.frames = [go.Frame(name=str(step), data=data(int(step)), traces=list(range(len(fig.data)))) for step in frames]
    playable(fig, [(str(step), f"{result.rho[step]:.0%}") for step in frames], "mass handed out: ", theme)
    return fig


def growth_precision(result: GrowthResult, theme: Theme = LIGHT) -> go.Figure:
    """Share of right labels in the labelled mass, against labelling everything at the same step."""
    ahead = int(np.sum(result.precision_selected > result.precision_all + 1e-3))
    title = f"What is labelled is labelled better than the whole would be at {ahead} of {len(result.rho)} steps"
    lines: list[Line] = [
        ("right, of what is labelled", result.precision_selected, {"color": theme.accent, "width": 2.5}),
        ("right, were all labelled", result.precision_all, {"color": theme.baselines[0], "dash": "dash"}),
        ("labelled", result.rho, {"color": theme.muted, "dash": "dot"}),
    ]
    fig = lines_figure(title, np.arange(len(result.rho)), lines, theme, "share of the mass")
    fig.update_yaxes(range=[0, 1.03])
    return fig


def growth_sizes(result: GrowthResult, theme: Theme = LIGHT) -> go.Figure:
    """What the head, medium and tail classes get of the labelled mass, step by step, against their true shares."""
    order = np.argsort(-result.true_sizes, kind="stable")
    groups = {name: order[ranks] for name, ranks in groups_by_frequency(len(order)).items()}
    tail, truth = float(result.sizes[-1][groups["tail"]].sum()), float(result.true_sizes[groups["tail"]].sum())
    title = f"The tail's clusters end with {tail:.0%} of the mass; its classes are {truth:.0%} of the samples"
    lines: list[Line] = []
    for (name, members), color in zip(groups.items(), theme.classes, strict=False):
        true = np.full(len(result.rho), result.true_sizes[members].sum())
        lines.append((name, result.sizes[:, members].sum(1), {"color": color, "width": 2.5}))
        lines.append(("", true, {"color": color, "width": 1.5, "dash": "dash"}))
    fig = lines_figure(title, np.arange(len(result.rho)), lines, theme, "share of the labelled mass")
    fig.add_annotation(
        x=1,
        y=1,
        xref="paper",
        yref="paper",
        yanchor="bottom",
        xanchor="right",
        showarrow=False,
        text="dashed: truth",
        font={"color": theme.muted, "size": 13},
    )
    fig.update_yaxes(rangemode="tozero")
    return fig


def _best(column: pd.Series) -> str:
    best = column.idxmax()
    return f"{best} {column.max():.0%}" + ("" if best == OURS else f" ({OURS} {column[OURS]:.0%})")


def scores(result: DigitsResult, theme: Theme = LIGHT) -> go.Figure:
    """Seven methods and four measures of agreement with the true classes; this method's row in the accent."""
    table = result.scores.set_index("method")
    title = f"Best balanced accuracy: {_best(table['balanced_accuracy'])}; best ARI: {_best(table['ari'])}"
    measures = {text: table[name].to_numpy() for name, text in MEASURES.items()}
    return methods_figure(title, list(table.index), measures, OURS, theme, "agreement with the true classes")


def head_medium_tail(result: DigitsResult, theme: Theme = LIGHT) -> go.Figure:
    """How much of the frequent, the middling and the rare classes each method finds: mean recall of each group."""
    table = result.scores.set_index("method")
    title = f"Best recall of the rare classes: {_best(table['tail'])}"
    measures = {name: table[name].to_numpy() for name in ("head", "medium", "tail")}
    return methods_figure(title, list(table.index), measures, OURS, theme, "mean recall in the group")


def over_seeds(
    rows: Sequence[Mapping[str, float]], score: str = "balanced_accuracy", theme: Theme = LIGHT
) -> go.Figure:
    """Every replicate of the comparison as a dot, the mean as a stroke, one row per method.

    rows: one mapping per seed, `METHOD_SCORE` -> percent, as study `digits` measures them; score: one of `SCORES`.
    """
    table = pd.DataFrame({name: [row[f"{method}_{score}"] for row in rows] for method, name in NAMES.items()}) / 100
    title = f"Mean of {len(rows)} seeds: best {SCORE_NAMES[score]} {_best(table.mean())}"
    fig = figure(title, theme=theme, x=f"{SCORE_NAMES[score]}, a dot a seed", y="method", height=450)
    colors = [theme.accent if name == OURS else theme.baselines[0] for name in table]
    for row, (name, color) in enumerate(zip(table, colors, strict=True)):
        heights = row + np.linspace(-0.22, 0.22, len(table))
        marker = {"color": color, "size": 7, "opacity": 0.55}
        fig.add_trace(go.Scatter(x=table[name], y=heights, mode="markers", marker=marker, name=name, showlegend=False))
    stroke = {"symbol": "line-ns-open", "size": 22, "color": colors, "line": {"width": 3}}
    means = table.mean().to_numpy()
    fig.add_trace(go.Scatter(x=means, y=np.arange(len(means)), mode="markers", marker=stroke, name="mean"))
    names = [f"<b>{name}</b>" if name == OURS else name for name in table]
    fig.update_layout(showlegend=False)
    fig.update_xaxes(tickformat=".0%")
    fig.update_yaxes(tickvals=np.arange(len(names)), ticktext=names, autorange="reversed", showgrid=False)
    return fig


def confusion(result: DigitsResult, method: str = OURS, theme: Theme = LIGHT) -> go.Figure:
    """Which classes end in which clusters: rows sum to 1, classes from most to least frequent."""
    counts = result.confusion[method]
    wrong = counts - np.diag(np.diag(counts))
    true, cluster = np.unravel_index(wrong.argmax(), wrong.shape)
    title = f"{method}: {wrong.sum() / counts.sum():.0%} of the samples are in another class's cluster"
    if wrong.any():
        names = result.class_names
        title += f", most often {names[true]} in {names[cluster]}'s ({wrong.max()})"
    return plot.confusion(counts, result.class_names, title, theme=theme)


def selected_precision(result: DigitsResult, theme: Theme = LIGHT) -> go.Figure:
    """Share of right labels at each training step: in the mass that is labelled, and were all of it labelled."""
    curves = {name: curve for name, curve in result.curves.groupby("method", sort=False)}
    ours = curves[OURS]
    early = ours[ours["step"] < ours["step"].max() / 4 + 1]
    selected, everything = early["precision_selected"].mean(), early["precision_all"].mean()
    title = f"Early on, {selected:.0%} of {OURS}'s labels are right; {everything:.0%} would be, were all labelled"
    looks = {"SeLa": ("dot", 2), "UOT": ("dash", 1), "P²OT": ("solid", 0)}
    lines: list[Line] = [
        (name, curves[name]["precision_selected"].to_numpy(), {"color": theme.baselines[grey], "dash": dash})
        for name, (dash, grey) in looks.items()
    ]
    lines += [
        (OURS, ours["precision_selected"].to_numpy(), {"color": theme.accent, "width": 2.5}),
        (f"{OURS}, if all", ours["precision_all"].to_numpy(), {"color": theme.accent, "dash": "dot"}),
    ]
    return lines_figure(title, ours["step"].to_numpy(), lines, theme, "share of right labels")


def digits_map(result: DigitsResult, method: str = OURS, theme: Theme = LIGHT) -> go.Figure:
    """The digits on the encoder's map: hue the cluster, matched to the classes; a cross where it is another class's."""
    wrong = result.labels[method] != result.truth
    title = f"{method} puts {1 - wrong.mean():.0%} of the digits into their class's cluster; crosses: the others"
    names = result.class_names
    fig = map_figure(title, result.points, result.labels[method], names, theme, opacity=0.75, wrong=wrong)
    name_groups(fig, result.points, result.truth, names, theme)
    return fig


def features_map(result: FeaturesResult, theme: Theme = LIGHT) -> go.Figure:
    """The rows on their first two principal axes: hue the cluster, opacity the head's confidence."""
    sure = float(np.mean(result.confidence > 0.9))
    title = f"{sure:.0%} of the rows are in their cluster with more than 90% confidence"
    drawn = np.linspace(0, len(result.labels) - 1, min(MAX_POINTS, len(result.labels))).round().astype(int)
    names = [str(number) for number in range(len(result.sizes))]
    points, label = result.points[drawn], result.labels[drawn]
    fig = map_figure(title, points, label, names, theme, opacity=fade(result.confidence[drawn]), axes=PRINCIPAL)
    name_groups(fig, points, label, names, theme)
    return fig


def features_sizes(result: FeaturesResult, theme: Theme = LIGHT) -> go.Figure:
    """The clusters by size; the sizes of the classes beside them, largest to largest, where labels came."""
    order = np.argsort(-result.sizes, kind="stable")
    used = result.sizes[result.sizes > 0]
    title = f"{len(used)} clusters hold from {used.min():.1%} to {used.max():.1%} of the rows each"
    true = np.sort(result.confusion.sum(1) / result.confusion.sum())[::-1] if len(result.confusion) else None
    names = [str(number) for number in order]
    return sizes_figure(
        title, names, result.sizes[order], true, theme, x="cluster, largest first", y="share of the rows"
    )


def features_confusion(result: FeaturesResult, theme: Theme = LIGHT) -> go.Figure:
    """Which classes of the table ended in which clusters; ValueError for a table that brought no labels."""
    if not len(result.confusion):
        raise ValueError("result holds no labels to compare the clusters with")
    score = result.scores
    title = f"Against the labels: balanced accuracy {score['balanced_accuracy']:.0%}, "
    title += f"NMI {score['nmi']:.2f}, ARI {score['ari']:.2f}"
    return plot.confusion(result.confusion, result.class_names, title, theme=theme)


def _methods(result: DigitsResult) -> list[str]:
    """The methods of the race, the paper's own first."""
    return list(reversed(result.confusion))


def _seeds() -> list[dict[str, float]]:
    """The ledger's seeds of the race; no knob moves them."""
    return ledger.rows("sp2ot", "digits")


VIEWS = (
    View(
        "plan",
        "One plan",
        {
            "On the map": cluster_map,
            "The plan": plan_image,
            "Sizes": cluster_sizes,
            "Descent": objective_descent,
            "Solvers": solver_race,
        },
    ),
    View(
        "growth",
        "Mass grows",
        {"On the map": growth_map, "Precision": growth_precision, "Sizes": growth_sizes},
    ),
    View(
        "digits",
        "Digits race",
        {
            "Scores": scores,
            "Head to tail": head_medium_tail,
            "Confusion": Picture(confusion, choose="Method", options=_methods),
            "Precision": selected_precision,
            "On the map": Picture(digits_map, choose="Method", options=_methods),
            "Over seeds": Picture(over_seeds, rows=_seeds),
        },
    ),
    View(
        "features",
        "Your data",
        {
            "On the map": features_map,
            "Sizes": features_sizes,
            "Against labels": Picture(features_confusion, when=lambda result: len(result.confusion) > 0),
        },
    ),
)
