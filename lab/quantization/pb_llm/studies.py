"""What PB-LLM's claims rest on. A seed draws the calibration and the text that is measured on anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from lab.experiment import Progress, study
from lab.quantization.baselines import GPTQ, RTN, XNOR
from lab.quantization.billm import BiLLM
from lab.quantization.blocks import find_blocks, linears, weight_of
from lab.quantization.comparison import column_names, columns
from lab.quantization.files import load_packed, save_packed
from lab.quantization.grid import fit_grid
from lab.quantization.pb_llm.binarization import binarize, partly_binary
from lab.quantization.pb_llm.method import PBLLM
from lab.quantization.pb_llm.salience import pb_mask
from lab.quantization.pb_llm.training_experiment import ARMS, ended
from lab.quantization.pb_llm.tuned import CHOSEN, TRAINING
from lab.quantization.pb_llm.tuning import tune, tune_training
from lab.quantization.pipeline import Method
from lab.quantization.storage import paper_bits_pb_llm
from lab.quantization.tasks import MiniLM, StdlibGPT

EQUAL = 0.8675  # of MiniLM's weights binary: as many effective bits as GPTQ's three

ON_GPT = ("xnor", "gptq_2", "gptq_3", "pb_5", "pb_10", "pb_20", "pb_30", "pb_10_rtn", "pb_10_magnitude")


def variants() -> dict[str, Method]:
    """The settings that the claims compare, by the name their columns begin with."""
    best = CHOSEN["pb-llm"]
    return {
        "xnor": XNOR(),
        "rtn_3": RTN(bits=3),
        **{f"gptq_{bits}": GPTQ(bits=bits, **CHOSEN["gptq"]) for bits in (2, 3, 4)},
        **{f"pb_{share}": PBLLM(low_frac=1 - share / 100) for share in (0, 5, 10, 20, 30)},
        "pb_10_rtn": PBLLM(gptq=False),
        "pb_10_magnitude": PBLLM(metric="magnitude"),
        "pb_10_exact": PBLLM(metric="hessian_exact"),
        "pb_10_groups": PBLLM(groupsize=128),
        "pb_10_official": PBLLM(stats="official"),
        "pb_equal": PBLLM(low_frac=EQUAL, **best),
        "billm": BiLLM(),
    }


@study(
    "minilm",
    "MiniLM at many settings",
    replication="data",
    seeds=range(100, 105),
    columns=(*column_names(MiniLM, variants()), "half_full_recall_1"),
    tune=tune,
    chosen=CHOSEN,
)
def measure_minilm(seed: int, *, progress: Progress) -> dict[str, float]:
    """Every variant on MiniLM; `half_full_recall_1` is half of what full precision finds."""
    values = columns(MiniLM(), variants(), seed=seed, progress=progress)
    return values | {"half_full_recall_1": values["full_recall_1"] / 2}


@study(
    "gpt",
    "stdlib-gpt at many settings",
    replication="data",
    seeds=range(100, 105),
    columns=column_names(StdlibGPT, ON_GPT),
)
def measure_gpt(seed: int, *, progress: Progress) -> dict[str, float]:
    """The variants on stdlib-gpt that its claims need."""
    everything = variants()
    return columns(StdlibGPT(), {name: everything[name] for name in ON_GPT}, seed=seed, progress=progress)


@study(
    "training",
    "Training on with salient weights frozen",
    replication="training",
    seeds=range(100, 105),
    columns=("full_perplexity", *(f"{arm.key}_{what}" for arm in ARMS for what in ("perplexity", "early"))),
    tune=tune_training,
    chosen=TRAINING,
)
def measure_training(seed: int, *, progress: Progress) -> dict[str, float]:
    """Held-out perplexity of each arm after its training, and the mean training loss of ten steps after a quarter of it:
    `ARM_perplexity`, `ARM_early`."""
    task = StdlibGPT().drawn(seed)
    values: dict[str, float] = {"full_perplexity": task.measure(task.model())["perplexity"]}
    for number, arm in enumerate(ARMS):
        progress(number / len(ARMS), arm.name)
        perplexity, early, _ = ended(arm, TRAINING[arm.key], seed, task)
        values |= {f"{arm.key}_perplexity": perplexity, f"{arm.key}_early": early}
    return values


@study("bill", "The bill and the packed file", replication=None, columns=("off_equation_3", "packed_differs"))
def measure_bill(seed: int, *, progress: Progress) -> dict[str, float]:
    """How far weights and bitmap are from Eq. 3 on a real layer, in bits per weight, at the share that is really salient
    (ties and rounding make it one weight more); and whether the packed file gives back every bit."""
    block = find_blocks(MiniLM().model())[1][2]
    weight = weight_of(linears(block)["intermediate.dense"]).detach().float()  # (o, i)
    grid = fit_grid(weight, 8)
    worst = differ = 0.0
    for share in (0.02, 0.1, 0.3):
        low = pb_mask(weight, 1 - share)
        alpha, mu, _ = binarize(weight, low)
        stored = partly_binary(weight, low, alpha.half().float(), mu.half().float(), grid)
        cost = stored.storage()
        salient = (cost.weights / cost.count - 1) / 7
        worst = max(worst, abs((cost.weights + cost.mask) / cost.count - paper_bits_pb_llm(1 - salient)))
        worst = max(worst, abs(salient - share) - 2 / cost.count)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "packed.safetensors"
            save_packed({"layer": stored}, path)
            again = load_packed(path)["layer"].dequantize()
        differ = max(
            differ, float((again - stored.dequantize()).abs().max()), 0.0 if torch.isfinite(again).all() else 1.0
        )
    return {"off_equation_3": worst, "packed_differs": differ}
