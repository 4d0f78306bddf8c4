"""Transcoders (Dunefsky, Chlenski and Nanda, NeurIPS 2024): sparse stand-ins for MLPs, and circuits read off them."""

from lab.circuits.transcoders.ablation import Ablation, ablate
from lab.circuits.transcoders.adjacency import Adjacency, adjacency
from lab.circuits.transcoders.attribution import Attribution, attribute, attribute_run
from lab.circuits.transcoders.buffer import ActivationBuffer
from lab.circuits.transcoders.coder import CoderConfig, CoderError, SparseAutoencoder, Transcoder
from lab.circuits.transcoders.evaluation import Evaluation, evaluate, replace_mlps
from lab.circuits.transcoders.frozen import Feature, FrozenRun, LogitDiff, Neuron, Node
from lab.circuits.transcoders.graph import CircuitGraph, Edge
from lab.circuits.transcoders.greedy import Path, PathFilter, greedy_paths
from lab.circuits.transcoders.hooked import HookedConfig, HookedError, HookedGPT
from lab.circuits.transcoders.loss import TranscoderLoss, official_lambda
from lab.circuits.transcoders.training import CoderTraining, Site, Task, train_coder, train_coders

__all__ = [
    "Ablation",
    "ActivationBuffer",
    "Adjacency",
    "Attribution",
    "CircuitGraph",
    "CoderConfig",
    "CoderError",
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
    "PathFilter",
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
    "official_lambda",
    "replace_mlps",
    "train_coder",
    "train_coders",
]
