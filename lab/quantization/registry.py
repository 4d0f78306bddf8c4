"""All methods on the bench by key; the papers' own have their slugs."""

from __future__ import annotations

import importlib
from typing import Any

from lab.quantization.bench import Method

METHODS = {
    "rtn": "lab.quantization.baselines:RTN",
    "gptq": "lab.quantization.baselines:GPTQ",
    "xnor": "lab.quantization.baselines:XNOR",
    "pb-llm": "lab.quantization.pb_llm:PBLLM",
    "billm": "lab.quantization.billm:BiLLM",
    "awq": "lab.quantization.awq:AWQ",
    "ptq1-61": "lab.quantization.ptq1_61:PTQ161",
    "flexround": "lab.quantization.flexround:FlexRound",
    "adaround": "lab.quantization.rounding:AdaRound",
    "adaquant": "lab.quantization.rounding:AdaQuant",
    "signround": "lab.quantization.rounding:SignRound",
}


def method(key: str, **settings: Any) -> Method:
    """The method with this key and these settings; ValueError for an unknown key or setting.

    >>> method("rtn", bits=3)
    RTN(bits=3, per='row', init='minmax')
    """
    if key not in METHODS:
        raise ValueError(f"there is no method {key!r}; there are {', '.join(sorted(METHODS))}")
    module, _, name = METHODS[key].partition(":")
    kind = getattr(importlib.import_module(module), name)
    try:
        made = kind(**settings)
    except TypeError as error:
        raise ValueError(f"{key} does not take these settings ({error})") from error
    assert isinstance(made, Method)
    return made
