"""What the three papers' `search` experiments share: one query, and what full precision and a quantized MiniLM find for it.

The quantized model is shipped packed (`lab.quantization.shipped`), with the documents embedded by both.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import nn

from lab.cache import cached
from lab.experiment import Config, Progress, knob
from lab.models.minilm import embed, load
from lab.quantization import files, shipped
from lab.quantization.shipped import Shipped

if TYPE_CHECKING:
    import pandas as pd

TOP = 5


class SearchConfig(Config):
    """What to look for."""

    primary: ClassVar[tuple[str, ...]] = ("query",)

    query: str = knob("read a file line by line", "a question in your own words", max_length=200, label="your query")


@dataclass(frozen=True)
class SearchResult:
    """method: what was quantized with; bits: effective bits per weight; full, quantized: place, text, similarity of the five best
    documents, best first; common: how many are in both; similarities (2, n): of all documents, full precision first."""

    query: str
    method: str
    bits: float
    full: pd.DataFrame
    quantized: pd.DataFrame
    common: int
    similarities: np.ndarray


def run_search(config: SearchConfig, asset: str, *, progress: Progress) -> SearchResult:
    """Embed the query twice and rank the documents. Raises ValueError for an empty query."""
    import pandas as pd

    if not config.query.strip():
        raise ValueError("query: write a few words to look for")
    progress(0.1, "reading the shipped model")
    model, tokenizer = _original()
    ours, stored = _quantized(asset)
    tables: list[pd.DataFrame] = []
    rows = []
    for each, documents in ((model, stored.documents_full), (ours, stored.documents)):
        similarity = documents @ embed([config.query], each, tokenizer)[0].numpy()
        best = np.argsort(-similarity, kind="stable")[:TOP]
        texts = [stored.pairs[index] for index in best]
        tables.append(
            pd.DataFrame(
                {
                    "place": [text.place for text in texts],
                    "text": [f"{text.query} {text.rest}" for text in texts],
                    "similarity": similarity[best],
                }
            )
        )
        rows.append(similarity)
    common = len(set(tables[0]["place"]) & set(tables[1]["place"]))
    progress(1.0, "done")
    return SearchResult(
        config.query, stored.method, stored.bits, tables[0], tables[1], common, np.stack(rows).astype(np.float32)
    )


@cached(maxsize=1)
def _original() -> tuple[Any, Any]:
    return load()


@cached(maxsize=3)
def _quantized(asset: str) -> tuple[nn.Module, Shipped]:
    stored = shipped.read(asset)
    model = copy.deepcopy(_original()[0])
    files.apply(stored.weights, model)
    return model, stored
