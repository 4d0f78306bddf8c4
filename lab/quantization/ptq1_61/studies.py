"""What PTQ1.61's claims rest on. A seed draws the calibration and the text that is measured on anew."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from lab.experiment import Progress, study
from lab.files import read_tensor_header
from lab.quantization.baselines import GPTQ, RTN, XNOR
from lab.quantization.comparison import column_names, columns
from lab.quantization.files import save_packed
from lab.quantization.one_layer import NAME, layer_inputs
from lab.quantization.pb_llm import tuned as pb_llm
from lab.quantization.pb_llm.method import PBLLM
from lab.quantization.pipeline import Method
from lab.quantization.ptq1_61.method import PTQ161
from lab.quantization.ptq1_61.preprocess_experiment import ROWS, PreprocessConfig, ablation
from lab.quantization.ptq1_61.storage import layer_storage
from lab.quantization.ptq1_61.tuned import CHOSEN, STEPS
from lab.quantization.ptq1_61.tuning import tune
from lab.quantization.storage import StorageCost
from lab.quantization.tasks import MiniLM, StdlibGPT

WIDER = 0.557  # of MiniLM's channels at 4 bits: as many effective bits as PB-LLM with a tenth of the weights at 8
FEWER = 0.951  # of MiniLM's weights binary: as many bits as PTQ1.61 by the entropy bound, which no mask's code can beat
KEYS = dict(zip(ROWS, ("none", "mask", "preprocess", "learned", "all"), strict=True))


def variants() -> dict[str, Method]:
    """The settings that the claims compare, by the name their columns begin with."""
    ours = PTQ161(steps=STEPS, **CHOSEN["minilm"])
    gptq, pb = pb_llm.CHOSEN["gptq"], pb_llm.CHOSEN["pb-llm"]
    return {
        "ptq": ours,
        "ptq_start": replace(ours, steps=0),
        "ptq_no_angle": replace(ours, nlc=False),
        "ptq_hessian": replace(ours, score="hessian"),
        "ptq_random": replace(ours, score="random"),
        "ptq_wider": replace(ours, ratio=WIDER),
        "pb_10": PBLLM(**pb),
        "pb_fewer": PBLLM(low_frac=FEWER, **pb),
        "gptq_2": GPTQ(bits=2, **gptq),
        "rtn_2": RTN(bits=2, init="mse"),
        "xnor": XNOR(),
    }


@study(
    "minilm",
    "MiniLM at many settings",
    replication="data",
    seeds=range(100, 105),
    columns=(*column_names(MiniLM, variants()), "low_cosine"),
    tune=tune,
    chosen=CHOSEN,
)
def measure_minilm(seed: int, *, progress: Progress) -> dict[str, float]:
    """Every variant on MiniLM; `low_cosine` is the best of the three methods of at most two bits."""
    values = columns(MiniLM(), variants(), seed=seed, progress=progress)
    return values | {"low_cosine": max(values[f"{name}_cosine"] for name in ("gptq_2", "rtn_2", "xnor"))}


@study(
    "gpt",
    "The ablation on stdlib-gpt",
    replication="training",
    seeds=range(100, 105),
    columns=(
        *(f"{name}_perplexity" for name in ("full", "preprocessed", *KEYS.values())),
        *(f"{name}_bits" for name in KEYS.values()),
    ),
)
def measure_gpt(seed: int, *, progress: Progress) -> dict[str, float]:
    """The ablation on stdlib-gpt: `ROW_perplexity`, `ROW_bits`, and the perplexity of what LoRA made, `preprocessed`."""
    task = StdlibGPT().drawn(seed)
    values = {"full_perplexity": task.measure(task.model())["perplexity"]}
    for name, done, model in ablation(PreprocessConfig(seed=seed), task, progress):
        values[f"{KEYS[name]}_perplexity"] = task.measure(done.model)["perplexity"]
        values[f"{KEYS[name]}_bits"] = done.storage().per_weight
        if model is not None and "preprocessed_perplexity" not in values:
            values["preprocessed_perplexity"] = task.measure(model)["perplexity"]
    return values


@study("bill", "The bill and the packed file", replication=None, columns=("mask_off", "bill_off", "file_off"))
def measure_bill(seed: int, *, progress: Progress) -> dict[str, float]:
    """Off the closed forms, in bits: the mask at width 4,096 from 1/4096 a weight, a real layer's stored form from the
    formula, and the tensors of its packed file from the formula, but for the line of JSON that says what they are."""
    mask = layer_storage(4096, 4096, 0.2 * 4096).mask / 4096**2
    work = layer_inputs("minilm", 2, "intermediate.dense")
    stored = PTQ161(steps=0).quantize(work)[NAME]
    rows, columns_ = stored.shape
    formula = layer_storage(rows, columns_, int(0.2 * columns_) + 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed.safetensors"
        save_packed({"layer": stored}, path)
        entries = [entry for entry in read_tensor_header(path) if not entry.name.endswith("facts")]
        bytes_stored = sum(entry.stop - entry.start for entry in entries)
    return {
        "mask_off": abs(mask - 1 / 4096),
        "bill_off": _apart(stored.storage(), formula),
        "file_off": abs(8 * bytes_stored - formula.total) / formula.count,
    }


def _apart(one: StorageCost, other: StorageCost) -> float:
    return max(
        abs(getattr(one, part) - getattr(other, part)) / other.count for part in ("weights", "mask", "scales", "zeros")
    )
