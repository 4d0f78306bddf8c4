"""What the search in `tuning` chose for each model, at `STEPS` optimizer steps for each block."""

from __future__ import annotations

from typing import Any

STEPS = 100
CHOSEN: dict[str, dict[str, Any]] = {
    "minilm": {"lr_scale": 0.0005, "lr_rot": 0.01},
    "stdlib-gpt": {"lr_scale": 0.0005, "lr_rot": 0.01},
}
