"""The pages of the three quantization papers: each view draws, knobs go to both ends, wrong links and files get a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from app_pages import Page, finish, pictures, traces, widget
from quantization import shared
from safetensors.numpy import save
from streamlit.testing.v1 import AppTest

from lab import assets, catalog, ledger, results, rooms
from lab.knobs import Control, controls
from lab.provenance import Record
from lab.quantization import figures
from lab.quantization.layer_experiment import LayerConfig
from lab.quantization.model_experiment import ModelResult

PAGES = {slug: f"quantization/{slug.replace('-', '_')}.py" for slug in figures.PAPERS}
LIVE = [
    ("pb-llm", "layer"),
    ("ptq1-61", "layer"),
    ("ptq1-61", "bill"),
    ("flexround", "layer"),
    ("flexround", "rounding"),
]
RUN = [
    ("pb-llm", "model"),
    ("pb-llm", "training"),
    ("ptq1-61", "model"),
    ("ptq1-61", "preprocess"),
    ("flexround", "model"),
    ("flexround", "digits"),
]
SHORT = {"steps": 2}
SLOW = {"subject", "part"}  # another model, or the widest layer: tests/quantization/test_layer_experiment.py has them


def end(control: Control, *, last: bool) -> Any:
    """A knob's low or high end, or its first or last choice."""
    values = {"toggle": (True, False), "choice": control.options}.get(control.kind, (control.low, control.high))
    return values[-1 if last else 0]


def opened(page: Page, slug: str, view: str) -> AppTest:
    """A live view with few optimizer steps."""
    names = {control.name for control in controls(rooms.experiments(catalog.get(slug))[view].config)}
    return page(
        PAGES[slug], view=view, **{f"{view}.{name}": str(value) for name, value in SHORT.items() if name in names}
    )


@pytest.mark.parametrize(("slug", "view"), LIVE)
def test_knobs_go_to_both_ends(page: Page, slug: str, view: str) -> None:
    """All at once, once to each end. Which layer it is all papers share, so one paper tries it."""
    app = opened(page, slug, view)
    skipped = SLOW if slug == "pb-llm" else set(LayerConfig.model_fields) if view == "layer" else set()
    knobs = [
        control
        for control in controls(rooms.experiments(catalog.get(slug))[view].config)
        if control.name not in skipped | set(SHORT)
    ]
    for last in (False, True):
        for control in knobs:
            widget(app, f"{view}.{control.name}").set_value(end(control, last=last))
        assert traces(app.run()), last


@pytest.mark.parametrize(("slug", "view"), LIVE)
def test_every_picture_draws(page: Page, slug: str, view: str) -> None:
    assert all(traces(shown) for shown in pictures(opened(page, slug, view), view))


def test_knobs_that_do_not_go_together_keep_the_picture(page: Page) -> None:
    app = opened(page, "pb-llm", "layer")
    widget(app, "layer.subject").set_value("stdlib-gpt")
    widget(app, "layer.block").set_value(5)
    app.run()
    assert "stdlib-gpt has the blocks 0 to 3" in app.error[0].value and app.get("plotly_chart") and not app.exception


@pytest.mark.parametrize("slug", figures.PAPERS)
def test_search(page: Page, slug: str) -> None:
    app = page(PAGES[slug], view="search")
    try:
        assets.folder(f"minilm-{slug}")
    except assets.AssetError:
        assert f"lab train minilm-{slug}" in app.error[0].value and "\n" not in app.error[0].value
        return
    assert all(traces(shown) for shown in pictures(app, "search"))
    widget(app, "search.query").set_value("   ")
    app.run()
    assert "write a few words" in app.error[0].value and app.get("plotly_chart")


@pytest.mark.parametrize(("slug", "view"), RUN)
def test_runs_show_their_record_or_say_what_to_do(page: Page, slug: str, view: str) -> None:
    app = page(PAGES[slug], view=view)
    experiment = rooms.experiments(catalog.get(slug))[view]
    if results.find(experiment, experiment.config()) is None:
        assert "Nothing is recorded" in app.info[0].value and not app.exception
    else:
        assert all(traces(shown) for shown in pictures(app, view))
        assert any("recorded" in caption.value for caption in app.caption)
    assert any(button.label.startswith("Run") for button in app.button)


