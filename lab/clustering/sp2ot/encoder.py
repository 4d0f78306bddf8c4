r"""Where the deep variant's features come from: a small convolutional encoder, pre-trained without labels by SimCLR.

Two random distortions of an image should land at the same place, and away from all other images:

.. math:: \ell_i = -\log\frac{\exp(\langle z_i, z_i'\rangle/\tau)}{\sum_{j\ne i}\exp(\langle z_i, z_j\rangle/\tau)}

(T. Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", arXiv 2002.05709). It stands in
for the self-supervised DINO ViT-B/16 that the SP2OT paper starts from.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lab import paths

CHECKPOINT = "sp2ot-digits-encoder"
TEMPERATURE = 0.2
WIDTH, EMBEDDING = 256, 128


class DigitEncoder(nn.Module):
    """Images (n, 8, 8) in [0, 1] -> embeddings (n, 128): ``body`` (three convolutions, 256 wide), then ``last``.

    Clustering freezes ``body`` and trains ``last``, as the paper trains only the last block of its backbone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 2 * 2, WIDTH), nn.ReLU(),
        )  # fmt: skip
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
    rows = [torch.stack([wide * cos, high * (shear * cos - sin), draw(-0.25, 0.25)], 1),
            torch.stack([wide * sin, high * (shear * sin + cos), draw(-0.25, 0.25)], 1)]  # fmt: skip
    grid = functional.affine_grid(torch.stack(rows, 1), [n, 1, 8, 8], align_corners=False)
    moved = functional.grid_sample(images.unsqueeze(1), grid, align_corners=False).squeeze(1)
    noise = 0.08 * torch.randn(moved.shape, generator=generator)
    return (moved * draw(0.8, 1.2)[:, None, None] + noise).clamp(0, 1)


def contrastive_loss(
    first: Float[Tensor, "n d"], second: Float[Tensor, "n d"], temperature: float
) -> Float[Tensor, ""]:
    """SimCLR's loss of two views (n, d) of the same n images, averaged over both."""
    z = functional.normalize(torch.cat([first, second]), dim=1)
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    n = len(first)
    partner = torch.arange(2 * n).roll(n)
    return functional.cross_entropy(similarity, partner)


def pretrain(
    images: Float[np.ndarray, "n 8 8"],
    *,
    steps: int = 300,
    batch: int = 256,
    lr: float = 2e-3,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> DigitEncoder:
    """Train a `DigitEncoder` on unlabelled images (n, 8, 8) in [0, 1]; Adam with cosine decay, deterministic for a seed.

    ``report(step, loss)`` is called after every step. Raises ValueError for fewer than 2 images.

    >>> pretrain(np.zeros((4, 8, 8), np.float32), steps=1).last.out_features
    128
    """
    if len(images) < 2:
        raise ValueError(f"images has {len(images)} rows: a contrast needs at least 2")
    data, generator = torch.from_numpy(np.ascontiguousarray(images)), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = DigitEncoder()
        projector = nn.Sequential(nn.ReLU(), nn.Linear(EMBEDDING, 64))
    weights = [*encoder.parameters(), *projector.parameters()]
    optimizer = torch.optim.Adam(weights, lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        chosen = data[torch.randperm(len(data), generator=generator)[:batch]]
        views = distort(chosen, generator), distort(chosen, generator)
        embedded = projector(encoder(torch.cat(views)))
        loss = contrastive_loss(embedded[: len(chosen)], embedded[len(chosen) :], TEMPERATURE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        report(step, float(loss.detach()))
    return encoder.eval().requires_grad_(False)


@functools.cache
def load_encoder() -> tuple[DigitEncoder, Float[np.ndarray, "n 2"]]:
    """The shipped encoder, and its map (1797, 2) of all digits in scikit-learn's order (t-SNE of the embeddings).

    Raises ValueError naming the file and the command that remakes it when the checkpoint is missing or damaged.
    """
    from safetensors.torch import load_file

    folder = paths.shared("data") / "checkpoints" / CHECKPOINT
    model = folder / "model.safetensors"
    repair = "remake it with `python -m lab.clustering.sp2ot.pretrain`"
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        content = model.read_bytes()
    except (OSError, ValueError) as error:
        raise ValueError(f"the checkpoint {folder} cannot be read ({error}); {repair}") from error
    if hashlib.sha256(content).hexdigest() != card.get("sha256"):
        raise ValueError(f"the checkpoint {model} has another checksum than its card; {repair}")
    state = load_file(model)
    digit_map = state.pop("map").numpy()
    encoder = DigitEncoder()
    encoder.load_state_dict(state)
    return encoder.eval().requires_grad_(False), digit_map
