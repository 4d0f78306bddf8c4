"""The notebook's "your turn": three questions about the bound, the bill and the angle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lab.exercise import close, exercise

_COSINES = (0.8, -0.6)
_INPUTS, _ERRORS = (3.0, 2.0), (1.0, 10.0)
_WIDTHS = (384, 4096)


@exercise(
    "ptq1-61:bound",
    question="Two input channels of size 3 and 2. Rounding changes the weights of the first by 1 in all, those of the second "
    "by 10. One channel may stay precise. How low can the error's bound get?",
    hint="The bound adds up |x| times the change, channel by channel; a precise channel adds nothing.",
    right=3.0,
    wrong=20.0,
)
def bound(answer: float) -> str | None:
    """Keep the second channel: 3 * 1 is left."""
    parts = np.multiply(_INPUTS, _ERRORS)
    if close(answer, parts[1]):
        return "That is what is left if the channel with the larger input stays precise. Is it the better choice here?"
    if close(answer, parts.sum()):
        return "That is the bound with nothing kept precise."
    return None if close(answer, parts.min()) else "That is not what one of the two channels adds."


def _bits(width: float) -> float:
    return 0.8 + 0.2 * 4 + (1 + 16 + 16 + 16 + 4 + 16) / width


def _published(width: float) -> float:
    return 0.8 + 0.2 * 4 + (1 + 3.2 * 16) / width


@exercise(
    "ptq1-61:width",
    question="Write f(d): the bits a weight of a d × d layer with 20 % of its channels at 4 bits. A row stores three numbers "
    "of 16 bits and a zero point of 4, a channel one number of 16 bits and its bit of the mask.",
    hint="Write down all bits of the layer, then divide by d².",
    right=lambda: _bits,
    wrong=lambda: _published,
)
def width(answer: Callable[[float], float]) -> str | None:
    """1.6 + 69 / d."""
    given = [answer(each) for each in _WIDTHS]
    if close(given, [_bits(each) for each in _WIDTHS], rel=1e-5):
        return None
    if close(given, [_published(each) for each in _WIDTHS], rel=1e-5):
        return "That is the count of the paper's appendix; a row stores more than it counts."
    if close(given, [1.6 for _ in _WIDTHS], rel=1e-5):
        return "That is the weights alone."
    return f"At d = {_WIDTHS[0]} it gives {float(given[0]):.4f}, and the bits of that layer come to another number."


@exercise(
    "ptq1-61:angle",
    question="Two tokens. Between the quantized and the full output the cosine is 0.8 for the first and -0.6 for the second. "
    "What is the angular loss NLC?",
    hint="In which order come the mean, the absolute value and the logarithm?",
    right=float(-np.log(0.1)),
    wrong=float(-np.log(0.7)),
)
def angle(answer: float) -> str | None:
    """-log |mean cosine|."""
    cosines = np.array(_COSINES)
    if close(answer, -np.log(np.abs(cosines).mean())):
        return "That takes the absolute value of each cosine before their mean."
    if close(answer, -np.log(np.abs(cosines)).mean()):
        return "That takes the logarithm of each cosine before their mean."
    if close(answer, np.log(abs(cosines.mean()))):
        return "The sign is turned: a loss falls when the angle closes."
    return None if close(answer, -np.log(abs(cosines.mean()))) else "That is not the loss of these two cosines."
