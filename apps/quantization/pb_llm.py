"""PB-LLM, live: one layer with a few precise weights, a whole model at its true cost, search, training on, your matrix."""

from quantization import shared

shared.page("pb-llm")
