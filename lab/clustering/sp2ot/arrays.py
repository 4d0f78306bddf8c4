"""Which array library, dtype and device a cost matrix lives in, so that the solvers are written once.

NumPy and PyTorch agree on almost everything the solvers need (``@``, ``exp(out=)``, broadcasting, reductions).
The few calls on which they differ stand here. PyTorch is looked up, never imported: a tensor can only arrive from a
program that has imported it already."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np


def is_tensor(x: Any) -> bool:
    """True for a ``torch.Tensor``; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


@dataclass(frozen=True)
class Arrays:
    """The library ``xp``, the real ``dtype`` and the ``device`` (None for NumPy) in which a problem is solved."""

    xp: Any
    dtype: Any
    device: Any

    @classmethod
    def of(cls, x: Any) -> Arrays:
        """Take over float32 and float64; half precision is computed in float32, integers in float64."""
        if is_tensor(x):
            torch = sys.modules["torch"]
            half = x.dtype in (torch.float16, torch.bfloat16)
            dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32 if half else torch.float64
            return cls(torch, dtype, x.device)
        dtype = x.dtype if x.dtype in (np.float32, np.float64) else np.float32 if x.dtype == np.float16 else np.float64
        return cls(np, np.dtype(dtype), None)

    @property
    def eps(self) -> float:
        """Machine epsilon of the working dtype."""
        return float(self.xp.finfo(self.dtype).eps)

    def empty(self, shape: tuple[int, ...]) -> Any:
        """Uninitialised array of the working dtype."""
        return (
            np.empty(shape, self.dtype)
            if self.device is None
            else self.xp.empty(shape, dtype=self.dtype, device=self.device)
        )

    def put(self, x: Any, double: bool = False) -> Any:
        """``x`` (NumPy array, list or tensor) in this library and device, in the working dtype or in float64."""
        dtype = self.xp.float64 if double else self.dtype
        if self.device is None:
            return np.asarray(x, dtype=dtype)
        return self.xp.as_tensor(x, dtype=dtype, device=self.device)

    def host(self, x: Any) -> np.ndarray:
        """``x`` as a float64 NumPy array."""
        return np.asarray(x, dtype=np.float64) if self.device is None else x.detach().double().cpu().numpy()
