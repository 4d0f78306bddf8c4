r"""Which input channels are salient (the "structured mask"): those with large activations, for they weigh most in the error.

For a weight :math:`W` (outputs, inputs), its quantized form and inputs x, the error of the outputs is bounded channel by
channel,

.. math:: \sum_j \Big|\sum_i x_i\,(\hat W_{ji} - W_{ji})\Big| \;\le\; \sum_i |x_i| \sum_j |\hat W_{ji} - W_{ji}|,

so the channels with the largest \|x_i\| are kept precise. A mask of whole channels costs one bit a channel; PB-LLM's and
BiLLM's masks of single weights cost one bit a weight.
"""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.quantization.grid import check_weight
from lab.quantization.ptq1_61.storage import check_ratio
from lab.quantization.statistics import Statistics

Score = Literal["absmax", "absmean", "hessian", "random", "smallest"]
SMALLEST = 1e-5  # of a score, as in the official code


def activation_scores(statistics: Statistics, score: Literal["absmax", "absmean"] = "absmax") -> Float[Tensor, " i"]:
    r"""How large each input channel is: the largest input over all calibration tokens, or the mean size.

    .. math:: a_i = \max_t |x_{ti}| \quad\text{or}\quad a_i = \frac1T\sum_t |x_{ti}|

    Parameters
    ----------
    statistics : Statistics
        Of the full-precision model's inputs, as in the official code, or of the quantized stream's; see
        `BlockInputs.statistics`.
    score : "absmax" or "absmean"
        The maximum, as in the official code, or the mean, as in its pseudo-code.

    Returns
    -------
    (i,)
        At least 1e-5 each, as in the official code.

    Raises
    ------
    ValueError
        For another score, and when no token was seen.

    References
    ----------
    J. Zhao et al., "PTQ1.61", ACL 2025, arXiv 2502.13179, the structured mask.

    Examples
    --------
    >>> seen = Statistics(2)
    >>> seen.add(torch.tensor([[1.0, -4.0], [3.0, 0.0]]))
    >>> activation_scores(seen).tolist(), activation_scores(seen, "absmean").tolist()
    ([3.0, 4.0], [2.0, 2.0])
    """
    if score not in ("absmax", "absmean"):
        raise ValueError(f"score must be absmax or absmean, got {score!r}")
    if not statistics.tokens:
        raise ValueError("statistics has seen no calibration token: the calibration is empty")
    size = statistics.absmax if score == "absmax" else statistics.absmean
    return size.clamp(min=SMALLEST)


def channel_scores(
    weight: Float[Tensor, "o i"], statistics: Statistics, score: Score = "absmax", *, seed: int = 0
) -> Float[Tensor, " i"]:
    r"""Scores (i,) by which channels are chosen: the paper's, and others to compare it with.

    Beside `activation_scores`: "hessian", the loss that binarizing a channel causes if nothing else changes,
    :math:`H_{ii} \sum_j (\hat w_{ji} - w_{ji})^2` (OWQ's sensitivity, C. Lee et al., arXiv 2306.02272; the paper's Table
    on masks compares with it); "random" numbers from ``seed``; "smallest", the paper's turned round.

    >>> seen = Statistics(2)
    >>> seen.add(torch.tensor([[1.0, -4.0], [3.0, 0.0]]))
    >>> channel_scores(torch.eye(2), seen, "smallest").argmax()
    tensor(0)
    """
    check_score(score)
    if score == "hessian":
        mean = weight.mean(1, keepdim=True)
        ones = mean + (weight - mean).abs().mean(1, keepdim=True) * torch.where(weight >= mean, 1.0, -1.0)
        return statistics.hessian().diagonal() * (ones - weight).square().sum(0)
    if score == "random":
        return torch.rand(weight.shape[1], generator=torch.Generator().manual_seed(seed)).to(weight.device)
    if score == "smallest":
        return 1 / activation_scores(statistics, "absmax")
    return activation_scores(statistics, score)


