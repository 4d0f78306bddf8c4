"""PTQ1.61: one bit for most input channels, four for the salient ones, scales learned block by block.

J. Zhao et al., "PTQ1.61: Push the Real Limit of Extremely Low-Bit Post-Training Quantization Methods for Large Language
Models", ACL 2025, arXiv 2502.13179. `quantize_model(model, PTQ161(), batches)` gives a model that runs as the original does,
and says what it takes to store; `restorative_lora` shapes a model before it is quantized.
"""

from lab.quantization.ptq1_61.linear import FactoredLinear, factored
from lab.quantization.ptq1_61.loss import block_loss, nlc_loss
from lab.quantization.ptq1_61.method import PTQ161
from lab.quantization.ptq1_61.restorative import restorative_lora
from lab.quantization.ptq1_61.salience import activation_scores, channel_mask, error_bound
from lab.quantization.ptq1_61.storage import layer_storage, paper_bits
from lab.quantization.ptq1_61.weight import PTQ161Weight

__all__ = [
    "PTQ161",
    "FactoredLinear",
    "PTQ161Weight",
    "activation_scores",
    "block_loss",
    "channel_mask",
    "error_bound",
    "factored",
    "layer_storage",
    "nlc_loss",
    "paper_bits",
    "restorative_lora",
]
