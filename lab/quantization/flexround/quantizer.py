r"""FlexRound's weight: each entry is divided by a learned factor of its own before it is rounded (arXiv 2306.00317, Eq. 2)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lab.quantization.flexround.division import DivideAndRound
from lab.quantization.grid import Init, Per
from lab.quantization.rounding import LearnedRounding, storable

FARTHEST = 3.0  # d2 stays in [-3, 3], a factor of 20 either way: our guard for exp, the paper has none


class FlexRoundQuantizer(LearnedRounding):
    r"""A weight whose entries are divided by learned factors before they are rounded.

    .. math:: \hat W = s_1\,\mathrm{clip}\big(\lfloor W / (s_1 S_2 s_3 s_4)\rceil\big)

    Learned are the logarithms ``d1`` of the grid's step s_1, ``d2`` of a factor for every weight (clamped to [-3, 3]), ``d3``
    of one for each output and ``d4`` of one for each input channel. It starts at round-to-nearest, bit for bit, and a weight
    of 0 stays 0. Of all factors only s_1 is stored. A call gives W_hat; it is also a parametrization, see `LearnedRounding`.

    Parameters
    ----------
    weight : (o, i), or a convolution's (o, i, kh, kw)
        Outputs by inputs.
    bits : int
        2..8.
    per : "tensor", "row" or int
        What shares a step; groups are of a convolution's i kh kw inputs.
    init : "mse" or "minmax"
        The first grid; see `fit_grid`. Its zero point stays.
    learn_s1 : bool
        Without it the first step stays.
    use_s3, use_s4 : bool
        Whether outputs and input channels have factors; the paper has s_4 for convolutions.

    Raises
    ------
    ValueError
        For other bits, per or init, a group that does not divide the inputs, and NaN or inf.

    References
    ----------
    J. H. Lee et al., "FlexRound", ICML 2023, arXiv 2306.00317, Eq. 2.

    Examples
    --------
    >>> quantizer = FlexRoundQuantizer(torch.tensor([[0.4, 0.6, -1.0, 2.0]]), bits=2, init="minmax")
    >>> quantizer().tolist()
    [[0.0, 1.0, -1.0, 2.0]]
    """

    def __init__(
        self,
        weight: Tensor,
        bits: int = 4,
        *,
        per: Per = "tensor",
        init: Init = "mse",
        learn_s1: bool = True,
        use_s3: bool = True,
        use_s4: bool = False,
    ) -> None:
        super().__init__(weight, bits, per=per, init=init)
        outputs, channels = self.shape[:2]
        zeros = self.start.new_zeros
        self.d1 = nn.Parameter(self.start.log(), requires_grad=learn_s1)
        self.d2 = nn.Parameter(zeros(self.shape))
        self.d3 = nn.Parameter(zeros(outputs, 1)) if use_s3 else None
        self.d4 = nn.Parameter(zeros(1, channels)) if use_s4 else None

    @property
    def scale(self) -> Float[Tensor, "r g 1"]:
        return storable(self.d1.detach())

    @property
    def s1(self) -> Float[Tensor, "r g"]:
        """The grid's step, as float16 stores it: (1, 1), (o, 1) or (o, g)."""
        return self.scale[..., 0]

    @property
    def S2(self) -> Float[Tensor, "*shape"]:
        """Each weight's factor, of the weight's shape."""
        return self.d2.detach().clamp(-FARTHEST, FARTHEST).exp()

    @property
    def s3(self) -> Float[Tensor, "o 1"]:
        """Each output's factor; ones without ``use_s3``."""
        return self.start.new_ones(self.shape[0], 1) if self.d3 is None else self.d3.detach().exp()

    @property
    def s4(self) -> Float[Tensor, "1 i"]:
        """Each input channel's factor; ones without ``use_s4``."""
        return self.start.new_ones(1, self.shape[1]) if self.d4 is None else self.d4.detach().exp()

    def factors(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """d1 (o, g, 1) or (1, 1, 1), d2 (o, g, s), d3 (o, 1, 1) and d4 (1, g, s): as they lie over the weight's groups."""
        size = self.steps.shape
        d3 = None if self.d3 is None else self.d3[..., None]
        d4 = None
        if self.d4 is not None:
            d4 = self.d4.repeat_interleave(math.prod(self.shape[2:]), 1).view(1, *size[1:])
        return self.d1, self.d2.view(size), d3, d4

    def rounded(self, steps: Float[Tensor, "o g s"]) -> Float[Tensor, "o g s"]:
        with torch.no_grad():
            self.d2.clamp_(-FARTHEST, FARTHEST)
        zero = float(self.zero) if self.zero.numel() == 1 else self.zero
        rounded = DivideAndRound.apply(steps, self.start, zero, self.top, *self.factors())
        assert isinstance(rounded, Tensor)
        return rounded
