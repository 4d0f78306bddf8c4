"""The blind case study: draws are uniform and repeat, labels are scored as by hand, a page gives away nothing too early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

from lab.circuits.transcoders.coders.coder import CoderConfig, Transcoder
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.hooked import HookedConfig, HookedGPT
from lab.circuits.transcoders.models.languages import Language
from lab.circuits.transcoders.units.activations import Activations
from lab.circuits.transcoders.views import browse
from lab.circuits.transcoders.views.browse import Survey
from lab.circuits.transcoders.views.case import experiment as case_experiment
from lab.circuits.transcoders.views.case.experiment import CaseConfig, CaseResult, run_case
from lab.circuits.transcoders.views.case.rules import draw_feature, draw_quiz, judge_label, judge_quiz, score_labels
from lab.datasets import spans


def survey(live: list[bool]) -> Survey:
    frequency = np.where(live, 0.1, 0.0)
    return Survey(1000, frequency, frequency, frequency)


def test_every_live_feature_is_drawn_alike_and_no_dead_one() -> None:
    surveys = {0: survey([True, False, True]), 1: survey([False, True])}
    drawn = [draw_feature(surveys, seed) for seed in range(600)]
    counts = {case: drawn.count(case) for case in set(drawn)}
    assert set(counts) == {(0, 0), (0, 2), (1, 1)} and min(counts.values()) > 150
    assert draw_feature(surveys, 7) == draw_feature(surveys, 7)
    with pytest.raises(CircuitError, match="surveys: no feature"):
        draw_feature({0: survey([False])}, 0)


def test_labels_are_scored_as_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    fires, labels = torch.rand(50, generator=generator) > 0.7, torch.rand(50, 4, generator=generator) > 0.5
    table = score_labels(fires, ("a", "b", "c", "d"), labels).set_index("label")
    for place, name in enumerate("abcd"):
        both = sum(bool(f) and bool(said) for f, said in zip(fires, labels[:, place], strict=True))
        precision, recall = both / int(labels[:, place].sum()), both / int(fires.sum())
        assert table.loc[name, "precision"] == pytest.approx(precision)
        assert table.loc[name, "recall"] == pytest.approx(recall)
        assert table.loc[name, "f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert table["f1"].is_monotonic_decreasing


def labelled(*f1: float) -> pd.DataFrame:
    return pd.DataFrame({"label": list("abcd")[: len(f1)], "f1": f1, "precision": 0.5, "recall": 0.25})


@pytest.mark.parametrize(
    ("answer", "verdict", "share"), [("a", "right", 1), ("b", "nearly", 0.95), ("c", "near", 0.7), ("d", "wrong", 0.1)]
)
def test_answers_are_judged_against_the_best(answer: str, verdict: str, share: float) -> None:
    judged = judge_label(labelled(0.8, 0.76, 0.56, 0.08), answer)
    assert (judged.verdict, judged.share) == (verdict, pytest.approx(share))
    assert "50%" in judged.says and "25%" in judged.says
    assert ("None of the 4 labels does better" in judged.says) == (verdict == "right")
    assert ("‘a’, reaches 0.80" in judged.says) == (verdict != "right")


def test_judgements_say_what_they_cannot_say() -> None:
    assert "No single label" in judge_label(labelled(0.3, 0.1), "b").says
    assert "No single label" not in judge_label(labelled(0.9, 0.1), "b").says
    never = judge_label(labelled(0.0, 0.0), "a")
    assert never.share == 0 and "none of the fresh tokens" in never.says
    assert judge_label(labelled(0.8, 0.8), "b").verdict == "right"  # as good as the best is right
    with pytest.raises(CircuitError, match="answer: 'z' is none of the 2 labels"):
        judge_label(labelled(0.8, 0.1), "z")


def test_a_quiz_is_half_firing_and_asks_of_nothing_that_was_shown() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 6, (20, 10), generator=generator)
    fires = (tokens == 2) & (torch.rand(20, 10, generator=generator) > 0.5)
    counted = torch.ones_like(fires)
    counted[:10] = False
    chosen = draw_quiz(fires, counted, tokens, seed=3)
    assert len(set(chosen)) == len(chosen) == 8 and all(text >= 10 for text, _ in chosen)
    assert sum(bool(fires[place]) for place in chosen) == 4
    alike = [place for place in chosen if not fires[place] and tokens[place] == 2]
    assert len(alike) == 2  # the same token, silent
    assert draw_quiz(fires, counted, tokens, seed=3) == chosen != draw_quiz(fires, counted, tokens, seed=4)


def test_a_quiz_is_judged_by_both_sides() -> None:
    quiz = pd.DataFrame(
        {"window": [0, 0, 1, 2, 3], "centre": [False, *[True] * 4], "fires": [True, True, True, False, False]}
    )
    always = judge_quiz(quiz, dict.fromkeys(range(4), True))
    assert (always.share, always.verdict) == (0.5, "wrong")
    right = judge_quiz(quiz, {0: True, 1: True, 2: False, 3: False})
    assert (right.share, right.verdict) == (1.0, "right") and "yes to 2 of the 2" in right.says
    assert judge_quiz(quiz, {0: True, 1: True, 2: True, 3: False}).verdict == "near"
    with pytest.raises(CircuitError, match="answers: there is none for window 3"):
        judge_quiz(quiz, {0: True, 1: True, 2: False})


# --- the evidence ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Random models and transcoders in place of both languages."""
    torch.manual_seed(0)
    models = {
        "spans-1l": HookedGPT(HookedConfig(1, 16, 2, 4, 24, spans.CONTEXT, len(spans.VOCABULARY))),
        "stdlib-gpt": HookedGPT(HookedConfig(2, 16, 2, 4, 24, 20, 30)),
    }
    texts = {"spans-1l": spans.sample(30, seed=0), "stdlib-gpt": torch.randint(0, 30, (60, 20))}
    coders, held = {}, {}
    for name, model in models.items():
        model.requires_grad_(False).eval()
        model.W_E.normal_()
        texts[name][:, 0] = 0
        places = [f"blocks.{layer}.ln2.hook_normalized" for layer in range(model.cfg.n_layers)]
        held[name] = Activations.collect(model, texts[name], places)
        for layer in range(model.cfg.n_layers):
            coders[name, layer] = Transcoder(CoderConfig(16, 40, 16)).requires_grad_(False)
            coders[name, layer].b_enc.sub_(1.5)
    words = {"spans-1l": spans.VOCABULARY, "stdlib-gpt": [f"<{token}>" for token in range(30)]}

    def language(name: Any) -> Language:
        def pieces(some: Any) -> list[str]:
            return [words[name][token] for token in some]

        return Language(name, models[name], {}, lambda text, bos: torch.zeros(1), pieces, 0, "", lambda: texts[name])

    with pytest.MonkeyPatch.context() as patch:
        for module in (browse, case_experiment):
            patch.setattr(module, "held_out", lambda name: held[name])
            patch.setattr(module, "language", language)
            patch.setattr(module, "units_of", lambda name, kind, layer: coders[name, layer])
        patch.setattr(case_experiment, "LAYERS", {"spans-1l": (0,), "stdlib-gpt": (0, 1)})
        patch.setattr(case_experiment, "CHECKED", 30)
        browse.survey.cache_clear()
        yield
        browse.survey.cache_clear()


