"""The quantization papers' pages, beside what all pages must do: layers that do not exist, files, searches, hub ids."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from app_pages import Page, finish, pictures, traces, widget
from quantization import shared
from safetensors.numpy import save

from lab import catalog, ledger, results, rooms
from lab.provenance import Record
from lab.quantization import figures
from lab.quantization.model_experiment import ModelResult

PAGES = {slug: f"quantization/{slug.replace('-', '_')}.py" for slug in figures.PAPERS}


def test_knobs_that_do_not_go_together_keep_the_picture(page: Page) -> None:
    app = page(PAGES["pb-llm"], view="layer")
    widget(app, "layer.subject").set_value("stdlib-gpt")
    widget(app, "layer.block").set_value(5)
    app.run()
    assert "stdlib-gpt has the blocks 0 to 3" in app.error[0].value and app.get("plotly_chart") and not app.exception


def test_an_empty_search_gets_a_sentence(page: Page) -> None:
    app = page(PAGES["pb-llm"], view="search")
    widget(app, "search.query").set_value("   ")
    app.run()
    assert "write a few words" in app.error[0].value and app.get("plotly_chart")


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
