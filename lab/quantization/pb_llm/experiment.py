"""The room's experiments, studies and races: what pages show, what the ledger measures, what `lab bench` times."""

from __future__ import annotations

from lab.quantization.pb_llm.quantize_experiment import layer, matrix, model, search
from lab.quantization.pb_llm.races import pb_gptq
from lab.quantization.pb_llm.studies import measure_bill, measure_gpt, measure_minilm, measure_training
from lab.quantization.pb_llm.training_experiment import training

EXPERIMENTS = (layer, model, search, training, matrix)
STUDIES = (measure_minilm, measure_gpt, measure_training, measure_bill)
RACES = (pb_gptq,)
