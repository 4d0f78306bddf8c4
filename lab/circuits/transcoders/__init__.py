"""Transcoders (Dunefsky, Chlenski and Nanda, NeurIPS 2024): sparse stand-ins for MLPs, and circuits read off them."""

from lab.circuits.transcoders.buffer import ActivationBuffer
from lab.circuits.transcoders.coder import CoderConfig, CoderError, SparseAutoencoder, Transcoder
from lab.circuits.transcoders.evaluation import Evaluation, evaluate, replace_mlps
from lab.circuits.transcoders.hooked import HookedConfig, HookedError, HookedGPT
from lab.circuits.transcoders.loss import TranscoderLoss
from lab.circuits.transcoders.training import CoderTraining, Site, Task, train_coder, train_coders

__all__ = [
    "ActivationBuffer", "CoderConfig", "CoderError", "CoderTraining", "Evaluation", "HookedConfig", "HookedError",
    "HookedGPT", "Site", "SparseAutoencoder", "Task", "Transcoder", "TranscoderLoss", "evaluate", "replace_mlps",
    "train_coder", "train_coders",
]  # fmt: skip
