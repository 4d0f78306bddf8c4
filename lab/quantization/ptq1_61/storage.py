"""What PTQ1.61 costs, in closed form: by the paper's formula, and by what has to be stored.

For a weight of n outputs and m inputs of which k channels are salient, with b bits each::

    (1)  weights: n (m - k) + b n k,   mask: m
    (2)  scales: 16 n for each of r_1 alpha, r_1 mu and s, and 16 m for r_2;   zero points: b n
    (3)  the paper's Appendix A, for a square weight of width d: (1 - rho) + b rho + b_index + b_add,
         b_index = d / N,   b_add = (3 + rho) 16 d / N

N is the number of bits of the weights, or of weights. (2) has what the code needs and (3) does not count: the grid of each row,
and the mean. The last part falls as 1/width: 0.017 bits per weight at 4,096 channels, 0.135 in a block of MiniLM.
"""

from __future__ import annotations

from typing import Literal

from lab.quantization.storage import StorageCost

SCALE = 16  # bits of a stored scale or mean


def layer_storage(rows: int, columns: int, salient: float, high_bits: int = 4, *, mean: bool = True) -> StorageCost:
    """What one weight takes to store: the closed form of `PTQ161Weight.finish`.

    With no salient channel, or with nothing else, no mask is needed and only one of the two forms is stored.

    Parameters
    ----------
    rows, columns : int
        Outputs and inputs.
    salient : float
        Salient channels; may be a fraction, for what a ratio would cost exactly.
    high_bits : int
        Of a salient channel's weights.
    mean : bool
        Whether the mean mu is stored.

    Returns
    -------
    StorageCost
        Bits of weights, mask, scales and zero points.

    Raises
    ------
    ValueError
        For sizes below 1, ``salient`` outside 0..columns, ``high_bits`` outside 1..8.

    References
    ----------
    J. Zhao et al., "PTQ1.61", ACL 2025, arXiv 2502.13179, Appendix A.

    Examples
    --------
    >>> round(layer_storage(4096, 4096, 0.2 * 4096).per_weight, 4)
    1.6168
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"rows and columns must be at least 1, got {rows} and {columns}")
    if not 0 <= salient <= columns:
        raise ValueError(f"salient must lie between 0 and the {columns} columns, got {salient}")
    if not 1 <= high_bits <= 8:
        raise ValueError(f"high_bits must lie in 1..8, got {high_bits}")
    high, low = salient > 0, salient < columns
    weights = rows * (columns - salient) + high_bits * rows * salient  # (1)
    # (2)
    scales = SCALE * (rows * high + (rows * (1 + mean) + columns) * low)
    return StorageCost(rows * columns, weights, columns * (high and low), scales, high_bits * rows * high)


def paper_bits(
    width: int = 4096, ratio: float = 0.2, high_bits: int = 4, *, per: Literal["bit", "weight"] = "bit"
) -> float:
    r"""Bits per weight as the paper counts them, for a square weight: both ways of counting print as 1.61.

    .. math:: (1-\rho) + b\rho + b_{index} + b_{add}

    Parameters
    ----------
    width : int
        Inputs and outputs d.
    ratio : float
        Share rho of salient channels.
    high_bits : int
        Their bits b.
    per : "bit" or "weight"
        The appendix divides the mask's :math:`d` bits and the scales' :math:`(3 + \rho)\,16 d` by the number of *bits* of the
        weights; "weight" divides them by the number of weights.

    Returns
    -------
    float
        Bits per weight.

    Raises
    ------
    ValueError
        For a ratio outside [0, 1], a width below 1, or another ``per``.

    References
    ----------
    J. Zhao et al., "PTQ1.61", ACL 2025, arXiv 2502.13179, Appendix A.

    Examples
    --------
    >>> round(paper_bits(), 4), round(paper_bits(per="weight"), 4)
    (1.608, 1.6127)
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    check_ratio(ratio)
    if per not in ("bit", "weight"):
        raise ValueError(f'per must be "bit" or "weight", got {per!r}')
    weights = (1 - ratio) + ratio * high_bits
    # (3)
    share = width**2 * (weights if per == "bit" else 1)
    return weights + (width + (3 + ratio) * width * SCALE) / share


def check_ratio(ratio: float) -> None:
    """Raise ValueError unless the share of salient channels lies in [0, 1]."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must lie in [0, 1], got {ratio}")