@pytest.fixture(scope="module")
def case(small: None) -> CaseResult:
    return run_case(CaseConfig(seed=3))


def test_a_case_of_years_has_labels_and_no_quiz(case: CaseResult) -> None:
    assert case.layer == 0 and case.frequency > 0 and case.quiz.empty and case.earlier.empty
    assert len(case.labels) == len(spans.labels(spans.sample(1, seed=0))[0])
    assert case.labels["f1"].is_monotonic_decreasing and case.labels["f1"].between(0, 1).all()
    assert case.reads["way"].unique().tolist() == ["direct"] and case.head.startswith("head 0.")
    assert case.heads["norm"].is_monotonic_decreasing and len(case.heads) == 2
    first = case.brought["piece"].head(case_experiment.PROMOTED)
    assert case.heads["tokens"].iloc[0].split(" ") == list(first)  # the first head of the list is the one that is shown


def test_a_case_of_python_has_a_quiz_and_no_labels(small: None) -> None:
    results = [run_case(CaseConfig(model="stdlib-gpt", seed=seed)) for seed in range(8)]
    assert {result.layer for result in results} == {0, 1}
    for result in results:
        assert result.labels.empty and (len(result.earlier) > 0) == (result.layer > 0)
        assert result.reads["way"].unique().tolist() == ["extended" if result.layer else "direct"]
        centres = result.quiz[result.quiz["centre"]]
        assert centres["window"].is_unique and centres["fires"].sum() <= len(centres) / 2 + 2


