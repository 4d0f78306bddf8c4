"""What the search in `tuning` chose, on text that neither the ledger nor a page measures on."""

from __future__ import annotations

from typing import Any

CHOSEN: dict[str, dict[str, Any]] = {
    "pb-llm": {"metric": "hessian_exact", "stats": "official", "damping": 0.01},
    "gptq": {"damping": 0.1},
}
TRAINING: dict[str, float] = {  # the rate of each arm of `training_experiment`
    "frozen_0": 0.003,
    "frozen_2": 0.002,
    "trained_2": 0.002,
    "frozen_10": 0.001,
    "trained_10": 0.001,
}
