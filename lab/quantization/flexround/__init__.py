"""FlexRound: learnable rounding by element-wise division, for post-training quantization.

J. H. Lee, J. Kim, S. J. Kwon, D. Lee, ICML 2023, arXiv 2306.00317. `FlexRoundQuantizer` is one weight, and a torch
parametrization; `FlexRound` quantizes a model, by `lab.quantization.pipeline.quantize_model`.
"""

from lab.quantization.flexround.method import FlexRound
from lab.quantization.flexround.published import PublishedFlexRound
from lab.quantization.flexround.quantizer import FlexRoundQuantizer
from lab.quantization.rounding import moved

__all__ = ["FlexRound", "FlexRoundQuantizer", "PublishedFlexRound", "moved"]
