"""The baselines by key, and how a method is made from its key and its settings.

A paper's own method stands in its room; a room that needs all of them joins them with these (its ``methods.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lab.quantization.awq import AWQ
from lab.quantization.baselines import GPTQ, RTN, XNOR
from lab.quantization.billm import BiLLM
from lab.quantization.pipeline import Method
from lab.quantization.rounding import AdaQuant, AdaRound, SignRound

Methods = Mapping[str, Callable[..., Method]]  # by key: the classes
BASELINES: dict[str, Callable[..., Method]] = {
    "rtn": RTN,
    "gptq": GPTQ,
    "xnor": XNOR,
    "billm": BiLLM,
    "awq": AWQ,
    "adaround": AdaRound,
    "adaquant": AdaQuant,
    "signround": SignRound,
}


def method(key: str, /, methods: Methods = BASELINES, **settings: Any) -> Method:
    """The method with this key and these settings; ValueError for an unknown key or setting.

    >>> method("rtn", bits=3)
    RTN(bits=3, per='row', init='minmax')
    """
    if key not in methods:
        raise ValueError(f"there is no method {key!r}; there are {', '.join(sorted(methods))}")
    try:
        return methods[key](**settings)
    except TypeError as error:
        raise ValueError(f"{key} does not take these settings ({error})") from error