def channel_mask(scores: Float[Tensor, " i"], ratio: float = 0.2, *, exact_count: bool = False) -> Bool[Tensor, " i"]:
    r"""The salient channels: the share with the largest scores.

    .. math:: a_i \ge a_{(\lfloor\rho m\rfloor + 1)}

    The threshold is counted from the largest, so this official rule marks one channel more than the share, and whatever ties
    with it: 77 of 384. Where ties would mark every channel, a UserWarning says so, and the exact count is taken.

    Parameters
    ----------
    scores : (i,)
        At least 0, from `activation_scores`.
    ratio : float
        The share rho; 0 marks none, 1 all.
    exact_count : bool
        Mark the nearest whole number to rho m instead, the first of equals.

    Returns
    -------
    bool (i,)
        True for the salient channels.

    Raises
    ------
    ValueError
        For a ratio outside [0, 1], and scores that are not a vector, negative, NaN or inf.

    References
    ----------
    J. Zhao et al., "PTQ1.61", ACL 2025, arXiv 2502.13179, the structured mask.

    Examples
    --------
    >>> channel_mask(torch.tensor([5.0, 1.0, 4.0, 2.0]), 0.25).tolist()
    [True, False, True, False]
    """
    check_ratio(ratio)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores must be one number a channel, got the shape {tuple(scores.shape)}")
    if not bool(torch.isfinite(scores).all()) or bool((scores < 0).any()):
        raise ValueError("scores must be finite and at least 0")
    count = len(scores)
    if ratio in (0, 1):
        return torch.full((count,), ratio == 1, device=scores.device)
    ranked = torch.sort(scores, descending=True, stable=True)
    last = int(ratio * count)
    if not exact_count:
        mask = scores >= ranked.values[last]  # a_i >= a_(floor(rho m) + 1)
        if last + 1 == count or not bool(mask.all()):
            return mask
        warnings.warn(
            f"scores tie so that all {count} channels would be salient: the first {round(ratio * count)} of the largest "
            "are taken; is the calibration constant?",
            stacklevel=2,
        )
    mask = torch.zeros(count, dtype=torch.bool, device=scores.device)
    mask[ranked.indices[: round(ratio * count)]] = True
    return mask


def error_bound(W: Float[Tensor, "o i"], Wq: Float[Tensor, "o i"], X: Float[Tensor, "t i"]) -> Float[Tensor, " t"]:
    r"""Bound of each token's output error, the paper's "upper bound of quantization error".

    .. math:: \|x\,(W_q - W)^T\|_1 \le \sum_i |x_i| \sum_j |W_{q,ji} - W_{ji}|

    Keeping the channels with the largest \|x_i\| precise lowers it most only where the channels' own errors are alike.

    Parameters
    ----------
    W, Wq : (o, i)
        The weight and its quantized form, outputs by inputs.
    X : (t, i)
        Tokens by inputs.

    Returns
    -------
    (t,)
        The right-hand side for each token.

    Raises
    ------
    ValueError
        For shapes that do not fit, NaN and inf.

    References
    ----------
    J. Zhao et al., "PTQ1.61", ACL 2025, arXiv 2502.13179.

    Examples
    --------
    >>> error_bound(torch.eye(2), torch.zeros(2, 2), torch.tensor([[1.0, -2.0]]))
    tensor([3.])
    """
    check_weight(W, "W")
    check_weight(Wq, "Wq")
    check_weight(X, "X")
    if Wq.shape != W.shape:
        raise ValueError(f"Wq must have the shape of W, {tuple(W.shape)}, got {tuple(Wq.shape)}")
    if X.shape[1] != W.shape[1]:
        raise ValueError(f"X must have the {W.shape[1]} inputs of W, got {X.shape[1]}")
    return X.abs() @ (Wq - W).abs().sum(0)  # (t, i) @ (i,)


def check_score(score: str) -> None:
    """Raise ValueError for a score that is not known."""
    if score not in get_args(Score):
        raise ValueError(f"score must be one of {', '.join(get_args(Score))}, got {score!r}")