def test_a_recorded_model_with_the_ledger_s_seeds(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pictures of a model; a hub id can be given where it is allowed, and its limits are said."""
    table = {"method": ["PB-LLM, 10 %", "GPTQ, 3 bit"], "ours": [1, 0], "bits": [2.8, 3.0], "bound": [2.3, 3.0]}
    table |= {"seconds": [1.0, 2.0], "cosine": [0.6, 0.8], "recall_1": [0.3, 0.4]}
    blocks = {"method": table["method"], "ours": [1, 0], "block": [1, 1], "error": [0.2, 0.1]}
    full = {"cosine": 1.0, "recall_1": 0.5}
    result = ModelResult("MiniLM", "cosine", True, full, pd.DataFrame(table), pd.DataFrame(blocks))
    experiment = rooms.experiments(catalog.get("pb-llm"))["model"]
    results.save(results._own_folder(experiment, experiment.config()), result, Record.now(experiment, 1.0, opened={}))
    values = {"pb_10_cosine": 0.6, "pb_10_bits": 2.8, "pb_10_bound": 2.3, "gptq_3_cosine": 0.8, "gptq_3_bits": 3.0}
    monkeypatch.setattr(figures, "replicates", lambda study, metric: {"pb-llm": [values] * 3})
    app = page(PAGES["pb-llm"], view="model")
    assert list(widget(app, "model.picture").options)[-2:] == ["Over seeds", "Seeds by name"]
    assert all(traces(shown) for shown in pictures(app, "model"))
    assert not any(control.label == "folder or hub id" for control in app.text_input)
    monkeypatch.setenv("LAB_ALLOW_MODELS", "1")
    app = page(PAGES["pb-llm"], view="model")
    assert any(control.label == "folder or hub id" for control in app.text_input)
    assert any("untested on released weights" in caption.value for caption in app.caption)


def test_replicates_are_those_that_were_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = {("ptq1-61", "minilm"): [{"xnor_cosine": 0.2}]}
    monkeypatch.setattr(ledger, "rows", lambda slug, study: recorded.get((slug, study), []))
    assert figures.replicates("minilm", "cosine") == {"ptq1-61": [{"xnor_cosine": 0.2}]}
    assert figures.replicates("minilm", "perplexity") == figures.replicates("gpt", "cosine") == {}


def test_a_matrix_of_one_s_own(page: Page) -> None:
    app = page(PAGES["flexround"], view="matrix")
    box, kind = "_file.matrix", "application/octet-stream"
    good = save({"a": np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)})
    wrong = {
        "whole.safetensors": save({"a": np.ones((4, 4), np.int32)}),
        "cut.safetensors": good[:-9],
        "text.safetensors": b"no",
    }
    for name, content in wrong.items():
        app.file_uploader(key=box).set_value((name, content, kind)).run()
        assert len(app.error) == 1 and "\n" not in app.error[0].value and not app.exception, name
    app.file_uploader(key=box).set_value(("good.safetensors", good, kind)).run()
    for name, value in {"method": "pb-llm", "steps": 2}.items():
        widget(app, f"matrix.{name}").set_value(value)
    app.run()
    finish(app, "_run.flexround.matrix")
    assert all(traces(shown) for shown in pictures(app, "matrix"))
    app.button(key="_sample.matrix").click().run()
    assert not app.error and any("minilm-query" in caption.value for caption in app.caption)


def test_the_sample_is_a_file_that_the_experiment_reads() -> None:
    kind = rooms.experiments(catalog.get("pb-llm"))["matrix"].inputs
    brought = kind.read(shared.query(), name=shared.SAMPLE.name)
    name, weight = brought.matrix("")
    assert name == "query" and weight.shape == (384, 384)
    inputs = brought.inputs(384)
    assert inputs is not None and inputs.shape == (shared.TOKENS, 384) and shared.SAMPLE.mime != "text/csv"


@pytest.mark.parametrize("slug", figures.PAPERS)
def test_wrong_links_get_a_sentence_and_the_picture(page: Page, slug: str) -> None:
    app = page(PAGES[slug], **{"layer.seed": "70", "view": "nowhere", "layer.hue": "red", "layer.steps": "2"})
    said = app.warning[0].value
    assert "`layer.seed` cannot be `70`" in said and "nowhere" in said and "no knob `layer.hue`" in said
    assert traces(app)


def test_the_tour_sets_the_knobs(page: Page) -> None:
    tour = catalog.get("pb-llm").tour
    app = page(PAGES["pb-llm"])
    app.button(key="_begin").click().run()
    for place, step in enumerate(tour):
        assert not app.exception
        assert any(text.value.startswith(f"**{place + 1}/{len(tour)}**") for text in app.markdown)
        assert widget(app, "view").value == step.experiment
        for name, value in step.config.items():
            assert widget(app, f"{step.experiment}.{name}").value == value
        if step.experiment == "layer":
            assert traces(app)
        if place + 1 < len(tour):
            app.button(key="_next").click().run()


@pytest.mark.parametrize(("slug", "number"), [("ptq1-61", 4), ("flexround", 2)])
def test_a_link_into_the_tour(page: Page, slug: str, number: int) -> None:
    step = catalog.get(slug).tour[number - 1]
    app = page(PAGES[slug], step=str(number))
    assert step.config and widget(app, "view").value == step.experiment and traces(app)
    assert all(widget(app, f"{step.experiment}.{name}").value == value for name, value in step.config.items())


@pytest.mark.parametrize("slug", figures.PAPERS)
def test_presenting_hides_what_is_not_the_figure(page: Page, slug: str) -> None:
    app = page(PAGES[slug], present="1")
    assert traces(app) and app.title[0].value == catalog.get(slug).short and not app.table
    app.button(key="_leave").click().run()
    assert app.title[0].value == catalog.get(slug).headline
    assert any("Where paper and code differ" in text.value for text in app.markdown)
