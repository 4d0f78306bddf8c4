"""What was tuned: rates of learned rounding on whole models, on the network for digits, and under the lens."""

from __future__ import annotations

from typing import Any

STEPS = 60  # optimizer steps for each block
FIXED: dict[str, Any] = {"bits": 4, "per": "tensor", "steps": STEPS}
CHOSEN: dict[str, dict[str, Any]] = {  # on MiniLM, by `tuning`
    "flexround": {"lr": 0.006},
    "adaquant": {"lr": 0.01},
    "signround": {"lr": 0.011666666666666665},
    "adaround": {"lr": 0.03, "regularizer": 1e-05},
}

DIGITS_STEPS = 200  # optimizer steps of each fit
DIGITS: dict[str, dict[str, Any]] = {  # by `digits_tuning`
    "flexround": {"lr": 3e-2},
    "flexround_no_s4": {"lr": 3e-2},
    "adaquant": {"lr": 3e-2},
    "adaround": {"lr": 0.6, "regularizer": 0.1},
    "signround": {"lr": 2.0 / DIGITS_STEPS},
}

# On single layers, at 4 bits and `STEPS` steps: of nine trials for each method, on four layers other than the one that is
# shown first and with calibration of another seed, the least mean logarithm of the loss on held-out text.
ROUNDING: dict[str, dict[str, float]] = {
    "flexround": {"lr": 1.5e-2},
    "flexround, sgd": {"lr": 1e-2 / 3},
    "adaround": {"lr": 0.4, "regularizer": 1e-3},
    "adaquant": {"lr": 2e-2},
    "signround": {"lr": 0.35 / STEPS},
}
