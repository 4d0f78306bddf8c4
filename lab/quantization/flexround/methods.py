"""Every method that a model or a matrix is quantized by here: the baselines, and the three papers' own."""

from __future__ import annotations

from lab.quantization.flexround.method import FlexRound
from lab.quantization.pb_llm.method import PBLLM
from lab.quantization.ptq1_61.method import PTQ161
from lab.quantization.registry import BASELINES, Methods

METHODS: Methods = BASELINES | {"pb-llm": PBLLM, "ptq1-61": PTQ161, "flexround": FlexRound}
