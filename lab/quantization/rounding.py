"""Learned rounding: which grid point each weight goes to is fitted, and what is stored is an ordinary grid.

A weight is held in steps of its first grid, u = w / s_0; the methods here replace round(u) of rounding to nearest, and some
learn the scale with it::

    (1)  w_hat = s_0 (q - z),   q = clip(round(u) + z, 0, 2^b - 1)         rounding to nearest
    (2)  q = clip(floor(u) + z + h(a)),   h(a) = clip(1.2 sigmoid(a) - 0.1, 0, 1)         AdaRound: the grid stays
    (3)  lambda sum (1 - |2 h(a) - 1|^beta)                                               its penalty
    (4)  q = clip(round((u + v) s_0 / s) + z),   w_hat = s (q - z)                        AdaQuant: v and s are learned
    (5)  q = clip(round(u + v) + z),   |v| <= 1/2                SignRound: by the signs of gradients, the grid stays

FlexRound, which divides where these add, lives in a room of its own. The gradient goes straight through the rounding.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor, nn
from torch.nn import functional

from lab.experiment import Progress, no_progress
from lab.quantization.grid import SMALLEST, Init, Per, check_weight, grid_of
from lab.quantization.pipeline import BlockInputs, Method
from lab.quantization.reconstruction import Fit, LearnedWeight, reconstruct
from lab.quantization.weights import Affine

LARGEST = 65504.0  # of a scale in float16
STRETCH = 1.2, -0.1  # AdaRound's sigmoid reaches beyond 0 and 1, and is cut there
BETA, WARM_UP = (20.0, 2.0), 0.2  # of AdaRound's regulariser: its power from and to, and the share of steps without it
inside = torch.ops.aten.hardtanh_backward  # (grad, x, low, high): grad where low < x < high, else 0, in one pass


class LearnedRounding(LearnedWeight):
    r"""A weight (o, i), or a convolution's (o, i, kh, kw), whose codes are learned: :math:`\hat W = s\,(q - z)`.

    ``bits`` 2..8; the first grid is `grid.fit_grid`'s, with ``per`` and ``init`` as there (groups are of a
    convolution's i kh kw inputs); its zero point stays. Computes in float32, or float64 if the weight does. Raises
    ValueError for other bits, per or init, a group that does not divide the inputs, and NaN or inf.

    A call gives the quantized weight, of the weight's shape. It is also a parametrization of torch's
    (``parametrize.register_parametrization(layer, "weight", quantizer)``): called with a weight of that shape, it
    quantizes that one. The gradient reaches the learned parameters alone.
    """

    steps: Tensor  # u, (o, g, s) for g groups of s inputs
    start: Tensor  # s_0, (o, g, 1) or (1, 1, 1); so is z
    zero: Tensor

    def __init__(self, weight: Tensor, bits: int = 4, *, per: Per = "row", init: Init = "minmax") -> None:
        super().__init__()
        check_settings(bits, per, init)
        matrix = weight.detach().flatten(1) if weight.ndim > 2 else weight.detach()
        check_weight(matrix)
        matrix = matrix if matrix.dtype == torch.float64 else matrix.float()
        grid = grid_of(matrix, bits, per=per, init=init)
        self.bits, self.top, self.shape = bits, grid.top, tuple(weight.shape)
        self.register_buffer("start", grid.scale[..., None])
        self.register_buffer("zero", grid.zero[..., None])
        self.register_buffer("steps", self._in_steps(matrix), persistent=False)

    def _in_steps(self, weight: Tensor) -> Float[Tensor, "o g s"]:
        groups = self.start.shape[1]
        return weight.reshape(self.shape[0], groups, -1).to(self.start.dtype) / self.start

    def forward(self, weight: Tensor | None = None) -> Tensor:
        """The quantized weight, differentiable in the parameters; ValueError for a weight of another shape."""
        if weight is None:
            return self.rounded(self.steps).view(self.shape)
        if tuple(weight.shape) != self.shape:
            raise ValueError(f"weight must have the shape {self.shape}, got {tuple(weight.shape)}")
        return self.rounded(self._in_steps(weight.detach())).view(self.shape).to(weight.dtype)

    @abstractmethod
    def rounded(self, steps: Float[Tensor, "o g s"]) -> Float[Tensor, "o g s"]:
        """The quantized weight from u, as it is while it is learned."""

    def settled(self, steps: Float[Tensor, "o g s"]) -> Float[Tensor, "o g s"]:
        """The quantized weight from u, as it is stored."""
        return self.rounded(steps)

    @property
    def scale(self) -> Float[Tensor, "r g 1"]:
        """The grid's step s, as it is stored."""
        return self.start

    @torch.no_grad()
    def integers(self) -> tuple[UInt8[Tensor, "*shape"], Float[Tensor, "r g"], UInt8[Tensor, "r g"]]:
        """(q, s, z): codes of the weight's shape from 0 to 2^b - 1, scale and zero point (o, g) or (1, 1)."""
        codes = torch.round(self.settled(self.steps) / self.scale).add_(self.zero)
        return codes.to(torch.uint8).view(self.shape), self.scale[..., 0].clone(), self.zero[..., 0].to(torch.uint8)

    def finish(self) -> Affine:
        """What is stored: codes and one float16 scale as round-to-nearest has them; a convolution's as (o, i kh kw)."""
        codes, scale, zero = self.integers()
        return Affine(codes.flatten(1), scale.half(), zero, self.bits)


