"""The MiniLM that is shipped quantized by PTQ1.61, for the search."""

from __future__ import annotations

from lab.quantization.ptq1_61.method import PTQ161
from lab.quantization.shipped import maker

MINILM = maker(PTQ161, steps=300, lr_scale=5e-4, lr_rot=1e-2)
