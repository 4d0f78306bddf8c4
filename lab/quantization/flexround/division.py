r"""Division, rounding and clipping as one function with its gradient in closed form (FlexRound, arXiv 2306.00317, Section 3).

.. math:: \hat W = s_1\,\mathrm{clip}\big(\lfloor W / S\rceil\big), \qquad S = s_1 \odot S_2 \odot s_3 \odot s_4 = s_1 S'

All factors are exponentials, so all are positive: :math:`s_1 = e^{d_1}` and so on. With the gradient straight through the
rounding, G that of the loss in :math:`\hat W`, and R = 1 where nothing was clipped,

.. math:: \frac{\partial L}{\partial d_2} = -\frac{W}{S'} \odot G R, \qquad
          \frac{\partial L}{\partial d_3} = \sum_{i} \frac{\partial L}{\partial d_2}, \qquad
          \frac{\partial L}{\partial d_1} = \sum G \odot \Big(s_1 q - R \odot \frac{W}{S'}\Big).

The first is the reciprocal rule in logarithms: in :math:`S'` itself it reads :math:`-W/S'^2 \odot GR`. A weight of 0 has
gradient 0, large ones large gradients.

Written plainly (`plain.py`), autograd keeps a dozen arrays of the weight's size and passes over each again. Here two are
kept, W / S where nothing was clipped and the result, and every pass but the first of each goes in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lab.quantization.rounding import inside, storable


class DivideAndRound(torch.autograd.Function):
    """W_hat, (o, g, s), of ``steps`` = W / ``start`` (o, g, s) in g groups; differentiable in the logarithms alone.

    ``start``, ``zero`` and ``d1`` are (o, g, 1) or (1, 1, 1), ``d2`` (o, g, s), ``d3`` (o, 1, 1) and ``d4`` (1, g, s), the
    last two or None; a ``zero`` for all may be a number. The scale is rounded to float16, straight through: what is
    computed is what is stored. At ``d1`` = log ``start`` and all others 0, the division is by exactly 1 and the result
    round-to-nearest to the bit.
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
        scale = storable(d1)
        shift = torch.log(start / scale)
        divided = torch.sub(shift if d3 is None else shift - d3, d2)
        if d4 is not None:
            divided.sub_(d4)
        divided.exp_().mul_(steps)  # W / S
        codes = torch.round(divided)
        if isinstance(zero, Tensor):
            _clip(divided, codes.add_(zero), 0, top).sub_(zero)
        else:
            _clip(divided, codes, -zero, top - zero)  # two passes less
        rounded = codes.mul_(scale)
        ctx.save_for_backward(divided, rounded, scale)
        return rounded

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        divided, rounded, scale = ctx.saved_tensors
        (grad,) = grads
        needs_d1, _, needs_d3, needs_d4 = ctx.needs_input_grad[4:]
        by_d2 = torch.mul(grad, rounded)  # a sum of it for d1, then its memory for d2
        by_d1 = by_d2.sum_to_size(scale.shape) if needs_d1 else None
        torch.mul(grad, divided, out=by_d2).mul_(-scale)
        if by_d1 is not None:
            by_d1 += by_d2.sum_to_size(scale.shape)
        by_d3 = by_d2.sum((1, 2), keepdim=True) if needs_d3 else None
        by_d4 = by_d2.sum(0, keepdim=True) if needs_d4 else None
        return None, None, None, None, by_d1, by_d2, by_d3, by_d4


def _clip(divided: Tensor, codes: Tensor, low: float, high: float) -> Tensor:
    """Clip codes in place, and set W / S to 0 where they were."""
    inside.grad_input(divided, codes, low - 0.5, high + 0.5, grad_input=divided)
    return codes.clamp_(low, high)
