"""What calibration leaves behind for a linear layer: its Hessian, and how large its inputs are.

For outputs Y = X W^T and the squared error of Y, the Hessian of every row of W is the same, (i, i)::

    (1)  H = 2 X^T X / n
    (2)  U^T U = (H + lambda mean(diag H) I)^-1,   U upper triangular

with X of shape (tokens, i) and n the number of calibration samples. Layers with the same input (q, k and v) share one
`Statistics`, and with it one Cholesky factor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

DAMPING = 0.01  # of the Hessian: this share of its mean diagonal is added to the diagonal


@dataclass(eq=False)
class Statistics:
    """Running statistics of a layer's inputs (tokens, i): ``hessian``, ``absmax`` and ``absmean`` of each channel.

    >>> seen = Statistics(2)
    >>> seen.add(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
    >>> seen.hessian().tolist(), seen.absmax.tolist()
    ([[20.0, -4.0], [-4.0, 8.0]], [3.0, 2.0])
    """

    channels: int
    samples: int = 0
    tokens: int = 0
    absmax: Float[Tensor, " i"] = field(init=False)
    _gram: Float[Tensor, "i i"] = field(init=False)
    _abssum: Float[Tensor, " i"] = field(init=False)
    _factors: dict[tuple[float, torch.dtype], tuple[Tensor, Tensor]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._gram = torch.zeros(self.channels, self.channels)
        self._abssum, self.absmax = torch.zeros(self.channels), torch.zeros(self.channels)

    def add(self, inputs: Float[Tensor, "t i"], samples: int = 1) -> None:
        """Take in the inputs of ``samples`` calibration samples; ValueError for another width, NaN or inf."""
        if inputs.shape[1] != self.channels:
            raise ValueError(f"inputs have {inputs.shape[1]} channels, and the layer has {self.channels}")
        inputs = inputs.to(self._gram.dtype)
        if inputs.device != self._gram.device:  # statistics live where the inputs do
            self._gram, self._abssum, self.absmax = (
                each.to(inputs.device) for each in (self._gram, self._abssum, self.absmax)
            )
        if not bool(torch.isfinite(inputs).all()):
            raise ValueError("the calibration makes NaN or inf in the inputs of a layer")
        self._gram.addmm_(inputs.T, inputs)
        size = inputs.abs()
        self._abssum += size.sum(0)
        self.absmax = torch.maximum(self.absmax, size.amax(0)) if len(inputs) else self.absmax
        self.samples += samples
        self.tokens += len(inputs)
        self.forget()

    @property
    def absmean(self) -> Float[Tensor, " i"]:
        """Mean size of each channel."""
        return self._abssum / max(self.tokens, 1)

    def hessian(self) -> Float[Tensor, "i i"]:
        """H; ValueError when no token was seen."""
        if not self.tokens:
            raise ValueError("no calibration token reached the layer: the calibration is empty")
        return self._gram * (2 / self.samples)  # (1)

    def forget(self) -> None:
        """Drop the factors that were computed; the next call of `factor` computes its own."""
        self._factors.clear()

    def factor(
        self, damping: float, dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "i i"], Bool[Tensor, " i"]]:
        """(U, dead): the upper Cholesky factor of the inverse of the damped Hessian, and which channels are always zero.

        Computed once for all layers that share these statistics, see `upper_factor`.
        """
        if (damping, dtype) not in self._factors:
            self._factors[damping, dtype] = upper_factor(self.hessian().to(dtype), damping)
        return self._factors[damping, dtype]


def upper_factor(
    hessian: Float[Tensor, "i i"], damping: float = DAMPING
) -> tuple[Float[Tensor, "i i"], Bool[Tensor, " i"]]:
    r"""Upper triangular U with :math:`U^T U = (H + \lambda\,\overline{\mathrm{diag} H}\,I)^{-1}`, and the dead channels.

    A channel whose diagonal is 0 was never used: it gets a 1 there. Raises ValueError for a matrix that is not square,
    holds NaN or inf, or is not positive definite even when damped.

    >>> upper_factor(4 * torch.eye(2), damping=0.0)[0].diagonal().tolist()
    [0.5, 0.5]
    """
    if hessian.ndim != 2 or hessian.shape[0] != hessian.shape[1]:
        raise ValueError(f"hessian must be square, got the shape {tuple(hessian.shape)}")
    if not bool(torch.isfinite(hessian).all()):
        raise ValueError("hessian holds NaN or inf")
    if damping < 0:
        raise ValueError(f"damping must be at least 0, got {damping}")
    damped = hessian.clone()
    diagonal = damped.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    diagonal += damping * diagonal.mean()
    # (2)
    lower, info = torch.linalg.cholesky_ex(damped)
    if int(info):
        raise ValueError("hessian is not positive definite; calibrate on more text, or raise damping")
    upper, info = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if int(info):
        raise ValueError("the inverse of hessian is not positive definite; raise damping")
    return upper, dead
