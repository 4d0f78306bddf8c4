"""Small random language models and coders for the tests of circuits: nothing is zero, centred or tied by accident."""

from __future__ import annotations

import torch

from lab.circuits.transcoders.coders.coder import CoderConfig, Transcoder
from lab.circuits.transcoders.hooked import HookedConfig, HookedGPT

WIDTH, VOCABULARY, CONTEXT = 12, 11, 10


def model(layers: int = 2, seed: int = 0, activation: str = "gelu_new") -> HookedGPT:
    """A GPT in float64 with random weights, biases included, whose residual stream is not centred."""
    generator = torch.Generator().manual_seed(seed)
    made = HookedGPT(HookedConfig(layers, WIDTH, 2, 5, 20, CONTEXT, VOCABULARY, activation)).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator) + 0.1)
    return made.requires_grad_(False)


def coders(layers: int = 2, seed: int = 1, skip: tuple[int, ...] = ()) -> dict[int, Transcoder]:
    """A random transcoder a layer, in float64; those in `skip` with a skip connection."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer in range(layers):
        cfg = CoderConfig(
            WIDTH,
            30,
            WIDTH,
            hook_name=f"blocks.{layer}.ln2.hook_normalized",
            hook_name_out=f"blocks.{layer}.hook_mlp_out",
        )
        found[layer] = Transcoder(cfg, skip=layer in skip).double()
        with torch.no_grad():
            for weight in found[layer].parameters():
                weight.copy_(0.4 * torch.randn(weight.shape, generator=generator))
        found[layer].requires_grad_(False)
    return found


def prompt(length: int = 7, seed: int = 2) -> torch.Tensor:
    """Random tokens [length]."""
    return torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed))
