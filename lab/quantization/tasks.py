"""What methods are judged on: two real models that need no network, what calibrates them, and what they can do.

MiniLM      a pretrained sentence encoder: how close embeddings stay to full precision, and what it still finds
stdlib-gpt  the lab's own small GPT-2: perplexity on modules that it never saw

Four pools of text, apart from each other: for each split, "ledger" and "tuning", one that calibration is drawn from and
one that is measured on. So nothing is measured on what calibrated it, and nothing that chose a setting judges it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lab.cache import cached
from lab.datasets.corpus import Docstring
from lab.models import hub, minilm, retrieval, stdlib_gpt

Batches = list[dict[str, Tensor]]
Split = Literal["ledger", "tuning"]
Use = Literal["measure", "calibrate"]
POOLS: dict[tuple[Split, Use], slice] = {
    ("ledger", "measure"): slice(0, 1200),
    ("ledger", "calibrate"): slice(1200, 2200),
    ("tuning", "measure"): slice(2200, 2700),
    ("tuning", "calibrate"): slice(2700, None),
}  # of the docstrings, in an order drawn once
S = TypeVar("S", bound="EvaluationTask")


@dataclass(frozen=True)
class EvaluationTask(ABC):
    """A model with its calibration and its measure; ``draw`` says which of its split's texts it is measured on."""

    key: ClassVar[str]
    title: ClassVar[str]
    batch: ClassVar[int]
    metrics: ClassVar[dict[str, str]]  # name -> "higher" or "lower" is better
    split: Split = "ledger"
    draw: int = 0

    def drawn(self: S, seed: int) -> S:
        """The task measured on other texts of the same pool."""
        return replace(self, draw=seed)

    @abstractmethod
    def model(self) -> nn.Module:
        """The model in full precision; shared, so it must be left as it is."""

    @abstractmethod
    def windows(self, seed: int) -> Int[Tensor, "w t"]:
        """Calibration tokens (w, t)."""

    @abstractmethod
    def measure(self, model: nn.Module) -> dict[str, float]:
        """What a changed model can do, by name."""

    def calibration(self, seed: int = 0, *, batch: int | None = None) -> Batches:
        """The windows as batches of the model's inputs (``batch`` windows each), all of one length: no mask is needed."""
        return [
            {"input_ids": windows, "attention_mask": torch.ones_like(windows)}
            for windows in self.windows(seed).split(batch or self.batch)
        ]


@dataclass(frozen=True)
class MiniLM(EvaluationTask):
    """Pairs of docstrings: mean cosine and Spearman against full precision, and recall among the ``pairs``."""

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

    def windows(self, seed: int) -> Int[Tensor, "w t"]:
        texts = docstring_pool(self.split, "calibrate")
        return retrieval.token_windows(texts, _minilm()[1], windows=self.count, length=self.length, draw=seed)

    def texts(self) -> tuple[Docstring, ...]:
        """The docstrings that are measured on."""
        pool = docstring_pool(self.split, "measure")
        chosen = np.random.default_rng(self.draw).permutation(len(pool))[: self.pairs]
        return tuple(pool[index] for index in chosen)

    def measure(self, model: nn.Module) -> dict[str, float]:
        queries, documents = retrieval.embedded(self.texts(), model, _minilm()[1])
        queries, documents = queries.cpu(), documents.cpu()
        close = retrieval.fidelity(torch.cat([queries, documents]), torch.cat(_originals(self)))
        return {
            "cosine": close.cosine,
            "spearman": close.spearman,
            "recall_1": retrieval.recall(queries, documents),
            "recall_5": retrieval.recall(queries, documents, k=5),
        }


@dataclass(frozen=True)
class StdlibGPT(EvaluationTask):
    """Held-out modules of the standard library: perplexity per token, over ``stretches`` of the whole context."""

    key: ClassVar[str] = "stdlib-gpt"
    title: ClassVar[str] = "stdlib-gpt"
    batch: ClassVar[int] = 4
    metrics: ClassVar[dict[str, str]] = {"perplexity": "lower"}
    count: int = 64
    length: int = 128
    stretches: int = 128

    def model(self) -> nn.Module:
        return _gpt()

    def windows(self, seed: int) -> Int[Tensor, "w t"]:
        return self.seen(self.count, seed)

    def seen(self, count: int, seed: int) -> Int[Tensor, "w t"]:
        """``count`` stretches of text that it was trained on, of the split's modules."""
        windows = stdlib_gpt.Windows(token_stream(self.split, "calibrate"), self.length)
        return windows[torch.randint(len(windows), (count,), generator=torch.Generator().manual_seed(seed))]

    def measure(self, model: nn.Module) -> dict[str, float]:
        windows = stdlib_gpt.Windows(token_stream(self.split, "measure"))
        starts = torch.randint(len(windows), (self.stretches,), generator=torch.Generator().manual_seed(self.draw))
        device = next(model.parameters()).device
        with torch.no_grad():
            losses = [
                float(stdlib_gpt.next_token_loss(model, windows[some].to(device))) * len(some)
                for some in starts.split(32)
            ]
        return {"perplexity": math.exp(sum(losses) / len(starts))}