@torch.no_grad()
def moved(quantizer: LearnedRounding) -> Int32[Tensor, "*shape"]:
    """How many grid points each weight lies from where rounding to nearest on the first grid had put it.

    Parameters
    ----------
    quantizer : LearnedRounding
        At any moment of its fit.

    Returns
    -------
    int32, of the weight's shape
        With sign.

    Raises
    ------
    TypeError
        For another object.

    Examples
    --------
    >>> quantizer = SignRoundQuantizer(torch.tensor([[0.4, 0.6, -1.0, 2.0]]), bits=2)
    >>> _ = quantizer.v.data.fill_(0.2)
    >>> moved(quantizer)  # the step is 1: 0.4 now goes to 1
    tensor([[1, 0, 0, 0]], dtype=torch.int32)
    """
    if not isinstance(quantizer, LearnedRounding):
        raise TypeError(f"quantizer must be a LearnedRounding, got a {type(quantizer).__name__}")
    nearest = torch.round(quantizer.steps).add_(quantizer.zero).clamp_(0, quantizer.top).view(quantizer.shape)
    return quantizer.integers()[0].int() - nearest.int()


class AdaRoundQuantizer(LearnedRounding):
    r"""Up or down is learned: :math:`q = \mathrm{clip}(\lfloor u\rfloor + z + h(a))`, the grid fixed.

    .. math:: h(a) = \mathrm{clip}(1.2\,\sigma(a) - 0.1,\ 0,\ 1), \qquad
              \lambda \sum \big(1 - |2 h(a) - 1|^\beta\big)

    a starts where h is the fraction of u, so that the weight is unrounded at first. The second term, `penalty`, drives h to
    0 or 1: beta falls from 20 to 2, after a first fifth of the steps without it. In evaluation mode, and when stored, h is
    1 for a >= 0 and else 0. ValueError for a ``regularizer`` (lambda) below 0. (M. Nagel et al., "Up or Down?", ICML 2020,
    arXiv 2004.10568, Section 3.2.)

    >>> quantizer = AdaRoundQuantizer(torch.tensor([[0.4, 0.6, -1.0, 2.0]]), bits=2)
    >>> quantizer().detach().allclose(torch.tensor([[0.4, 0.6, -1.0, 2.0]])), quantizer.finish().dequantize().tolist()
    (True, [[0.0, 1.0, -1.0, 2.0]])
    """

    def __init__(self, weight: Tensor, bits: int = 4, *, regularizer: float = 1e-5, **grid: Any) -> None:
        super().__init__(weight, bits, **grid)
        self.regularizer = _at_least_0(regularizer)
        width, low = STRETCH
        fraction = self.steps - self.steps.floor()
        self.a = nn.Parameter(-torch.log(width / (fraction - low) - 1))

    def h(self) -> Float[Tensor, "o g s"]:
        """How far up each weight goes."""
        width, low = STRETCH
        return functional.hardtanh(torch.sigmoid(self.a) * width + low, 0.0, 1.0)

    def rounded(self, steps: Float[Tensor, "o g s"]) -> Float[Tensor, "o g s"]:
        if not self.training:
            return self.settled(steps)
        # (2), soft: h between 0 and 1
        codes = functional.hardtanh(steps.floor().add_(self.zero) + self.h(), 0.0, float(self.top))
        return (codes - self.zero) * self.start

    def settled(self, steps: Float[Tensor, "o g s"]) -> Float[Tensor, "o g s"]:
        codes = torch.clamp(steps.floor() + self.zero + (self.a >= 0), 0, self.top)  # (2) with h = 0 or 1
        return (codes - self.zero) * self.start

    def penalty(self, done: float) -> Tensor | float:
        if done < WARM_UP:
            return 0.0
        start, end = BETA
        beta = start + (end - start) * (done - WARM_UP) / (1 - WARM_UP)
        # (3)
        return self.regularizer * (1 - (2 * self.h() - 1).abs() ** beta).sum()


