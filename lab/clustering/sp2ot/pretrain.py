"""Makes the shipped digits encoder: `python -m lab.clustering.sp2ot.pretrain`, about a minute on one core.

It sees all 1797 images of scikit-learn's digits and none of their labels. Pages and the notebook use it where they need
features at once; what the ledger measures is pre-trained anew for every seed, on that seed's images alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from lab import paths
from lab.clustering.sp2ot.encoder import CHECKPOINT, DigitEncoder, pretrain
from lab.datasets.digits import digits
from lab.engine import one_thread
from lab.provenance import machine, versions

STEPS, BATCH, LR, SEED = 1500, 256, 2e-3, 0
COMMAND = "python -m lab.clustering.sp2ot.pretrain"


def neighbour_agreement(embedded: Float[np.ndarray, "n d"], labels: np.ndarray, neighbours: int = 20) -> float:
    """Share of the nearest neighbours, by angle, that belong to the same class: how good a similarity S can be."""
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=neighbours, metric="cosine").fit(embedded).kneighbors(return_distance=False)
    return float((labels[near] == labels[:, None]).mean())


def map_of(embedded: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """A picture of the embeddings: t-SNE by angle (L. van der Maaten, G. Hinton, 2008), float32."""
    from sklearn.manifold import TSNE

    return TSNE(metric="cosine", init="pca", random_state=SEED).fit_transform(embedded).astype(np.float32)


def make(folder: Path) -> dict[str, Any]:
    """Pre-train, draw the map, and write `model.safetensors` and `card.json` into ``folder``; returns the card."""
    from safetensors.torch import save

    images, labels = digits()
    started, losses = time.perf_counter(), []
    with one_thread():
        encoder = pretrain(
            images, steps=STEPS, batch=BATCH, lr=LR, seed=SEED, report=lambda step, loss: losses.append(loss)
        )
        embedded = encoder(torch.from_numpy(images)).numpy()
        digit_map = map_of(embedded)
    content = save({**encoder.state_dict(), "map": torch.from_numpy(np.ascontiguousarray(digit_map))})
    card = {
        "name": CHECKPOINT,
        "data": "scikit-learn digits, all 1797 images, no labels",
        "config": {"steps": STEPS, "batch": BATCH, "lr": LR, "encoder": DigitEncoder.__name__},
        "seed": SEED,
        "steps": STEPS,
        "minutes": round((time.perf_counter() - started) / 60, 2),
        "machine": machine(),
        "versions": versions(),
        "metrics": {
            "contrastive_loss": round(float(np.mean(losses[-50:])), 4),
            "neighbour_agreement": round(neighbour_agreement(embedded, labels), 4),
        },
        "sha256": hashlib.sha256(content).hexdigest(),
        "command": COMMAND,
    }
    paths.write_atomic(folder / "model.safetensors", content)
    paths.write_atomic(folder / "card.json", json.dumps(card, indent=1) + "\n")
    return card


def main() -> None:
    """The command line: writes into the shipped folder unless `--out` names another."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=paths.shared("data") / "checkpoints" / CHECKPOINT)
    print(json.dumps(make(parser.parse_args().out), indent=1))


if __name__ == "__main__":
    main()
