"""Quantized MiniLMs as the lab ships them: packed weights, and the documents of the search embedded before and after.

`lab train minilm-pb-llm` (or `-ptq1-61`, `-flexround`) makes one again: the calibration of seed 0, settings as in the
room's own `shipped.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from numpy import ndarray

from lab import assets
from lab.assets import Maker
from lab.datasets.corpus import Docstring
from lab.experiment import Progress
from lab.models import retrieval
from lab.models.minilm import load
from lab.quantization import files
from lab.quantization.pipeline import Method, quantize_model
from lab.quantization.tasks import MiniLM, docstring_pool
from lab.quantization.weights import QuantizedWeight

PACKED, DOCUMENTS = "packed.safetensors", "documents.safetensors"


@dataclass(frozen=True, eq=False)
class Shipped:
    """A quantized MiniLM: its method in words, effective bits per weight, stored weights, and documents.

    documents, documents_full: their unit vectors (n, 384), by it and by full precision.
    """

    method: str
    bits: float
    weights: dict[str, QuantizedWeight]
    pairs: tuple[Docstring, ...]
    documents: Float32[ndarray, "n d"]
    documents_full: Float32[ndarray, "n d"]


def read(name: str) -> Shipped:
    """The verified asset ``name``; AssetError when it is missing or damaged."""
    from safetensors.torch import load_file

    folder, card = assets.folder(name), assets.card(name)
    stored = load_file(folder / DOCUMENTS)
    documents = {key: torch.nn.functional.normalize(value.float(), dim=1).numpy() for key, value in stored.items()}
    return Shipped(
        str(card.config["method"]),
        card.metrics["bits"],
        files.load_packed(folder / PACKED),
        docstring_pool("ledger", "measure"),
        documents["quantized"],
        documents["full"],
    )


def maker(kind: type[Method], **settings: Any) -> Maker:
    """How the MiniLM that is quantized by a method is made, named after the method's key."""
    chosen = kind(**settings)

    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        from safetensors.torch import save_file

        subject = MiniLM()
        model, tokenizer = load()
        done = quantize_model(model, chosen, subject.calibration(0), progress=progress)
        files.save_packed(done.weights, folder / PACKED)
        pairs = docstring_pool("ledger", "measure")
        vectors = {
            key: retrieval.embedded(pairs, each, tokenizer)[1].half()
            for key, each in (("full", model), ("quantized", done.model))
        }
        save_file(vectors, folder / DOCUMENTS)
        return {"metrics": {"bits": round(done.storage().per_weight, 4)} | subject.measure(done.model)}

    return Maker(
        f"minilm-{kind.key}",
        make,
        config={"method": chosen.label} | settings,
        data="64 windows of 48 tokens of the frozen docstrings of the standard library (stdlib-docstrings)",
        licence="the model Apache-2.0 (all-MiniLM-L6-v2), the documents PSF-2.0",
    )