class AdaQuantQuantizer(LearnedRounding):
    r"""What is added before rounding is learned, and the scale: :math:`q = \mathrm{clip}(\lfloor (w + V)/s\rceil + z)`.

    V is held in first steps, V = s_0 v, so that one rate serves layers of any size; s by its logarithm ``d1``, so that it
    stays positive; z stays (I. Hubara et al., "Accurate Post Training Quantization With Small Calibration Sets", ICML 2021,
    arXiv 2006.10518, Eq. 4). It starts at rounding to nearest.

    >>> AdaQuantQuantizer(torch.tensor([[0.4, 0.6, -1.0, 2.0]]), bits=2)().tolist()
    [[0.0, 1.0, -1.0, 2.0]]
    """

    def __init__(self, weight: Tensor, bits: int = 4, **grid: Any) -> None:
        super().__init__(weight, bits, **grid)
        self.v = nn.Parameter(torch.zeros_like(self.steps))
        self.d1 = nn.Parameter(self.start.log())

    @property
    def scale(self) -> Float[Tensor, "r g 1"]:
        return storable(self.d1.detach())

    def rounded(self, steps: Float[Tensor, "o g s"]) -> Float[Tensor, "o g s"]:
        exact = self.d1.exp()
        scale = exact + (storable(self.d1.detach()) - exact).detach()  # straight through float16
        # (4)
        return nearest_code((steps + self.v) * (self.start / scale), self.zero, self.top) * scale


class SignRoundQuantizer(LearnedRounding):
    r"""What is added before rounding is learned, at most half a step: :math:`q = \mathrm{clip}(\lfloor u + v\rceil + z)`.

    (W. Cheng et al., "Optimize Weight Rounding via Signed Gradient Descent", arXiv 2309.05516, Eq. 3; the grid stays, where
    the paper can also tune its range.) It starts at rounding to nearest.

    >>> SignRoundQuantizer(torch.tensor([[0.4, 0.6, -1.0, 2.0]]), bits=2)().tolist()
    [[0.0, 1.0, -1.0, 2.0]]
    """

    def __init__(self, weight: Tensor, bits: int = 4, **grid: Any) -> None:
        super().__init__(weight, bits, **grid)
        self.v = nn.Parameter(torch.zeros_like(self.steps))

    def rounded(self, steps: Float[Tensor, "o g s"]) -> Float[Tensor, "o g s"]:
        with torch.no_grad():
            self.v.clamp_(-0.5, 0.5)
        return nearest_code(steps + self.v, self.zero, self.top) * self.start  # (5)


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, steps: Tensor, zero: Tensor, top: int) -> Tensor:
        codes = torch.round(steps).add_(zero)
        ctx.save_for_backward(codes)
        ctx.top = top
        return codes.clamp(0, top).sub_(zero)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (codes,) = ctx.saved_tensors
        return inside(grads[0], codes, -0.5, ctx.top + 0.5), None, None


def nearest_code(steps: Float[Tensor, "o g s"], zero: Float[Tensor, "r g 1"], top: int) -> Float[Tensor, "o g s"]:
    """q - z for the nearest codes q in 0..``top``; the gradient goes straight through, and stops where it was clipped.

    >>> nearest_code(torch.tensor([[[0.4, 2.5, 9.0]]]), torch.zeros(1, 1, 1), 3)  # halves go to the even one
    tensor([[[0., 2., 3.]]])
    """
    codes = _Nearest.apply(steps, zero, top)
    assert isinstance(codes, Tensor)
    return codes


def storable(log_scale: Tensor) -> Tensor:
    """The scale of this logarithm as float16 stores it, in the logarithm's own type; positive and finite always.

    >>> storable(torch.tensor([-100.0, 0.0, 100.0])).tolist()
    [5.960464477539063e-08, 1.0, 65504.0]
    """
    return log_scale.exp().clamp_(SMALLEST, LARGEST).half().to(log_scale.dtype)


