"""Transcoders (Dunefsky, Chlenski and Nanda, NeurIPS 2024): sparse stand-ins for MLPs, and circuits read off them."""

from lab.circuits.transcoders.attribution.ablation import Ablation, ablate
from lab.circuits.transcoders.attribution.adjacency import Adjacency, adjacency
from lab.circuits.transcoders.attribution.contributions import Attribution, attribute, attribute_run
from lab.circuits.transcoders.attribution.frozen_run import Feature, FrozenRun, LogitDiff, Neuron, Node
from lab.circuits.transcoders.attribution.graph import CircuitGraph, Edge
from lab.circuits.transcoders.attribution.greedy_paths import Path, greedy_paths
from lab.circuits.transcoders.coders.buffer import ActivationBuffer
from lab.circuits.transcoders.coders.coder import CoderConfig, SparseAutoencoder, Transcoder
from lab.circuits.transcoders.coders.evaluation import Evaluation, evaluate, replace_mlps
from lab.circuits.transcoders.coders.formats import load_coder, load_coders, save_coder, save_coders
from lab.circuits.transcoders.coders.loss import TranscoderLoss, official_lambda
from lab.circuits.transcoders.coders.training import CoderTraining, Site, Task, train_coder, train_coders
from lab.circuits.transcoders.errors import CircuitError, HookedError
from lab.circuits.transcoders.hooked import HookedConfig, HookedGPT

__all__ = [
    "Ablation",
    "ActivationBuffer",
    "Adjacency",
    "Attribution",
    "CircuitError",
    "CircuitGraph",
    "CoderConfig",
    "CoderTraining",
    "Edge",
    "Evaluation",
    "Feature",
    "FrozenRun",
    "HookedConfig",
    "HookedError",
    "HookedGPT",
    "LogitDiff",
    "Neuron",
    "Node",
    "Path",
    "Site",
    "SparseAutoencoder",
    "Task",
    "Transcoder",
    "TranscoderLoss",
    "ablate",
    "adjacency",
    "attribute",
    "attribute_run",
    "evaluate",
    "greedy_paths",
    "load_coder",
    "load_coders",
    "official_lambda",
    "replace_mlps",
    "save_coder",
    "save_coders",
    "train_coder",
    "train_coders",
]
