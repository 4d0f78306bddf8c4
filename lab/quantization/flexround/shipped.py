"""The MiniLM that is shipped quantized by FlexRound, for the search."""

from __future__ import annotations

from lab.quantization.flexround.method import FlexRound
from lab.quantization.shipped import maker

MINILM = maker(FlexRound, bits=3, per="row", steps=300, lr=3e-3)
