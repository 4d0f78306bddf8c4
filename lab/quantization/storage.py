r"""What a quantized weight takes to store, to the bit: weights, mask, scales, zero points, each counted by itself.

A mask over n weights of which k are marked can be stored in three ways: as a bitmap, n bits; as the column indices of
each row (CSR), :math:`k\lceil\log_2 i\rceil` bits and o + 1 row pointers; and no code of independent entries can need less
than the entropy bound, :math:`n\,H_2(k/n)` bits. A mask of whole input channels needs one bit a channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

MaskCode = Literal["bitmap", "csr", "entropy"]


@dataclass(frozen=True)
class StorageCost:
    """Bits of a weight, or of many together: ``count`` weights, and what each part of their storage takes."""

    count: int
    weights: float = 0.0
    mask: float = 0.0
    scales: float = 0.0
    zeros: float = 0.0

    @property
    def total(self) -> float:
        """All bits."""
        return self.weights + self.mask + self.scales + self.zeros

    @property
    def per_weight(self) -> float:
        """Effective bits per weight, everything included.

        >>> StorageCost(count=100, weights=100, mask=20).per_weight
        1.2
        """
        return self.total / self.count if self.count else math.nan

    def __add__(self, other: StorageCost) -> StorageCost:
        return StorageCost(
            self.count + other.count,
            self.weights + other.weights,
            self.mask + other.mask,
            self.scales + other.scales,
            self.zeros + other.zeros,
        )


def entropy(share: float) -> float:
    """Binary entropy of a share in [0, 1], in bits.

    >>> entropy(0.5), round(entropy(0.1), 3)
    (1.0, 0.469)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    return -sum(each * math.log2(each) for each in (share, 1 - share) if each > 0)


def mask_bits(rows: int, columns: int, marked: int, code: MaskCode = "bitmap") -> float:
    """Bits for an unstructured mask over (rows, columns) with ``marked`` entries.

    >>> mask_bits(4, 100, 40, "csr")  # 40 indices of 7 bits, 5 row pointers of 6 bits
    310.0
    """
    n = rows * columns
    if not 0 <= marked <= n:
        raise ValueError(f"marked must lie between 0 and {n}, got {marked}")
    indices = marked * math.ceil(math.log2(max(columns, 2))) + (rows + 1) * math.ceil(math.log2(marked + 2))
    costs = {"bitmap": float(n), "csr": float(indices), "entropy": n * entropy(marked / n) if n else 0.0}
    return costs[code]


def paper_bits_pb_llm(low_fraction: float, high_bits: int = 8) -> float:
    """PB-LLM's Eq. 3: bits per weight with ``low_fraction`` binarized, the rest at ``high_bits``, and a bitmap.

    >>> paper_bits_pb_llm(0.9)
    2.7
    """
    return round(low_fraction + (1 - low_fraction) * high_bits + 1, 12)
