"""A blind case study, its evidence: what a feature reads and writes first, then hints, then the solution (Section 4).

As the paper's authors did, the reader says what a feature is about before seeing it fire: from the tokens that it would read
and those that it promotes, without any text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.hooked import HookedGPT
from lab.circuits.transcoders.models.languages import LanguageName, language
from lab.circuits.transcoders.units.activations import Activations
from lab.circuits.transcoders.units.dashboard import Dashboard, dashboard
from lab.circuits.transcoders.units.weight_readings import encoder_direction, logit_lens, through_head
from lab.circuits.transcoders.views.browse import held_out, survey, units_of
from lab.circuits.transcoders.views.case.rules import draw_feature, draw_quiz, score_labels
from lab.experiment import Config, Progress, experiment, knob, no_progress

LAYERS: dict[LanguageName, tuple[int, ...]] = {"spans-1l": (0,), "stdlib-gpt": (0, 1, 2, 3)}
BANDS, EXAMPLES, WINDOW, BEHIND = 4, 2, 7, 2  # of examples; tokens shown behind a token that is asked about
CHECKED = 400  # fresh contexts on which labels are scored
PROMOTED, EARLIER, HEADS = 3, 6, 8  # tokens that name an earlier feature or a head; such features and heads


class CaseConfig(Config):
    """Which case."""

    primary: ClassVar[tuple[str, ...]] = ("model", "seed")

    model: LanguageName = knob(
        "spans-1l",
        "spans-1l: knows years, all that a feature could be about is known. stdlib-gpt: reads Python",
        label="model",
    )
    seed: int = knob(
        0,
        "draws one of the features that carry the transcoder's activation, and what is shown of it",
        ge=0,
        le=999,
        label="case",
    )


@dataclass(frozen=True)
class CaseResult:
    """The evidence of a case, and its solution.

    layer, feature     the solution: which feature it is; frequency, maximum: how often and how strongly it fires
    reads              piece, value: tokens that it reads from the stream where it stands; in layers above 0 what these have
                       become behind layer 0
    earlier            layer, feature, weight, writes: earlier features that would make it fire, and what these promote
    promotes, suppresses   piece, value: what it makes likelier and less likely
    head, brought      the head that could bring most of what it reads, and piece, value: the tokens it could bring
    heads              head, norm, tokens: how much of what it reads each could bring, the most first; its first tokens
    examples           one row per token, see `Dashboard`: drawn from its strongest activations down to its weakest
    labels             label, f1, precision, recall, the best first; empty where texts have no labels
    quiz               one row per token: window, piece, centre, fires; windows that are not among the examples
    """

    model: str
    layer: int
    feature: int
    frequency: float
    maximum: float
    tokens: int
    reads: pd.DataFrame
    earlier: pd.DataFrame
    promotes: pd.DataFrame
    suppresses: pd.DataFrame
    head: str
    brought: pd.DataFrame
    heads: pd.DataFrame
    examples: pd.DataFrame
    labels: pd.DataFrame
    quiz: pd.DataFrame


@experiment("case", "A blind case study", cost="live")
def run_case(config: CaseConfig, *, progress: Progress = no_progress) -> CaseResult:
    """Draw the case and lay out its evidence. Raises AssetError naming the repair when model or coders are missing."""
    progress(0.0, "loading model and coders")
    texts = held_out(config.model)
    layers = LAYERS[config.model]
    layer, feature = draw_feature({one: survey(config.model, "transcoder", one) for one in layers}, config.seed)
    coders = {one: _coder(config.model, one) for one in layers if one <= layer}
    progress(0.7, "collecting the evidence")
    board = dashboard(
        texts.model,
        coders[layer],
        layer,
        texts,
        feature,
        bands=BANDS,
        examples=EXAMPLES,
        window=WINDOW,
        seed=config.seed,
        pieces=language(config.model).pieces,
        earlier={one: coder for one, coder in coders.items() if one < layer},
    )
    reads = board.deembedding[board.deembedding["way"] == ("extended" if layer > 0 else "direct")]
    brought = board.deembedding[board.deembedding["way"].str.startswith("head")]
    progress(0.85, "preparing the check")
    labels, quiz = _checks(texts, coders[layer], board, config)
    return CaseResult(
        model=config.model,
        layer=layer,
        feature=feature,
        frequency=board.frequency,
        maximum=board.maximum,
        tokens=board.tokens,
        reads=reads.reset_index(drop=True),
        earlier=_earlier(texts.model, coders, board, config),
        promotes=board.top_logits,
        suppresses=board.bottom_logits,
        head=str(brought["way"].iloc[0]),
        brought=brought.reset_index(drop=True),
        heads=_heads(texts, coders[layer], board, config),
        examples=board.examples,
        labels=labels,
        quiz=quiz,
    )


def _coder(model: LanguageName, layer: int) -> Transcoder:
    found = units_of(model, "transcoder", layer)
    assert isinstance(found, Transcoder)
    return found


def _heads(texts: Activations, coder: Transcoder, board: Dashboard, config: CaseConfig) -> pd.DataFrame:
    """The heads with the largest OV norms, and the tokens that each would bring."""
    assert board.ov_norms is not None  # a transcoder reads the stream
    model, direction, pieces, rows = (
        texts.model,
        encoder_direction(coder, board.unit),
        language(config.model).pieces,
        [],
    )
    for place in np.argsort(-board.ov_norms, axis=None, kind="stable")[:HEADS].tolist():
        head = divmod(place, board.ov_norms.shape[1])
        embedded = texts.extended if head[0] > 0 else model.W_E
        tokens = (embedded @ through_head(model, head, direction)).topk(PROMOTED).indices.tolist()
        rows.append(
            {"head": f"{head[0]}.{head[1]}", "norm": float(board.ov_norms[head]), "tokens": " ".join(pieces(tokens))}
        )
    return pd.DataFrame(rows)


def _earlier(model: HookedGPT, coders: dict[int, Transcoder], board: Dashboard, config: CaseConfig) -> pd.DataFrame:
    """Earlier features that write what it reads, each with the tokens that it promotes itself."""
    pieces = language(config.model).pieces
    table = board.pullbacks.sort_values("weight", ascending=False).head(EARLIER).reset_index(drop=True)
    writes = [
        " ".join(pieces(logit_lens(model, coders[layer], unit).topk(PROMOTED).indices.tolist()))
        for layer, unit in zip(table["layer"], table["feature"], strict=True)
    ]
    return table.assign(writes=writes)


def _checks(
    texts: Activations, coder: Transcoder, board: Dashboard, config: CaseConfig
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of all labels where texts have labels, else the quiz; the other one is empty."""
    labels = pd.DataFrame(columns=["label", "f1", "precision", "recall"])
    quiz = pd.DataFrame(columns=["window", "piece", "centre", "fires"])
    if config.model == "spans-1l":
        return _labels(texts.model, coder, board.unit, config.seed), quiz
    return labels, _quiz(texts, coder, board, config)


