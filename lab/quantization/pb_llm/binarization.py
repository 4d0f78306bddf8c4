"""Two values per row: the scale and the mean with which signs come closest to a weight (PB-LLM, Section 3.4).

For a row w of n weights::

    (1)  mu = mean(w)
    (2)  b = sign(w - mu)
    (3)  alpha = argmin |(w - mu) - alpha b|^2 = |w - mu|_1 / n
    (4)  w_hat = mu + alpha b
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.quantization.grid import Grid, check_weight
from lab.quantization.weights import Affine, Binary, Mixed, QuantizedWeight

Stats = Literal["masked", "official"]


def binarize(
    w: Float[Tensor, "o i"],
    mask: Bool[Tensor, "o i"] | None = None,
    mean: bool = True,
    stats: Stats = "masked",
    groupsize: int | None = None,
) -> tuple[Float[Tensor, "o g"], Float[Tensor, "o g"], Float[Tensor, "o i"]]:
    r"""Scale, mean and signs of a weight, for each row, or for each group of inputs in a row.

    .. math:: \min_{\alpha}\,\|(w - \mu) - \alpha\,b\|^2,\quad b = \mathrm{sign}(w - \mu)
              \quad\Rightarrow\quad \alpha = \frac{\|w - \mu\|_1}{n},\qquad \hat w = \mu + \alpha\,b

    Parameters
    ----------
    w : (o, i)
        Outputs by inputs.
    mask : bool (o, i), optional
        The entries that are binarized; all of them by default.
    mean : bool
        Without it mu is 0.
    stats : "masked" or "official"
        "masked": mu and alpha are means over the marked entries alone, and alpha is the least-squares scale for that mu.
        "official": means over all columns of w M, the salient ones counted as zeros, as in the official code
        (gptq_pb/low_quant.py); that shrinks alpha by about the binarized share.
    groupsize : int, optional
        Inputs in a group; a whole row by default.

    Returns
    -------
    alpha, mu : (o, g)
        Scale and mean of each group; 0 where no entry is marked.
    signs : (o, i)
        +1 or -1, +1 at mu itself, where torch.sign would give 0.

    Raises
    ------
    ValueError
        For a mask of another shape, an unknown ``stats``, a group that does not divide the inputs, NaN or inf.

    References
    ----------
    Y. Shang et al., "PB-LLM", ICLR 2024, arXiv 2310.00034, Section 3.4.

    Examples
    --------
    >>> alpha, mu, signs = binarize(torch.tensor([[1.0, -2.0, 3.0, -4.0]]))
    >>> (mu + alpha * signs).tolist()
    [[2.0, -3.0, 2.0, -3.0]]
    """
    check_weight(w, "w")
    check_mask(mask, w)
    check_choice("stats", stats, Stats)
    alpha, mu = two_values(w, mask, mean, stats, groupsize)
    above = w.unflatten(1, (alpha.shape[1], -1)) >= mu[..., None]  # (2): (o, g, s)
    return alpha, mu, above.to(w.dtype).mul_(2).sub_(1).flatten(1)


def two_values(
    w: Float[Tensor, "o i"],
    mask: Bool[Tensor, "o i"] | None = None,
    mean: bool = True,
    stats: Stats = "masked",
    groupsize: int | None = None,
) -> tuple[Float[Tensor, "o g"], Float[Tensor, "o g"]]:
    """alpha and mu of `binarize`, for a weight whose numbers were checked already."""
    size = check_group(groupsize, w.shape[1])
    binarized = w if mask is None else w.masked_fill(~mask, 0.0)
    groups = binarized.unflatten(1, (-1, size))  # (o, g, s)
    if mask is None or stats == "official":
        mu = groups.mean(-1) if mean else torch.zeros_like(groups[..., 0])  # (1), with zeros where salient: (o, g)
        alpha = (groups - mu[..., None]).abs_().mean(-1)  # (3)
    else:
        marked = mask.unflatten(1, (-1, size))  # (o, g, s)
        count = marked.sum(-1).clamp(min=1)  # (o, g)
        mu = groups.sum(-1) / count if mean else torch.zeros_like(groups[..., 0])  # (1): (o, g)
        alpha = (groups - mu[..., None]).abs_().mul_(marked).sum(-1) / count  # (3)
    return alpha, mu


def partly_binary(
    weight: Float[Tensor, "o i"],
    low: Bool[Tensor, "o i"],
    alpha: Float[Tensor, "o g"],
    mu: Float[Tensor, "o g"],
    grid: Grid,
) -> QuantizedWeight:
    """The stored form: signs where ``low`` is set, codes on ``grid`` elsewhere; one of the two alone where that is all.

    The mask that is stored marks the salient entries, the few.
    """
    # (2), and (4) when it is dequantized
    signs = weight >= mu.repeat_interleave(weight.shape[1] // mu.shape[1], dim=1)  # (o, i)
    ones, codes = Binary(signs, alpha.half(), mu.half()), Affine.of(weight, grid)
    if bool(low.all()):
        return ones
    return Mixed(~low, codes, ones) if bool(low.any()) else codes


def check_mask(mask: Tensor | None, weight: Tensor, name: str = "mask") -> None:
    """Raise ValueError unless a mask is None, or truth values of the weight's shape."""
    if mask is not None and (mask.shape != weight.shape or mask.dtype != torch.bool):
        given = f"{mask.dtype} of the shape {tuple(mask.shape)}"
        raise ValueError(f"{name} must be torch.bool of the weight's shape {tuple(weight.shape)}, got {given}")


def check_group(groupsize: int | None, columns: int) -> int:
    """Inputs in a group, all for None; ValueError when the groups do not divide them."""
    size = columns if groupsize is None else groupsize
    if size < 1 or columns % size:
        raise ValueError(f"groupsize must divide the weight's {columns} inputs, got {groupsize}")
    return size


def check_choice(name: str, value: object, choices: object) -> None:
    """Raise ValueError unless ``value`` is one of a Literal's."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(choices)))}, got {value!r}")
