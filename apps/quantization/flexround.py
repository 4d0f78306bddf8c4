"""FlexRound, live: one layer, its rounding under the lens, a whole model, a network for digits, search, your matrix."""

from quantization import shared

shared.page("flexround")
