r"""A blind case study, its rules: draw a feature, score what a reader says it is about, ask where it fires.

On `spans-1l` everything that a feature could be about is a known label, and an answer is scored by how well that label alone
predicts where the feature fires,

$$ F_1=\frac{2PR}{P+R} $$

with P the share of the label's tokens on which it fires and R the share of its firings that have the label, against the best
of all labels, on texts that no evidence came from. Text in general has no labels; there the reader says of unseen tokens
whether the feature fires on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.units.label_scores import f1_scores
from lab.circuits.transcoders.views.browse import Survey

QUIZ = 8  # tokens of which the reader says whether the feature fires; on half of them it does
GOOD, FAIR = 0.9, 0.6  # shares of the best label's F1, and of the quiz's answers


@dataclass(frozen=True)
class Judgement:
    """What an answer is worth: share of what the best answer reaches, and a sentence that says so."""

    share: float
    verdict: str
    says: str


def draw_feature(surveys: dict[int, Survey], seed: int) -> tuple[int, int]:
    """Layer and number of a feature that carries activation, each as likely as any other. Raises CircuitError without any.

    >>> live = Survey(10_000, np.array([0.0, 0.5]), np.array([0.0, 2.0]), np.array([0.0, 3.0]))
    >>> draw_feature({2: live}, seed=5)
    (2, 1)
    """
    found = [(layer, int(unit)) for layer, one in surveys.items() for unit in np.flatnonzero(one.carrying)]
    if not found:
        raise CircuitError("surveys: no feature of these layers fires, so there is no case to draw")
    return found[int(np.random.default_rng(seed).integers(len(found)))]


def score_labels(fires: Bool[Tensor, " n"], names: tuple[str, ...], labels: Bool[Tensor, "n c"]) -> pd.DataFrame:
    """How well each label alone predicts where a feature fires: label, f1, precision, recall, the best first.

    >>> fires = torch.tensor([True, True, False, False])
    >>> score_labels(fires, ("a", "b"), torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]]).bool())["f1"].tolist()
    [1.0, 0.5]
    """
    both, said = (labels & fires[:, None]).sum(0), labels.sum(0)
    table = pd.DataFrame(
        {
            "label": names,
            "f1": f1_scores(fires[:, None], labels)[0].numpy(),
            "precision": (both / said.clamp_min(1)).numpy(),
            "recall": (both / fires.sum().clamp_min(1)).numpy(),
        }
    )
    return table.sort_values("f1", ascending=False, kind="stable", ignore_index=True)


def judge_label(labels: pd.DataFrame, answer: str) -> Judgement:
    """An answer against the best label. Raises CircuitError for one that is no label.

    >>> table = score_labels(torch.tensor([True, False]), ("a", "b"), torch.tensor([[1, 1], [0, 1]]).bool())
    >>> judge_label(table, "b").verdict
    'near'
    """
    rows = labels[labels["label"] == answer]
    if rows.empty:
        raise CircuitError(f"answer: {answer!r} is none of the {len(labels)} labels")
    own, best = rows.iloc[0], labels.iloc[0]
    if best["f1"] == 0:
        return Judgement(0.0, "wrong", "It fired on none of the fresh tokens, so no answer can be scored.")
    share = float(own["f1"] / best["f1"])
    verdict = "right" if share == 1 else "nearly" if share >= GOOD else "near" if share >= FAIR else "wrong"
    says = (
        f"‘{answer}’ explains its firing with F1 {own['f1']:.2f}: it fires on {own['precision']:.0%} of the tokens with that "
        f"label, and {own['recall']:.0%} of its firings have it. "
    )
    says += (
        f"None of the {len(labels)} labels does better."
        if share == 1
        else f"The best of {len(labels)} labels, ‘{best['label']}’, reaches {best['f1']:.2f}."
    )
    if best["f1"] < FAIR:
        says += " No single label explains this feature well."
    return Judgement(share, verdict, says)


def judge_quiz(quiz: pd.DataFrame, answers: dict[int, bool]) -> Judgement:
    """Answers by window, whether it fires there. Raises CircuitError when a window has none.

    >>> import pandas as pd
    >>> quiz = pd.DataFrame({"window": [0, 1], "centre": [True, True], "fires": [True, False]})
    >>> judge_quiz(quiz, {0: True, 1: True}).says
    'You said yes to 1 of the 1 on which it fires, and to 1 of the 1 on which it is silent. Guessing gets half of each.'
    """
    truth = quiz[quiz["centre"]].set_index("window")["fires"]
    if missing := [window for window in truth.index if window not in answers]:
        raise CircuitError(f"answers: there is none for window {missing[0]}")
    yes = {fires: [answers[window] for window in truth.index[truth == fires]] for fires in (True, False)}
    hits, alarms = sum(yes[True]), sum(yes[False])
    parts = [hits / len(yes[True])] * bool(yes[True]) + [1 - alarms / len(yes[False])] * bool(yes[False])
    share = float(np.mean(parts)) if parts else 0.0
    verdict = "right" if share == 1 else "nearly" if share >= 0.85 else "near" if share > FAIR else "wrong"
    says = (
        f"You said yes to {hits} of the {len(yes[True])} on which it fires, and to {alarms} of the {len(yes[False])} on which it "
        "is silent. Guessing gets half of each."
    )
    return Judgement(share, verdict, says)


def draw_quiz(
    fires: Bool[Tensor, "n t"], counted: Bool[Tensor, "n t"], tokens: Int[Tensor, "n t"], seed: int
) -> list[tuple[int, int]]:
    """Text and position of tokens to be judged, shuffled: half of them fire. Of the silent ones half are tokens that the
    feature does fire on elsewhere, as far as there are such: a feature that is one token would be too easy to tell.

    fires    where the feature fires, anywhere in the texts; counted: what may be asked

    >>> fires = torch.tensor([[True, False, True, False]])
    >>> sorted(draw_quiz(fires, torch.ones(1, 4).bool(), torch.tensor([[5, 5, 5, 6]]), seed=0))
    [(0, 0), (0, 1), (0, 2), (0, 3)]
    """
    generator = torch.Generator().manual_seed(seed)
    lookalike = torch.isin(tokens, tokens[fires].unique())
    half = QUIZ // 2
    chosen = []
    for where, count in ((fires, half), (~fires & lookalike, half // 2), (~fires & ~lookalike, half - half // 2)):
        places = (where & counted).nonzero()
        chosen += places[torch.randperm(len(places), generator=generator)[:count]].tolist()
    order = torch.randperm(len(chosen), generator=generator).tolist()
    return [(chosen[place][0], chosen[place][1]) for place in order]
