"""What the tests let other processes measure; importable there by name."""

from __future__ import annotations

import time
from typing import Any


def slow_square(seed: int, *, progress: Any) -> dict[str, float]:
    time.sleep(0.25)
    return {"square": float(seed * seed)}


def fails(seed: int, *, progress: Any) -> dict[str, float]:
    raise ZeroDivisionError(f"seed {seed} divides by zero")


def reads(seed: int, *, progress: Any) -> dict[str, float]:
    return {"bytes": float(len(open("/nowhere/data.csv").read()))}
