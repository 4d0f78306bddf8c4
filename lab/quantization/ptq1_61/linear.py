"""A linear layer that never forms its quantized weight: the scales act on inputs and outputs, where they are cheap.

With the inputs split into salient ones x_s and the others x_b, Q the salient codes and S the signs of the others::

    (1)  u = x_b r_2
    (2)  y = x_s Q^T + (r_1 alpha)^T (u S^T) + (u 1) (r_1 mu)^T + bias

costs the two matrix products of an ordinary layer. Its gradient costs two more and not four: dL/dalpha_j is a sum over tokens
of (u S^T)_tj, which the forward pass has anyway, and the one for r_2 comes from the input's own gradient. So no step touches
a matrix of the weight's size but to multiply by it, and no gradient of that size is ever computed. The equation is the lab's;
the numbers are those of `PTQ161Weight.forward`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lab.quantization.ptq1_61.weight import PTQ161Weight


class FactoredLinear(nn.Module):
    """The linear layer of a `PTQ161Weight`, which shares its parameters: (..., m) to (..., n), without forming the weight.

    .. math:: y = x\\,\\hat W^T + \\mathrm{bias}

    Parameters
    ----------
    learned : PTQ161Weight
        Of n outputs and m inputs.
    bias : (n,), optional
        Added to the outputs; not trained.

    Raises
    ------
    ValueError
        For a bias that does not fit.

    References
    ----------
    J. Zhao et al., "PTQ1.61", ACL 2025, arXiv 2502.13179, Eq. 9; the factored form is the lab's.

    Examples
    --------
    >>> learned = PTQ161Weight(torch.randn(3, 4), torch.tensor([True, False, False, False]))
    >>> x = torch.randn(2, 5, 4)
    >>> torch.allclose(FactoredLinear(learned)(x), x @ learned().T, atol=1e-5)
    True
    """

    def __init__(self, learned: PTQ161Weight, bias: Float[Tensor, " n"] | None = None) -> None:
        super().__init__()
        if bias is not None and bias.shape != learned.high.shape[:1]:
            raise ValueError(f"bias must have {len(learned.high)} entries, got the shape {tuple(bias.shape)}")
        self.learned, self.bias = learned, None if bias is None else bias.detach()
        self.salient, self.others = learned.mask.nonzero()[:, 0], (~learned.mask).nonzero()[:, 0]
        self.codes = learned.high[:, self.salient].contiguous()
        self.signs = learned.signs[:, self.others].contiguous()

    @property
    def weight(self) -> Float[Tensor, "n m"]:
        """The weight, formed after all, for models that look at it."""
        return self.learned()

    def forward(self, x: Float[Tensor, "... m"]) -> Float[Tensor, "... n"]:
        learned = self.learned
        flat = x.reshape(-1, x.shape[-1])
        scaled = flat.index_select(1, self.others) * learned.r2[0].index_select(0, self.others)  # (1): (t, m - k)
        salient = flat.index_select(1, self.salient)  # (t, k)
        # (2), term by term
        exact = salient @ self.codes.T if self.bias is None else torch.addmm(self.bias, salient, self.codes.T)
        y = torch.addcmul(exact, scaled @ self.signs.T, (learned.r1 * learned.alpha).T)
        if learned.with_mean:
            y = torch.addr(y, scaled.sum(1), (learned.r1 * learned.mean)[:, 0])
        return y.reshape(*x.shape[:-1], y.shape[-1])


def factored(block: nn.Module, learned: Mapping[str, PTQ161Weight]) -> nn.Module:
    """A copy of a block with its named linear layers factored; only the scales are trained.

    Parameters
    ----------
    block : nn.Module
        Left as it is.
    learned : mapping of str to PTQ161Weight
        By the name of the linear layer in the block.

    Returns
    -------
    nn.Module
        The copy; its `FactoredLinear` layers share the parameters of ``learned``.

    Raises
    ------
    ValueError
        Naming a layer that the block does not have.

    Examples
    --------
    >>> block = nn.Sequential(nn.Linear(4, 3))
    >>> ours = factored(block, {"0": PTQ161Weight(block[0].weight, torch.ones(4).bool())})
    >>> [name for name, parameter in ours.named_parameters() if parameter.requires_grad]
    ['0.learned.alpha', '0.learned.r1', '0.learned.r2']
    """
    missing = sorted(set(learned) - {name for name, _ in block.named_modules()})
    if missing:
        raise ValueError(f"the block has no layer {missing[0]!r}")
    ours = copy.deepcopy(block).requires_grad_(False)
    for name, weight in learned.items():
        parent, _, leaf = name.rpartition(".")
        bias = getattr(ours.get_submodule(name), "bias", None)
        setattr(ours.get_submodule(parent), leaf, FactoredLinear(weight, bias))
    return ours
