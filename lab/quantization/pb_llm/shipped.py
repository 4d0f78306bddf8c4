"""The MiniLM that is shipped quantized by PB-LLM, for the search."""

from __future__ import annotations

from lab.quantization.pb_llm.method import PBLLM
from lab.quantization.shipped import maker

MINILM = maker(PBLLM, low_frac=0.9)
