"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from lab.quantization.ptq1_61.bill_experiment import bill
from lab.quantization.ptq1_61.preprocess_experiment import preprocess
from lab.quantization.ptq1_61.quantize_experiment import layer, matrix, model, search
from lab.quantization.ptq1_61.races import ptq_step
from lab.quantization.ptq1_61.studies import measure_bill, measure_gpt, measure_minilm

EXPERIMENTS = (layer, bill, model, search, preprocess, matrix)
STUDIES = (measure_minilm, measure_gpt, measure_bill)
RACES = (ptq_step,)
