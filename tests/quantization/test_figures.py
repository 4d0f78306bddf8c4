"""The shared pictures and the rooms' own: both themes, findings that stay true, and results that have gone wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lab.plot import DARK, LIGHT, Theme
from lab.quantization.axis_figures import NARROW
from lab.quantization.layer_experiment import LayerResult
from lab.quantization.layer_figures import PARTS, layer_peers
from lab.quantization.model_experiment import ModelResult
from lab.quantization.model_figures import model_blocks, model_metrics, model_scatter
from lab.quantization.pb_llm import figures as pb_llm
from lab.quantization.pb_llm.training_experiment import ARMS, TrainingResult
from lab.quantization.ptq1_61 import figures as ptq1_61
from lab.quantization.ptq1_61.bill_experiment import BillConfig, bill
from lab.quantization.ptq1_61.preprocess_experiment import ROWS, PreprocessResult
from lab.quantization.quality_figures import Mark, pareto
from lab.quantization.search_experiment import SearchResult
from lab.quantization.search_figures import search_scatter, search_top
from lab.quantization.seeds_figures import over_seeds, seed_marks, seeds_by_name

OURS = "PB-LLM, 10 %"
METHODS = {
    OURS: (2.81, 2.28, 0.65),
    "one bit, scale a row": (1.06, 1.06, 0.24),
    "GPTQ, 2 bit": (2.04, 2.04, 0.26),
    "GPTQ, 3 bit": (3.04, 3.04, 0.84),
    "GPTQ, 4 bit": (4.04, 4.04, 0.97),
    "round to nearest, 3 bit": (3.04, 3.04, 0.73),
    "AdaRound, 3 bit": (3.04, 3.04, 0.88),
    "FlexRound, 3 bit": (3.04, 3.04, 0.89),
    "SignRound, 3 bit": (3.04, 3.04, 0.91),
    "PB-LLM, 5 %": (2.46, 1.75, 0.6),
    "PB-LLM, 30 %": (4.21, 4.09, 0.84),
    "PTQ1.61, 20 %": (1.74, 1.74, 0.6),
}
Draw = Callable[[Any, Theme], Any]


def model(*, perplexity: bool = False, only: tuple[str, ...] = tuple(METHODS), **changed: float) -> ModelResult:
    """A model's result; ``changed`` sets a method's ranking metric, by the first word of its name."""
    rows, blocks = [], []
    for name in only:
        bits, bound, cosine = METHODS[name]
        value = 20 * math.exp(3 * (1 - cosine)) if perplexity else cosine
        value = changed.get(name.split(",")[0].split()[0].replace("-", "_"), value)
        metrics = {"perplexity": value} if perplexity else {"cosine": value, "spearman": value, "recall_1": value / 2}
        rows.append(
            {"method": name, "ours": int(name == OURS), "bits": bits, "bound": bound, "seconds": 2.0, **metrics}
        )
        blocks += [
            {"method": name, "ours": int(name == OURS), "block": block, "error": (1.1 - cosine) * block}
            for block in (1, 2, 3)
        ]
    full = {"perplexity": 17.0} if perplexity else {"cosine": 1.0, "spearman": 1.0, "recall_1": 0.5}
    subject = "stdlib-gpt" if perplexity else "MiniLM"
    return ModelResult(subject, next(iter(full)), not perplexity, full, pd.DataFrame(rows), pd.DataFrame(blocks))


def training() -> TrainingResult:
    known = [{"arm": arm.name, "salient": arm.salient, "frozen": int(arm.freeze)} for arm in ARMS]
    losses = (4.0, 3.5, 3.6, 3.0, 3.1)
    curves = [
        each | {"step": step, "loss": loss + 30 / step}
        for each, loss in zip(known, losses, strict=True)
        for step in range(10, 101, 10)
    ]
    ends = [each | {"at_start": 900.0, "perplexity": math.exp(loss)} for each, loss in zip(known, losses, strict=True)]
    return TrainingResult(17.0, pd.DataFrame(curves), pd.DataFrame(ends))


def preprocessed(*values: float) -> PreprocessResult:
    table = pd.DataFrame({"step": ROWS, "perplexity": values or (14000.0, 1300.0, 570.0, 60.0, 35.0), "bits": 1.75})
    marked = np.eye(96, dtype=np.uint8)
    return PreprocessResult(17.0, 24.0, table, marked, marked[::-1].copy(), (1.0, 2.5))


def search(common: int = 2) -> SearchResult:
    rng = np.random.default_rng(0)
    similarities = rng.normal(size=(2, 60)).astype(np.float32)
    lists = []
    for side, row in enumerate(similarities):
        order = np.argsort(-row)[:5]
        places = [
            f"both.py:f{index}" if index < common else f"<b>{side}</b>/a/long/path.py:f{index}" for index in range(5)
        ]
        text = ["Reads a <file>. " * 20, "", "One.", "Two & three.", "four"]
        lists.append(pd.DataFrame({"place": places, "text": text, "similarity": row[order]}))
    return SearchResult("a query", "PB-LLM, 10 %", 2.81, lists[0], lists[1], common, similarities)


def layer(errors: tuple[float, ...] = (0.05, 0.3, 0.2)) -> LayerResult:
    weight = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    names = (OURS, "one bit, scale a row", "GPTQ, 2 bit")[: len(errors)]
    methods = pd.DataFrame(
        {
            "method": names,
            "bits": [METHODS[name][0] for name in names],
            "error": errors,
            "ours": [name == OURS for name in names],
        }
    )
    count = np.ones(4, int)
    parts = {part: [1.0, 0.5] for part in PARTS}
    return LayerResult(
        "PB-LLM",
        "a layer",
        (8, 12),
        0.1,
        weight,
        np.sign(weight),
        (weight > 1).astype(np.uint8),
        np.linspace(-3, 3, 5),
        count,
        count,
        np.ones(12),
        np.full(12, 1 / 12),
        methods,
        pd.DataFrame({"what": ["paper", "stored"], **parts}),
    )


def seeds(count: int = 6) -> dict[str, list[dict[str, float]]]:
    rng = np.random.default_rng(0)
    chosen = {
        "pb-llm": ("xnor", "gptq_2", "gptq_3", "pb_5", "pb_10"),
        "ptq1-61": ("ptq", "ptq_start", "pb_10", "gptq_2"),
    }
    bits = {"xnor": 1.06, "gptq_2": 2.04, "gptq_3": 3.04, "pb_5": 2.46, "pb_10": 2.81, "ptq": 1.74, "ptq_start": 1.74}
    return {
        slug: [
            {"full_cosine": 1.0, "full_perplexity": 8.0}
            | {f"{name}_bits": bits[name] for name in names}
            | {f"{name}_bound": bits[name] - 0.3 * name.startswith("pb") for name in names}
            | {f"{name}_cosine": 1 - 1 / (1 + bits[name]) + 0.01 * rng.normal() for name in names}
            | {f"{name}_perplexity": 10 * math.exp(3 - bits[name]) for name in names}
            for _ in range(count)
        ]
        for slug, names in chosen.items()
    }


def over(rows: Any, theme: Theme) -> Any:
    return over_seeds(rows, "PB-LLM", theme=theme)


def by_name(rows: Any, theme: Theme) -> Any:
    return seeds_by_name(rows, "PTQ1.61", "perplexity", theme=theme)


def bill_of(width: int = 384) -> Any:
    return bill(BillConfig(width=width), progress=lambda *_: None)


CASES: dict[str, tuple[Draw, Callable[[], Any]]] = {
    "scatter": (model_scatter, model),
    "scatter, perplexity": (model_scatter, lambda: model(perplexity=True)),
    "metrics": (model_metrics, model),
    "metrics, perplexity": (model_metrics, lambda: model(perplexity=True)),
    "blocks": (model_blocks, model),
    "peers": (layer_peers, layer),
    "seeds": (over, seeds),
    "seeds by name": (by_name, seeds),
    "search": (search_top, search),
    "search, nothing in common": (search_top, lambda: search(0)),
    "documents": (search_scatter, search),
    "bill": (ptq1_61.bill_parts, bill_of),
    "bill, wide": (ptq1_61.bill_parts, lambda: bill_of(8192)),
    "width": (ptq1_61.bill_widths, bill_of),
    "preprocessing": (ptq1_61.preprocess_rows, preprocessed),
    "salience": (ptq1_61.preprocess_salience, preprocessed),
    "training": (pb_llm.training_curves, training),
    "ends": (pb_llm.training_ends, training),
}


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
@pytest.mark.parametrize("case", CASES)
def test_pictures(case: str, theme: Theme) -> None:
    draw, made = CASES[case]
    fig = draw(made(), theme)
    title = fig.layout.title.text
    assert title and "nan" not in title and "inf" not in title and "e+" not in title
    assert len(fig.data) and all(trace.name for trace in fig.data)
    assert fig.to_json()
    assert theme.accent in fig.to_json(), "the paper's method is nowhere"


WRONG: dict[str, Callable[[], ModelResult]] = {
    "one method": lambda: model(only=(OURS,)),
    "ours is NaN": lambda: model(PB_LLM=math.nan),
    "all are NaN": lambda: model(only=(OURS,), PB_LLM=math.nan),
    "infinite perplexity": lambda: model(perplexity=True, GPTQ=math.inf),
    "only infinite": lambda: model(perplexity=True, only=(OURS,), PB_LLM=math.inf),
    "nothing yet": lambda: ModelResult("MiniLM", "cosine", True, {"cosine": 1.0}, pd.DataFrame(), pd.DataFrame()),
    "a metric of its own": lambda: ModelResult(
        "mine",
        "cosine",
        True,
        {"cosine": 1.0},
        pd.DataFrame([{"method": OURS, "ours": 1, "bits": 2.8, "bound": 2.2, "seconds": 1.0, "cosine": 1.0}]),
        pd.DataFrame([{"method": OURS, "ours": 1, "block": 1, "error": 0.0}]),
    ),
}


@pytest.mark.parametrize("draw", [model_scatter, model_metrics, model_blocks])
@pytest.mark.parametrize("case", WRONG)
def test_results_that_went_wrong_are_drawn_all_the_same(case: str, draw: Draw) -> None:
    fig = draw(WRONG[case](), LIGHT)
    assert fig.layout.title.text and "nan" not in fig.layout.title.text.lower().split()
    assert fig.to_json()


def test_other_results_that_went_wrong() -> None:
    assert layer_peers(layer((math.nan, 0.1)), LIGHT).to_json()
    assert layer_peers(layer((0.1,)), LIGHT).layout.title.text.endswith("no method shown loses less with as few bits")
    broken = ptq1_61.preprocess_rows(preprocessed(math.inf, 1300.0, math.nan, 60.0, 35.0), LIGHT)
    assert "not finite" in " ".join(note.text for note in broken.layout.annotations)
    for bad in ({}, {"pb-llm": []}, {"pb-llm": [{"seconds": 1.0}]}):
        for draw in (over_seeds, seeds_by_name):
            with pytest.raises(ValueError, match="rows holds no setting with cosine"):
                draw(bad)


def test_the_title_says_who_does_better_for_as_little() -> None:
    assert "no method shown does better" in model_scatter(model()).layout.title.text
    beaten = model(only=(OURS, "PTQ1.61, 20 %"), PB_LLM=0.5)
    assert "PTQ1.61, 20 % has 0.6 with 1.74" in model_scatter(beaten).layout.title.text
    assert "2,500 (full precision 17)" in model_scatter(model(perplexity=True, PB_LLM=2500.0)).layout.title.text
    assert model_metrics(model()).layout.title.text == "GPTQ, 4 bit comes closest to full precision, and finds most"


@pytest.mark.parametrize("perplexity", [False, True])
def test_labels_do_not_meet_on_a_phone_and_ours_is_there(perplexity: bool) -> None:
    fig = model_scatter(model(perplexity=perplexity))
    xs, ys = fig.layout.xaxis.range, fig.layout.yaxis.range
    boxes, names = [], []
    for note in fig.layout.annotations:
        if note.xref == "x domain":
            continue
        text = note.text.replace("<b>", "").replace("</b>", "")
        length = 6.5 * len(text)
        x = NARROW[0] * (note.x - xs[0]) / (xs[1] - xs[0]) + (note.xshift or 0)
        y = NARROW[1] * (note.y - ys[0]) / (ys[1] - ys[0]) + (note.yshift or 0)
        left = x - {"left": 0, "center": length / 2, "right": length}[note.xanchor]
        low = y - {"bottom": 0, "middle": 7, "top": 14}[note.yanchor]
        boxes.append((left, low, left + length, low + 14))
        names.append(text)
    assert OURS in names and len(names) == len(set(names)) >= 6
    for one, other in itertools.combinations(boxes, 2):
        assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]


def test_the_front_is_what_nothing_cheaper_beats() -> None:
    marks = [
        Mark(name, name, bits, value)
        for name, bits, value in (("a", 1, 0.2), ("b", 2, 0.1), ("c", 2, 0.5), ("d", 3, 0.5))
    ]
    assert [mark.name for mark in pareto(marks, higher=True)] == ["a", "c"]
    assert [mark.name for mark in pareto(marks, higher=False)] == ["a", "b"]


def test_means_over_seeds_carry_their_intervals_and_count_each_setting_once() -> None:
    marks = {mark.name: mark for mark in seed_marks(seeds(), "cosine")}
    assert list(marks).count("PB-LLM, 10 %") == 1 and len(marks) == 7
    one = marks["PB-LLM, 10 %"]
    assert one.low < one.value < one.high and one.bound == pytest.approx(one.bits - 0.3)
    (single,) = (mark for mark in seed_marks(seeds(1), "cosine") if mark.name == "PTQ1.61")
    assert math.isnan(single.low), "one seed has no interval"
    broken = seeds(2)
    broken["ptq1-61"][0]["ptq_cosine"] = math.nan
    assert "PTQ1.61" not in {mark.name for mark in seed_marks(broken, "cosine")}


def test_hover_text_is_escaped() -> None:
    assert "<b>0</b>/a" not in search_top(search()).to_json().replace("\\u003c", "<").replace("\\u003e", ">")
