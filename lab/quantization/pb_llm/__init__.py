"""PB-LLM: a few salient weights stay at 8 bits, all others become one bit.

Y. Shang, Z. Yuan, Q. Wu, Z. Dong, arXiv 2310.00034, ICLR 2024; official code hahnyuan/PB-LLM (MIT). `PBLLM` quantizes a
model, by `lab.quantization.pipeline.quantize_model`; `partially_binarize` puts a layer of yours into training.
"""

from lab.quantization.pb_llm.binarization import binarize
from lab.quantization.pb_llm.files import load_mask
from lab.quantization.pb_llm.method import PBLLM
from lab.quantization.pb_llm.published import published_pb_gptq
from lab.quantization.pb_llm.salience import pb_mask, salience
from lab.quantization.pb_llm.training import PBWeight, partially_binarize, to_linear, two_sided_mask

__all__ = [
    "PBLLM",
    "PBWeight",
    "binarize",
    "load_mask",
    "partially_binarize",
    "pb_mask",
    "published_pb_gptq",
    "salience",
    "to_linear",
    "two_sided_mask",
]
