"""Which weights are salient, and stay at 8 bits: the highest scores of the whole layer, entry by entry.

::

    (1)  v_jk = |W_jk|                                           "magnitude"
    (2)  v_jk = W_jk^2 / U_kk^2,   H^-1 = U^T U                  "hessian", as in the official code
    (3)  v_jk = W_jk^2 / [H^-1]_kk^2                             "hessian_exact", as the paper prints it (Section 3.2)
    (4)  binarized where v_jk <= the value at rank floor(r n) of the n scores

U is the upper Cholesky factor; U_kk^2 is the diagonal of the inverse that is left when column k's turn comes, so (2) is what
rounding the entry costs.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.quantization.grid import check_weight
from lab.quantization.pb_llm.binarization import check_choice, check_group
from lab.quantization.statistics import DAMPING, Statistics

Metric = Literal["magnitude", "hessian", "hessian_exact"]


def salience(
    W: Float[Tensor, "o i"],
    metric: Metric = "magnitude",
    statistics: Statistics | None = None,
    damping: float = DAMPING,
) -> Float[Tensor, "o i"]:
    r"""The score of every weight: the higher, the more it needs to stay precise.

    .. math:: v_{jk} = |W_{jk}| \quad\text{or}\quad v_{jk} = W_{jk}^2 / d_k^2

    Parameters
    ----------
    W : (o, i)
        Outputs by inputs.
    metric : "magnitude", "hessian" or "hessian_exact"
        The size; or with d = the diagonal of U, H^-1 = U^T U, as in the official code; or of H^-1 itself, as printed.
    statistics : Statistics, optional
        Of the layer's inputs; the Hessian's scores need them.
    damping : float
        Share of its mean diagonal that is added to H's diagonal.

    Returns
    -------
    (o, i)
        The scores v.

    Raises
    ------
    ValueError
        For an unknown ``metric``; for ``statistics`` that are missing, saw no token or are of another width; for a ``W``
        with NaN or inf.

    References
    ----------
    Y. Shang et al., "PB-LLM", ICLR 2024, arXiv 2310.00034, Section 3.2.

    Examples
    --------
    >>> salience(torch.tensor([[1.0, -3.0]])).tolist()
    [[1.0, 3.0]]
    """
    check_weight(W, "W")
    check_choice("metric", metric, Metric)
    return scored(W, metric, statistics, damping)


def scored(W: Tensor, metric: Metric, statistics: Statistics | None, damping: float) -> Float[Tensor, "o i"]:
    """`salience` of a weight whose numbers were checked already."""
    if metric == "magnitude":
        return W.abs()  # (1)
    upper, _ = factor(W, statistics, damping, f"metric {metric!r}")
    # H^-1 = U^T U: its diagonal is the sum of squares of each column of U
    cost = upper.diagonal() if metric == "hessian" else upper.square().sum(0)
    return (W / cost).square_()  # (2) or (3): (o, i)


def pb_mask(
    W: Float[Tensor, "o i"],
    low_frac: float = 0.9,
    metric: Metric = "magnitude",
    statistics: Statistics | None = None,
    *,
    groupsize: int | None = None,
    damping: float = DAMPING,
) -> Bool[Tensor, "o i"]:
    r"""Which weights are binarized: those whose score is at most the layer's value at rank floor(low_frac n), from 0.

    So of n distinct scores floor(low_frac n) + 1 are binarized, and ties go with them, as in the official code.

    Parameters
    ----------
    W : (o, i)
        Outputs by inputs.
    low_frac : float
        Share that is binarized; 0 means none, and 1 all.
    metric, statistics, damping
        How weights are scored; see `salience`.
    groupsize : int, optional
        The rank is taken over each group of so many input columns; over the flattened layer by default.

    Returns
    -------
    bool (o, i)
        True where a weight is binarized.

    Raises
    ------
    ValueError
        For ``low_frac`` outside [0, 1], a ``groupsize`` that does not divide the inputs, and as `salience` does.

    References
    ----------
    Y. Shang et al., "PB-LLM", ICLR 2024, arXiv 2310.00034, Section 3.2.

    Examples
    --------
    >>> pb_mask(torch.tensor([[4.0, -1.0], [2.0, 3.0]]), low_frac=0.5).tolist()
    [[False, True], [True, True]]
    """
    check_share("low_frac", low_frac)
    return lowest(salience(W, metric, statistics, damping), low_frac, groupsize)


def lowest(score: Float[Tensor, "o i"], low_frac: float, groupsize: int | None) -> Bool[Tensor, "o i"]:
    """True for the scores that `pb_mask` binarizes."""
    size = check_group(groupsize, score.shape[1])
    if low_frac in (0, 1):
        return torch.full_like(score, bool(low_frac), dtype=torch.bool)
    # (4)
    masks = [group <= threshold(group, low_frac) for group in score.split(size, dim=1)]
    return masks[0] if len(masks) == 1 else torch.cat(masks, dim=1)


def threshold(score: Float[Tensor, "o i"], share: float) -> float:
    """The value at rank floor(share n) of n scores, from 0; selected, not sorted (NumPy's is far faster than kthvalue)."""
    flat = score.detach().cpu().flatten().numpy()
    rank = min(int(flat.size * share), flat.size - 1)
    return float(np.partition(flat, rank)[rank])


def factor(
    W: Tensor, statistics: Statistics | None, damping: float, what: str
) -> tuple[Float[Tensor, "i i"], Bool[Tensor, " i"]]:
    """U and the dead channels in the weight's precision; ValueError when there are no statistics, or of another width."""
    if statistics is None:
        raise ValueError(f"{what} needs statistics: what calibration left behind for the layer's inputs")
    if statistics.channels != W.shape[1]:
        raise ValueError(f"statistics are of {statistics.channels} channels, and the weight has {W.shape[1]} inputs")
    return statistics.factor(damping, torch.float64 if W.dtype == torch.float64 else torch.float32)


def check_share(name: str, value: float) -> None:
    """Raise ValueError unless it lies in [0, 1]."""
    if not 0 <= value <= 1:  # NaN too
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
