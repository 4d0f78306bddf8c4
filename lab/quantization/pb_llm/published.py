"""PB-GPTQ as it was published, step by step: what the lab's is raced against, and checked by.

Column by column over a weight that lies as (outputs, inputs), blocks of 128 columns, the threshold from a full sort, a
factorisation for each layer, every column rounded in both ways and one of the two multiplied away. Nothing here is meant
to be fast. It follows the official code's order of steps (hahnyuan/PB-LLM, gptq_pb/gptq.py), in our own words.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.quantization.pb_llm.binarization import Stats
from lab.quantization.pb_llm.salience import Metric

BLOCK = 128


def published_pb_gptq(
    weight: Float[Tensor, "o i"],
    hessian: Float[Tensor, "i i"],
    low_frac: float = 0.9,
    high_bits: int = 8,
    metric: Metric = "hessian",
    stats: Stats = "official",
    groupsize: int | None = None,
    damping: float = 0.01,
    scale_dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "o i"]:
    """PB-GPTQ's rounded weight by the published loop.

    Parameters
    ----------
    weight : (o, i)
        Outputs by inputs.
    hessian : (i, i)
        Of the layer's inputs, undamped.
    low_frac : float
        Share that is binarized, strictly between 0 and 1.
    high_bits, metric, stats, groupsize, damping
        As in `PBLLM`.
    scale_dtype : torch.dtype
        What scales and means are rounded to; published: not at all.

    Returns
    -------
    (o, i)
        The rounded weight.

    Raises
    ------
    RuntimeError
        As torch does: this is a peer to compare with, and judges no input.

    References
    ----------
    Y. Shang et al., "PB-LLM", ICLR 2024, arXiv 2310.00034; official code hahnyuan/PB-LLM, gptq_pb/gptq.py.

    Examples
    --------
    >>> published_pb_gptq(torch.randn(6, 4), torch.eye(4), low_frac=0.5).shape
    torch.Size([6, 4])
    """
    W, H = weight.clone(), hessian.clone().to(weight.dtype)
    rows, columns = W.shape
    scale, zero = _high_grid(W, high_bits, scale_dtype)
    dead = H.diagonal() == 0
    H[dead, dead] = 1
    W[:, dead] = 0
    each = torch.arange(columns)
    H[each, each] += damping * H.diagonal().mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(H))
    U = torch.linalg.cholesky(inverse, upper=True)

    size = columns if groupsize is None else groupsize
    low = torch.zeros_like(W, dtype=torch.bool)
    alpha, mu = (torch.zeros(columns // size, rows, 1, dtype=W.dtype) for _ in range(2))
    for group in range(columns // size):
        inside = slice(group * size, (group + 1) * size)
        score = _score(W[:, inside], U[inside, inside], inverse[inside, inside], metric)
        limit = score.flatten().sort().values[int(score.numel() * low_frac)]
        low[:, inside] = score <= limit
        alpha[group], mu[group] = _two_values(W[:, inside], low[:, inside], stats, scale_dtype)

    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        block, errors = W[:, start:stop].clone(), torch.zeros(rows, stop - start, dtype=W.dtype)
        local = U[start:stop, start:stop]
        for j in range(stop - start):
            column, group = block[:, j : j + 1], (start + j) // size
            high = scale * (torch.clamp(torch.round(column / scale) + zero, 0, 2**high_bits - 1) - zero)
            ones = torch.where(column >= mu[group], 1.0, -1.0).to(W.dtype) * alpha[group] + mu[group]
            chosen = low[:, start + j : start + j + 1]
            rounded = high * ~chosen + ones * chosen
            W[:, start + j : start + j + 1] = rounded
            error = (column - rounded) / local[j, j]
            block[:, j:] -= error.matmul(local[j : j + 1, j:])
            errors[:, j : j + 1] = error
        W[:, stop:] -= errors.matmul(U[start:stop, stop:])
    return W


def _score(W: Tensor, U: Tensor, inverse: Tensor, metric: Metric) -> Tensor:
    if metric == "magnitude":
        return W.abs()
    cost = U.diagonal() if metric == "hessian" else inverse.diagonal()
    return W**2 / cost.reshape(1, -1) ** 2


def _two_values(W: Tensor, low: Bool[Tensor, "o i"], stats: Stats, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """alpha and mu, (o, 1); the official ones count the salient slots as zeros."""
    counted = W.shape[1] if stats == "official" else low.sum(1, keepdim=True).clamp(min=1)
    mu = (W * low).sum(1, keepdim=True) / counted
    distance = (W * low - mu).abs()
    alpha = (distance if stats == "official" else distance * low).sum(1, keepdim=True) / counted
    return alpha.to(dtype).to(W.dtype), mu.to(dtype).to(W.dtype)


def _high_grid(W: Tensor, bits: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each row, (o, 1)."""
    least, most = W.amin(1, keepdim=True).clamp(max=0), W.amax(1, keepdim=True).clamp(min=0)
    empty = (least == 0) & (most == 0)
    least[empty], most[empty] = -1, 1
    scale = ((most - least) / (2**bits - 1)).to(dtype).to(W.dtype)
    return scale, torch.round(-least / scale)