@torch.no_grad()
def _labels(model: HookedGPT, coder: Transcoder, feature: int, seed: int) -> pd.DataFrame:
    """All labels of the spans corpus, scored on texts that no evidence was drawn from."""
    from lab.datasets import spans

    tokens = spans.sample(CHECKED, seed=2**41 + seed)
    place = "blocks.0.ln2.hook_normalized"
    x = model.run_with_cache(tokens, names=frozenset({place}), stop_at=1)[1][place]
    fires = coder.encode(x)[:, 1:, feature] > 0  # not on the boundary, as in the survey
    names, labels = spans.labels(tokens)
    return score_labels(fires.flatten(), names, labels[:, 1:].flatten(0, 1))


def _quiz(texts: Activations, coder: Transcoder, board: Dashboard, config: CaseConfig) -> pd.DataFrame:
    """Windows around tokens of the held-out texts that are not among the examples."""
    fires = (texts.of(board.layer, coder, board.unit) > 0) & texts.counted
    counted, shown = texts.counted, board.examples[board.examples["centre"]]
    counted[torch.tensor(shown["text"].to_numpy()), torch.tensor(shown["position"].to_numpy())] = False
    pieces, rows = language(config.model).pieces, []
    for window, (text, position) in enumerate(draw_quiz(fires, counted, texts.tokens, config.seed)):
        first = max(position - WINDOW, 0)
        some = pieces(texts.tokens[text, first : position + 1 + BEHIND].tolist())
        rows += [
            {"window": window, "piece": piece, "centre": place == position, "fires": bool(fires[text, position])}
            for place, piece in enumerate(some, start=first)
        ]
    return pd.DataFrame(rows, columns=["window", "piece", "centre", "fires"])
