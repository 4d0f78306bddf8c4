"""Where the deep variant's features come from: a small convolutional encoder, pre-trained without labels by SimCLR.

The embeddings of two random distortions of an image should be alike, and unlike those of all other images::

    (1)  loss_i = -log( exp(<z_i, z_i'> / tau) / sum_{j != i} exp(<z_i, z_j> / tau) ),   |z_i| = 1

with z_i' the other view of image i, and j over both views of all images (T. Chen et al., "A Simple Framework for
Contrastive Learning of Visual Representations", arXiv 2002.05709, equation 1). It stands in for the self-supervised DINO
ViT-B/16 that the SP2OT paper starts from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from lab import assets
from lab.cache import cached
from lab.experiment import Progress, no_progress
from lab.train import Recipe, train

CHECKPOINT = "sp2ot-digits-encoder"
TEMPERATURE = 0.2
WIDTH, EMBEDDING, PROJECTION = 256, 128, 64


class DigitEncoder(nn.Module):
    """Images (n, 8, 8) in [0, 1] -> embeddings (n, 128): ``body`` (three convolutions, 256 wide), then ``last``.

    Clustering freezes ``body`` and trains ``last``, as the paper trains only the last block of its backbone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 2 * 2, WIDTH),
            nn.ReLU(),
        )
        self.last = nn.Linear(WIDTH, EMBEDDING)

    def features(self, images: Float[Tensor, "n 8 8"]) -> Float[Tensor, "n w"]:
        """What the frozen body gives, (n, 256)."""
        return self.body(2 * images.unsqueeze(1) - 1)

    def forward(self, images: Float[Tensor, "n 8 8"]) -> Float[Tensor, "n d"]:
        """Embeddings (n, 128)."""
        return self.last(self.features(images))


def distort(images: Float[Tensor, "n 8 8"], generator: torch.Generator) -> Float[Tensor, "n 8 8"]:
    """A random view of each image: turn (±17 degrees), scale and shear (±15 %), shift (±1 pixel), ink ±20 %, noise 0.08."""
    n = len(images)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    angle, shear = draw(-0.3, 0.3), draw(-0.15, 0.15)
    wide, high = draw(0.85, 1.15), draw(0.85, 1.15)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([wide * cos, high * (shear * cos - sin), draw(-0.25, 0.25)], 1),
        torch.stack([wide * sin, high * (shear * sin + cos), draw(-0.25, 0.25)], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), [n, 1, 8, 8], align_corners=False)
    moved = functional.grid_sample(images.unsqueeze(1), grid, align_corners=False).squeeze(1)
    noise = 0.08 * torch.randn(moved.shape, generator=generator)
    return (moved * draw(0.8, 1.2)[:, None, None] + noise).clamp(0, 1)


def contrastive_loss(
    first: Float[Tensor, "n d"], second: Float[Tensor, "n d"], temperature: float
) -> Float[Tensor, ""]:
    """SimCLR's loss of two views (n, d) of the same n images, averaged over both."""
    z = functional.normalize(torch.cat([first, second]), dim=1)  # (2n, d)
    similarity = z @ z.T / temperature  # (2n, 2n)
    similarity.fill_diagonal_(-torch.inf)  # j != i
    n = len(first)
    partner = torch.arange(2 * n).roll(n)  # where z_i' stands
    # (1), averaged over both views
    return functional.cross_entropy(similarity, partner)


class Contrast(nn.Module):
    """A `DigitEncoder` with SimCLR's projector behind it: images (n, 8, 8) -> what is contrasted, (n, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = DigitEncoder()
        self.projector = nn.Sequential(nn.ReLU(), nn.Linear(EMBEDDING, PROJECTION))

    def forward(self, images: Float[Tensor, "n 8 8"]) -> Float[Tensor, "n p"]:
        return self.projector(self.encoder(images))


def two_views_loss(model: nn.Module, batch: Sequence[Float[Tensor, "n 8 8"]]) -> Float[Tensor, ""]:
    """SimCLR's loss of two random views of the batch's images, by torch's global generator (the training loop's own)."""
    (images,) = batch
    views = [distort(images, torch.default_generator) for _ in range(2)]
    first, second = model(torch.cat(views)).chunk(2)
    return contrastive_loss(first, second, TEMPERATURE)


def recipe(
    images: Float[np.ndarray, "n 8 8"], *, steps: int = 300, batch: int = 256, lr: float = 2e-3, seed: int = 0
) -> Recipe:
    """How a `Contrast` is trained on unlabelled images (n, 8, 8) in [0, 1]: Adam, the rate falling as a cosine to 0.

    Raises ValueError for fewer than 2 images.
    """
    if len(images) < 2:
        raise ValueError(f"images has {len(images)} rows: a contrast needs at least 2")
    data = torch.from_numpy(np.ascontiguousarray(images))
    return Recipe(
        name=CHECKPOINT,
        model=Contrast,
        examples=lambda: TensorDataset(data),
        loss=two_views_loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=lr),
        schedule=lambda step: (1 + math.cos(math.pi * step / steps)) / 2,
        steps=steps,
        batch=min(batch, len(images)),
        seed=seed,
        config={"optimizer": "Adam", "rate": lr, "temperature": TEMPERATURE, "encoder": DigitEncoder.__name__},
    )


def pretrain(
    images: Float[np.ndarray, "n 8 8"],
    *,
    steps: int = 300,
    batch: int = 256,
    lr: float = 2e-3,
    seed: int = 0,
    progress: Progress = no_progress,
) -> DigitEncoder:
    """Train a `DigitEncoder` on unlabelled images (n, 8, 8) in [0, 1] by `recipe`; deterministic for a seed.

    Raises ValueError for fewer than 2 images.

    >>> pretrain(np.zeros((4, 8, 8), np.float32), steps=1).last.out_features
    128
    """
    trained = train(recipe(images, steps=steps, batch=batch, lr=lr, seed=seed), progress=progress)
    assert isinstance(trained.model, Contrast)
    return trained.model.encoder.eval().requires_grad_(False)


@cached(maxsize=None)
def load_encoder() -> tuple[DigitEncoder, Float[np.ndarray, "n 2"]]:
    """The shipped encoder, and its map (1797, 2) of all digits in scikit-learn's order (t-SNE of the embeddings).

    Raises AssetError naming the file and the repair when it is missing or damaged.
    """
    state = assets.tensors(CHECKPOINT)
    digit_map = state.pop("map").numpy()
    encoder = DigitEncoder()
    encoder.load_state_dict(state)
    return encoder.eval().requires_grad_(False), digit_map