def check_settings(bits: int, per: Per, init: Init) -> None:
    """Raise ValueError for bits outside 2..8, and for a ``per`` or an ``init`` that no grid has."""
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must lie in 2..8, got {bits}")
    if per not in ("tensor", "row") and not isinstance(per, int):
        raise ValueError(f"per must be 'tensor', 'row' or the size of a group, got {per!r}")
    if init not in get_args(Init):
        raise ValueError(f"init must be one of {', '.join(get_args(Init))}, got {init!r}")


def _at_least_0(regularizer: float) -> float:
    if not (regularizer >= 0 and math.isfinite(regularizer)):
        raise ValueError(f"regularizer must be at least 0, got {regularizer}")
    return regularizer


class SignSGD(torch.optim.Optimizer):
    """Every parameter goes one ``lr`` against the sign of its gradient.

    >>> weight = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> (weight * torch.tensor([5.0, -0.1])).sum().backward()
    >>> SignSGD([weight], lr=0.25).step()
    >>> weight.tolist()
    [0.75, 1.25]
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}")
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad.sign(), alpha=group["lr"])


@dataclass(frozen=True)
class RoundingMethod(Method):
    """What methods of learned rounding share: block by block, ``steps`` of one calibration batch, rate ``lr``.

    Raises ValueError for bits outside 2..8, steps below 0, and a rate that is not positive.
    """

    bits: int = 4
    per: Per = "tensor"
    steps: int = 60
    lr: float = 1e-3
    init: Init = "mse"
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self.bits, self.per, self.init)
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, got {self.steps}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr must be positive, got {self.lr}")

    @abstractmethod
    def learned(self, weight: Float[Tensor, "o i"]) -> LearnedRounding:
        """A weight with its first grid, before anything is learned."""

    @abstractmethod
    def fit(self) -> Fit:
        """How a block is fitted."""

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam; "fused" takes one pass over the parameters where the plain one takes ten."""
        return torch.optim.Adam(parameters, lr=self.lr, fused=True)

    def quantize(self, work: BlockInputs, progress: Progress = no_progress) -> dict[str, Any]:
        learned = {name: self.learned(work.weight(name)) for name in work.layers}
        parameters = [each for quantizer in learned.values() for each in quantizer.parameters() if each.requires_grad]
        reconstruct(work, learned, self.optimizer(parameters), self.fit(), progress)
        return {name: quantizer.finish() for name, quantizer in learned.items()}


@dataclass(frozen=True)
class AdaRound(RoundingMethod):
    """`AdaRoundQuantizer`, by Adam at a constant rate; ``regularizer`` is lambda, beside the mean square of the output.

    What is learned is soft until the end, so no iterate is better than the start before it is rounded: there is no
    ``keep_best``.
    """

    key: ClassVar[str] = "adaround"
    title: ClassVar[str] = "AdaRound"
    lr: float = 3e-2
    regularizer: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_0(self.regularizer)

    def learned(self, weight: Float[Tensor, "o i"]) -> AdaRoundQuantizer:
        return AdaRoundQuantizer(weight, self.bits, per=self.per, init=self.init, regularizer=self.regularizer)

    def fit(self) -> Fit:
        return Fit(self.steps, seed=self.seed)


@dataclass(frozen=True)
class AdaQuant(RoundingMethod):
    """`AdaQuantQuantizer`, by Adam, its rate falling as a cosine."""

    key: ClassVar[str] = "adaquant"
    title: ClassVar[str] = "AdaQuant"
    lr: float = 3e-3
    keep_best: bool = False

    def learned(self, weight: Float[Tensor, "o i"]) -> AdaQuantQuantizer:
        return AdaQuantQuantizer(weight, self.bits, per=self.per, init=self.init)

    def fit(self) -> Fit:
        return Fit(self.steps, cosine=True, keep_best=self.keep_best, seed=self.seed)


@dataclass(frozen=True)
class SignRound(RoundingMethod):
    """`SignRoundQuantizer`, by `SignSGD`, its rate falling as a cosine; with ``lr`` = 1 / ``steps`` v can just reach 1/2."""

    key: ClassVar[str] = "signround"
    title: ClassVar[str] = "SignRound"
    lr: float = 1 / 60
    keep_best: bool = False

    def learned(self, weight: Float[Tensor, "o i"]) -> SignRoundQuantizer:
        return SignRoundQuantizer(weight, self.bits, per=self.per, init=self.init)

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return SignSGD(parameters, lr=self.lr)

    def fit(self) -> Fit:
        return Fit(self.steps, cosine=True, keep_best=self.keep_best, seed=self.seed)