@dataclass(frozen=True)
class OwnModel(EvaluationTask):
    """A model of your own, from a local folder or a hub id, with its own tokenizer.

    A causal language model is measured by its perplexity on docstrings of the standard library, any other one by the mean
    cosine of its mean-pooled states to full precision on them. Raises ModelError for a folder or id without a model.
    """

    key: ClassVar[str] = "own-model"
    batch: ClassVar[int] = 4
    source: str = ""
    count: int = 32
    length: int = 64
    stretches: int = 64

    @property
    def title(self) -> str:  # type: ignore[override]
        return self.source.rstrip("/").rsplit("/", 1)[-1]

    @property
    def metrics(self) -> dict[str, str]:  # type: ignore[override]
        return {"perplexity": "lower"} if self._causal else {"cosine": "higher"}

    @property
    def _causal(self) -> bool:
        return bool(_own_model(self.source)[0].can_generate())

    def model(self) -> nn.Module:
        model: nn.Module = _own_model(self.source)[0]
        return model

    def windows(self, seed: int) -> Int[Tensor, "w t"]:
        return self._drawn(self.count, "calibrate", seed)

    def _drawn(self, count: int, use: Use, draw: int) -> Int[Tensor, "w t"]:
        stream = _own_stream(self.source, self.split, use)
        starts = torch.randint(len(stream) - self.length, (count,), generator=torch.Generator().manual_seed(draw))
        return stdlib_gpt.Windows(stream, self.length)[starts]

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        windows = self._drawn(self.stretches, "measure", self.draw)
        if self._causal:
            losses = [float(stdlib_gpt.next_token_loss(model, some)) * len(some) for some in windows.split(16)]
            return {"perplexity": math.exp(min(sum(losses) / len(windows), 700.0))}
        ours, theirs = (
            torch.cat([each(input_ids=some).last_hidden_state.mean(1) for some in windows.split(16)])
            for each in (model, self.model())
        )
        return {"cosine": float(functional.cosine_similarity(ours, theirs).mean())}


TASKS: dict[str, EvaluationTask] = {task.key: task for task in (MiniLM(), StdlibGPT())}


def docstring_pool(split: Split, use: Use) -> tuple[Docstring, ...]:
    """The docstrings of a pool, see `POOLS`.

    >>> len(docstring_pool("ledger", "measure"))
    1200
    """
    measured, others = retrieval.held_out()
    return (*measured, *others)[POOLS[split, use]]


@cached(maxsize=4)
def token_stream(split: Split, use: Use) -> Int[Tensor, " n"]:
    """stdlib-gpt's tokens of every second module: of those that it never saw to measure on, of the others to calibrate."""
    texts = stdlib_gpt.split()[1 if use == "measure" else 0]
    chosen = sorted(texts)[0 if split == "ledger" else 1 :: 2]
    return stdlib_gpt.tokens(texts[name] for name in chosen)


@cached(maxsize=1)
def _minilm() -> tuple[Any, Any]:
    return minilm.load()


@cached(maxsize=8)
def _originals(task: MiniLM) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    return retrieval.embedded(task.texts(), *_minilm())


@cached(maxsize=1)
def _gpt() -> nn.Module:
    return stdlib_gpt.load()[0]


@cached(maxsize=1)
def _own_model(source: str) -> tuple[Any, Any]:
    """Model and tokenizer from a folder or hub id; one is kept at a time."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    kind = hub.load(AutoConfig, source)
    causal = any("CausalLM" in name or "LMHead" in name for name in kind.architectures or ())
    model = hub.load(AutoModelForCausalLM if causal else AutoModel, source, dtype=torch.float32)
    return model, hub.load(AutoTokenizer, source)


@cached(maxsize=4)
def _own_stream(source: str, split: Split, use: Use) -> Int[Tensor, " n"]:
    tokenizer = _own_model(source)[1]
    texts = [f"{pair.query} {pair.rest}" for pair in docstring_pool(split, use)]
    tokens = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for text in tokens for token in text])
