"""The shipped digits encoder, made by `lab train sp2ot-digits-encoder` in about a minute on one core.

It sees all 1797 images of scikit-learn's digits and none of their labels. Pages and the notebook use it where they need
features at once; what the ledger measures is pre-trained anew for every seed, on that seed's images alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from torch import nn

from lab.clustering.sp2ot.encoder import Contrast, recipe
from lab.datasets.digits import digits

STEPS = 1500


def neighbour_agreement(embedded: Float[np.ndarray, "n d"], labels: np.ndarray, neighbours: int = 20) -> float:
    """Share of the nearest neighbours, by angle, that belong to the same class: how good a similarity S can be."""
    near = NearestNeighbors(n_neighbors=neighbours, metric="cosine").fit(embedded).kneighbors(return_distance=False)
    return float((labels[near] == labels[:, None]).mean())


def map_of(embedded: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """A picture of the embeddings: t-SNE by angle (L. van der Maaten, G. Hinton, 2008), float32."""
    return TSNE(metric="cosine", init="pca", random_state=0).fit_transform(embedded).astype(np.float32)


def embedded_digits(model: nn.Module) -> Float[np.ndarray, "n d"]:
    """All digits as the trained encoder sees them."""
    assert isinstance(model, Contrast)
    device = next(model.parameters()).device
    return model.encoder(torch.from_numpy(digits()[0]).to(device)).cpu().numpy()


def evaluate(model: nn.Module) -> dict[str, float]:
    """How well its neighbourhoods agree with the classes it never saw."""
    return {"neighbour_agreement": round(neighbour_agreement(embedded_digits(model), digits()[1]), 4)}


def write(model: nn.Module, folder: Path) -> dict[str, Any]:
    """The encoder without its projector, and the map of all digits."""
    assert isinstance(model, Contrast)
    with torch.no_grad():
        digit_map = np.ascontiguousarray(map_of(embedded_digits(model)))
    save_file({**model.encoder.cpu().state_dict(), "map": torch.from_numpy(digit_map)}, folder / "model.safetensors")
    return {}


RECIPE = dataclasses.replace(
    recipe(digits()[0], steps=STEPS),
    evaluate=evaluate,
    write=write,
    data="scikit-learn's digits, all 1797 images, no labels",
    licence="images: UCI, Optical Recognition of Handwritten Digits, CC BY 4.0",
)
