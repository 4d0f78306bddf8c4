"""Whom the bench works on: two real models that need no network, what calibrates them, and what they can do.

MiniLM     a pretrained sentence encoder: how close embeddings stay to full precision, and what it still finds
stdlib-gpt the lab's own small GPT-2: perplexity on modules that it never saw

Calibration is drawn by a seed from text that nothing is measured on.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lab.models import minilm, retrieval, stdlib_gpt

Batches = list[dict[str, Tensor]]


class Subject(ABC):
    """A model with its calibration and its measure."""

    key: ClassVar[str]
    title: ClassVar[str]
    batch: ClassVar[int]
    metrics: ClassVar[dict[str, str]]  # name -> "higher" or "lower" is better

    @abstractmethod
    def model(self) -> nn.Module:
        """The model in full precision; shared, so it must be left as it is."""

    @abstractmethod
    def windows(self, seed: int) -> Tensor:
        """Calibration tokens (w, t)."""

    @abstractmethod
    def measure(self, model: nn.Module) -> dict[str, float]:
        """What a changed model can do, by name."""

    def calibration(self, seed: int = 0) -> Batches:
        """The windows as batches of the model's inputs, all of one length, so that no mask is needed."""
        return [
            {"input_ids": part, "attention_mask": torch.ones_like(part)}
            for part in self.windows(seed).split(self.batch)
        ]


@dataclass(frozen=True)
class MiniLM(Subject):
    """Pairs of docstrings: mean cosine and Spearman against full precision, and recall among the ``pairs``.

    Which pairs are measured on is fixed; a seed draws the calibration from the others.
    """

    key: ClassVar[str] = "minilm"
    title: ClassVar[str] = "MiniLM"
    batch: ClassVar[int] = 4
    metrics: ClassVar[dict[str, str]] = {
        "cosine": "higher",
        "spearman": "higher",
        "recall_1": "higher",
        "recall_5": "higher",
    }
    pairs: int = retrieval.PAIRS
    count: int = retrieval.WINDOWS
    length: int = retrieval.WINDOW

    def model(self) -> nn.Module:
        return _minilm()[0]

    def windows(self, seed: int) -> Tensor:
        return retrieval.calibration(
            _minilm()[1], windows=self.count, length=self.length, n=self.pairs, seed=0, draw=seed
        )

    def measure(self, model: nn.Module) -> dict[str, float]:
        queries, documents = retrieval.embedded_pairs(model, _minilm()[1], n=self.pairs)
        found = retrieval.fidelity(torch.cat([queries, documents]), torch.cat(self._originals()))
        return {
            "cosine": found.cosine, "spearman": found.spearman,
            "recall_1": retrieval.recall(queries, documents), "recall_5": retrieval.recall(queries, documents, k=5),
        }  # fmt: skip

    def _originals(self) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        return _minilm_originals(self.pairs)


@dataclass(frozen=True)
class StdlibGPT(Subject):
    """Held-out modules of the standard library: perplexity a token, over ``stretches`` of the whole context."""

    key: ClassVar[str] = "stdlib-gpt"
    title: ClassVar[str] = "stdlib-gpt"
    batch: ClassVar[int] = 4
    metrics: ClassVar[dict[str, str]] = {"perplexity": "lower"}
    count: int = 64
    length: int = 128
    stretches: int = 128

    def model(self) -> nn.Module:
        return _gpt()

    def windows(self, seed: int) -> Tensor:
        stream = _stream(seen=True)
        starts = torch.randint(len(stream) - self.length, (self.count,), generator=torch.Generator().manual_seed(seed))
        return stdlib_gpt.Windows(stream, self.length)[starts]

    def measure(self, model: nn.Module) -> dict[str, float]:
        windows = stdlib_gpt.Windows(_stream(seen=False))
        starts = torch.linspace(0, len(windows) - 1, self.stretches).long()
        with torch.no_grad():
            losses = [float(stdlib_gpt.next_token_loss(model, windows[some])) * len(some) for some in starts.split(32)]
        return {"perplexity": math.exp(sum(losses) / len(starts))}


SUBJECTS: dict[str, Subject] = {subject.key: subject for subject in (MiniLM(), StdlibGPT())}


@functools.cache
def _minilm() -> tuple[Any, Any]:
    return minilm.load()


@functools.lru_cache(maxsize=4)
def _minilm_originals(pairs: int) -> tuple[Tensor, Tensor]:
    return retrieval.embedded_pairs(*_minilm(), n=pairs)


@functools.cache
def _gpt() -> nn.Module:
    return stdlib_gpt.load()[0]


@functools.lru_cache(maxsize=2)
def _stream(seen: bool) -> Tensor:
    return stdlib_gpt.tokens(stdlib_gpt.split()[0 if seen else 1].values())
