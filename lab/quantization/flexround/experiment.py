"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from lab.quantization.flexround.digits_experiment import digits
from lab.quantization.flexround.quantize_experiment import layer, matrix, model, search
from lab.quantization.flexround.races import flexround_iteration
from lab.quantization.flexround.rounding_experiment import rounding
from lab.quantization.flexround.studies import (
    measure_digits,
    measure_export,
    measure_gpt,
    measure_minilm,
    measure_moves,
    measure_moves_bound,
)

EXPERIMENTS = (layer, rounding, model, digits, search, matrix)
STUDIES = (measure_minilm, measure_gpt, measure_moves, measure_moves_bound, measure_export, measure_digits)
RACES = (flexround_iteration,)
