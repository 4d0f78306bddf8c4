"""What a sentence encoder can do, measured offline: find the rest of a docstring by its first sentence.

For N held-out pairs (query q_i, document d_i) and unit vectors e, recall at k is the share of queries whose own document
is among the k nearest of the N::

    (1)  recall@k = |{i : |{j : <e(q_i), e(d_j)> > <e(q_i), e(d_i)>}| < k}| / N

A changed encoder (quantized, pruned) is compared to the original by the mean cosine of their embeddings, and by how well
the order of all pairwise similarities survives (Spearman). At N = 400 recall has a standard error of about 0.025: rank
methods by the other two. `python -m lab.models.retrieval` measures the encoder as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.datasets.corpus import Docstring, docstrings
from lab.models.minilm import embed, load

if TYPE_CHECKING:
    from transformers import BertTokenizer

PAIRS, WINDOWS, WINDOW = 400, 64, 48
SEEDS = range(5)


def held_out(n: int = PAIRS, seed: int = 0) -> tuple[tuple[Docstring, ...], tuple[Docstring, ...]]:
    """``n`` docstrings to measure on, drawn by ``seed``, and all others, in the order they were drawn.

    Raises ValueError when there are not more than ``n``.

    >>> measured, others = held_out(400)
    >>> len(measured), len(set(measured) & set(others))
    (400, 0)
    """
    pairs = docstrings()
    if not 0 < n < len(pairs):
        raise ValueError(f"n must be between 1 and {len(pairs) - 1}, got {n}")
    order = np.random.default_rng(seed).permutation(len(pairs))
    drawn = tuple(pairs[index] for index in order)
    return drawn[:n], drawn[n:]


def calibration(
    tokenizer: BertTokenizer,
    *,
    windows: int = WINDOWS,
    length: int = WINDOW,
    n: int = PAIRS,
    seed: int = 0,
    draw: int = 0,
) -> Int[Tensor, "w t"]:
    """`token_windows` of the docstrings that `held_out(n, seed)` leaves, for methods that calibrate."""
    return token_windows(held_out(n, seed)[1], tokenizer, windows=windows, length=length, draw=draw)


def token_windows(
    texts: Sequence[Docstring],
    tokenizer: BertTokenizer,
    *,
    windows: int = WINDOWS,
    length: int = WINDOW,
    draw: int = 0,
) -> Int[Tensor, "w t"]:
    """Windows (w, t) of tokens from whole docstrings, one after the other; ``draw`` says in which order they are taken.

    All windows have the same length, between the two special tokens that every text gets, so no mask is needed. Raises ValueError
    when the text does not suffice.
    """
    stream: list[int] = []
    inner = length - 2
    for place in np.random.default_rng(draw).permutation(len(texts)):
        pair = texts[place]
        stream += tokenizer(f"{pair.query} {pair.rest}", add_special_tokens=False, verbose=False)["input_ids"]
        if len(stream) >= windows * inner:
            break
    if inner < 1 or windows < 1 or len(stream) < windows * inner:
        raise ValueError(f"the docstrings hold {len(stream):,} tokens, not {windows:,} windows of {length} tokens")
    body = torch.tensor(stream[: windows * inner]).reshape(windows, inner)
    ends = torch.tensor([[tokenizer.cls_token_id, tokenizer.sep_token_id]]).expand(windows, 2)
    return torch.cat([ends[:, :1], body, ends[:, 1:]], dim=1)


def recall(queries: Float[Tensor, "n d"], documents: Float[Tensor, "n d"], k: int = 1) -> float:
    """The share of queries (n, d) whose own document (n, d) is among the ``k`` most similar; ties count for it.

    >>> recall(torch.eye(3), torch.eye(3)[[0, 2, 1]])
    0.3333333333333333
    """
    similarity = queries @ documents.T  # (n, n)
    better = (similarity > similarity.diagonal()[:, None]).sum(dim=1)
    # (1)
    return (better < k).double().mean().item()


@dataclass(frozen=True)
class Fidelity:
    """How close embeddings are to those of the original: mean cosine, and Spearman's rank correlation of similarities."""

    cosine: float
    spearman: float


def fidelity(embedded: Float[Tensor, "n d"], original: Float[Tensor, "n d"]) -> Fidelity:
    """Compare unit vectors (n, d) with the original's of the same texts; ValueError for fewer than 3 texts.

    >>> fidelity(torch.eye(3), torch.eye(3)).cosine
    1.0
    """
    if len(embedded) < 3:
        raise ValueError(f"embedded has {len(embedded)} rows: an order of similarities needs at least 3")
    from scipy.stats import spearmanr

    upper = torch.triu_indices(len(embedded), len(embedded), offset=1)
    ours, theirs = ((rows @ rows.T)[upper[0], upper[1]].numpy() for rows in (embedded, original))
    return Fidelity((embedded * original).sum(dim=1).mean().item(), float(spearmanr(ours, theirs).statistic))


def embedded_pairs(
    model: nn.Module, tokenizer: BertTokenizer, *, n: int = PAIRS, seed: int = 0
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Queries and documents of `held_out(n, seed)`, embedded."""
    return embedded(held_out(n, seed)[0], model, tokenizer)


def embedded(
    pairs: Sequence[Docstring], model: nn.Module, tokenizer: BertTokenizer
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Queries and documents of these docstrings, embedded."""
    queries = embed([pair.query for pair in pairs], model, tokenizer)
    return queries, embed([pair.rest for pair in pairs], model, tokenizer)


def main() -> None:
    """Print the recall of the encoder as it is, for several draws of the pairs."""
    model, tokenizer = load()
    found = []
    for seed in SEEDS:
        queries, documents = embedded_pairs(model, tokenizer, seed=seed)
        found.append([recall(queries, documents, k) for k in (1, 5)])
        print(f"seed {seed}: recall@1 {found[-1][0]:.4f}, recall@5 {found[-1][1]:.4f}")
    mean = np.mean(found, axis=0)
    print(f"mean of {len(found)} draws of {PAIRS} pairs: recall@1 {mean[0]:.4f}, recall@5 {mean[1]:.4f}")


if __name__ == "__main__":
    main()