def test_a_case_repeats(case: CaseResult) -> None:
    again = run_case(CaseConfig(seed=3))
    assert (again.feature, again.head) == (case.feature, case.head)
    pd.testing.assert_frame_equal(again.labels, case.labels)
    pd.testing.assert_frame_equal(again.examples, case.examples)
    assert len({run_case(CaseConfig(seed=seed)).feature for seed in range(4)}) > 1


# --- the view --------------------------------------------------------------------------------------------------------


def script() -> None:
    import streamlit as st
    from circuits import case
    from ui.paper import Room

    from lab import catalog
    from lab.circuits.transcoders.views.case.experiment import run_case
    from lab.views import View

    card = catalog.get("transcoders")
    case.draw.draw(Room(card, {"case": run_case}, {}, View("case", "Case"), {}, st.container()))


def shown(app: AppTest) -> str:
    """Everything that is written on the page."""
    assert not app.exception, app.exception[0].message
    return " ".join(str(getattr(element, "value", "")) + str(getattr(element, "body", "")) for element in app.main)


def button(app: AppTest, key: str) -> Any:
    return app.button(key=f"_case.{key}")


def test_hints_come_one_by_one_and_the_answer_is_judged(case: CaseResult) -> None:
    app = AppTest.from_function(script, default_timeout=30)
    app.query_params["case.seed"] = "3"
    app.run()
    best = case.labels["label"].iloc[0]
    for place, name in enumerate(("What it makes likelier", "All heads", "Where it fires")):
        before = shown(app)
        assert name not in before and str(case.feature) not in before.split() and "F1" not in before
        assert button(app, "hint").label == f"Hint {place + 1} of 3"
        button(app, "hint").click().run()
        assert name in shown(app)
    assert button(app, "hint").disabled and button(app, "answer").disabled
    app.selectbox[0].set_value(best).run()
    button(app, "answer").click().run()
    assert "right" in shown(app) and "3 of 3 hints" in shown(app) and f"It was feature {case.feature}" in shown(app)
    assert dict(app.query_params) == {"case.seed": "3"}  # nothing of hints and answer stands in the address
    button(app, "next").click().run()
    assert "what is it about?" in shown(app) and app.query_params["case.seed"] == "4"
    assert button(app, "hint").label == "Hint 1 of 3"


def test_a_quiz_is_answered_with_switches(small: None) -> None:
    app = AppTest.from_function(script, default_timeout=30)
    app.query_params["case.model"] = "stdlib-gpt"
    app.run()
    app.text_input[0].set_value("about *x* <b>").run()
    result = run_case(CaseConfig(model="stdlib-gpt"))
    truth = result.quiz[result.quiz["centre"]].set_index("window")["fires"]
    for switch, (_, fires) in zip(app.toggle, truth.items(), strict=True):
        switch.set_value(bool(fires))
    app.run()
    button(app, "answer").click().run()
    assert "right" in shown(app) and "about \\*x\\* \\<b\\>" in shown(app)
    old = app.session_state["case.seed"]
    button(app, "new").click().run()
    assert app.session_state["case.seed"] != old and not app.exception
