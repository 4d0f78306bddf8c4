r"""Division, rounding and clipping as one function with its gradient in closed form (FlexRound, arXiv 2306.00317, Section 3).

A weight W (o, i) lies as g groups of s inputs, (o, g, s), in units of its first grid's step s_0: u = W / s_0. Learned are
logarithms, so that all factors are positive: s_1 = exp(d_1) of the grid's step, and of what W is divided by besides, S_2 =
exp(d_2) for each weight, s_3 = exp(d_3) for each output, s_4 = exp(d_4) for each input channel::

    (1)  W_hat = s_1 q,   q = clip(round(W / S) + z, 0, 2^b - 1) - z
    (2)  S = s_1 S',   S' = S_2 s_3 s_4

The gradient goes straight through the rounding. G is that of the loss in W_hat, R is 1 where nothing was clipped, else 0::

    (3)  dL/dd_2 = -(W / S') G R
    (4)  dL/dd_3 = sum of (3) over the inputs,   dL/dd_4 = sum of (3) over the outputs
    (5)  dL/dd_1 = sum of G (s_1 q - R W / S') over what shares a step

(3) is the reciprocal rule in logarithms: in S' itself it reads -(W / S'^2) G R. A weight of 0 has the gradient 0, large
weights have large gradients.

Written plainly (`published.py`), autograd keeps a dozen arrays of the weight's size and passes over each again. Here two are
kept, W / S where nothing was clipped and W_hat, and every pass but the first of each goes in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lab.quantization.rounding import inside, storable


class DivideAndRound(torch.autograd.Function):
    """W_hat (o, g, s) from ``steps`` = u = W / ``start`` (o, g, s); differentiable in d_1 to d_4 alone.

    ``start`` (s_0), ``zero`` (z) and ``d1`` are (o, g, 1) or (1, 1, 1); a ``zero`` for all may be a number. ``d2`` is
    (o, g, s), ``d3`` (o, 1, 1) and ``d4`` (1, g, s), the last two or None; ``top`` is 2^b - 1. The step s_1 is rounded to
    float16, straight through: what is computed is what is stored. At ``d1`` = log ``start`` and all others 0, the division
    is by exactly 1 and the result round-to-nearest to the bit.
    """

    @staticmethod
    def forward(
        ctx: Any,
        steps: Tensor,
        start: Tensor,
        zero: Tensor | float,
        top: int,
        d1: Tensor,
        d2: Tensor,
        d3: Tensor | None,
        d4: Tensor | None,
    ) -> Tensor:
        scale = storable(d1)  # s_1, as float16 stores it: (o, g, 1) or (1, 1, 1)
        # (2): W / S = u exp(log(s_0 / s_1) - d_3 - d_2 - d_4)
        shift = torch.log(start / scale)  # like s_1
        divided = torch.sub(shift if d3 is None else shift - d3, d2)  # (o, g, s)
        if d4 is not None:
            divided.sub_(d4)
        divided.exp_().mul_(steps)  # W / S
        # (1): q = clip(round(W / S) + z, 0, 2^b - 1) - z
        codes = torch.round(divided)  # (o, g, s)
        if isinstance(zero, Tensor):
            _clip(divided, codes.add_(zero), 0, top).sub_(zero)
        else:
            _clip(divided, codes, -zero, top - zero)  # the same with bounds that are shifted: two passes less
        rounded = codes.mul_(scale)  # (1): W_hat = s_1 q
        ctx.save_for_backward(divided, rounded, scale)  # R W / S, s_1 q, s_1
        return rounded

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        divided, rounded, scale = ctx.saved_tensors
        (grad,) = grads  # G, (o, g, s)
        needs_d1, _, needs_d3, needs_d4 = ctx.needs_input_grad[4:]
        # (5), first term: the sum of G s_1 q. Its array then becomes (3)'s.
        by_d2 = torch.mul(grad, rounded)
        by_d1 = by_d2.sum_to_size(scale.shape) if needs_d1 else None
        # (3): -(W / S') G R = -s_1 G (R W / S)
        torch.mul(grad, divided, out=by_d2).mul_(-scale)
        if by_d1 is not None:
            by_d1 += by_d2.sum_to_size(scale.shape)  # (5), second term: the sum of (3)
        # (4)
        by_d3 = by_d2.sum((1, 2), keepdim=True) if needs_d3 else None  # (o, 1, 1)
        by_d4 = by_d2.sum(0, keepdim=True) if needs_d4 else None  # (1, g, s)
        return None, None, None, None, by_d1, by_d2, by_d3, by_d4


def _clip(divided: Tensor, codes: Tensor, low: float, high: float) -> Tensor:
    """Clip codes in place, and multiply W / S by R in place: 0 where the code was clipped."""
    inside.grad_input(divided, codes, low - 0.5, high + 0.5, grad_input=divided)
    return codes.clamp_(low, high)
