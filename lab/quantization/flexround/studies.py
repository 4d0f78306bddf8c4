"""What FlexRound's claims rest on. A seed draws the calibration and the text that is measured on anew."""

from __future__ import annotations

from dataclasses import replace

import torch

from lab.experiment import Progress, study
from lab.quantization.baselines import GPTQ, RTN
from lab.quantization.comparison import column_names, columns
from lab.quantization.flexround import digits_experiment
from lab.quantization.flexround.digits_experiment import TITLES
from lab.quantization.flexround.digits_tuning import tune as tune_digits
from lab.quantization.flexround.method import FlexRound
from lab.quantization.flexround.tuned import CHOSEN, DIGITS, FIXED, STEPS
from lab.quantization.flexround.tuning import tune
from lab.quantization.grid import Per
from lab.quantization.one_layer import NAME, layer_inputs
from lab.quantization.pipeline import BlockInputs, Method, block_inputs
from lab.quantization.reconstruction import reconstruct
from lab.quantization.rounding import AdaQuant, AdaRound, LearnedRounding, RoundingMethod, SignRound, moved
from lab.quantization.tasks import MiniLM, StdlibGPT
from lab.quantization.weights import QuantizedWeight

RATES = {8: 5e-4, 4: 3e-3, 3: 2.5e-3}  # of FlexRound on stdlib-gpt, by its bits
THIRDS = ("small", "middle", "large")  # of the weights by size
DIGITS_BITS = (2, 3, 4)
BLOCK = 1  # of MiniLM, in which the moves are counted


def variants() -> dict[str, Method]:
    """The settings that the claims compare, by the name their columns begin with: one scale a layer, four bits."""
    ours = FlexRound(**FIXED, **CHOSEN["flexround"])
    return {
        "rtn": RTN(bits=4, per="tensor", init="mse"),
        "flexround": ours,
        "adaround": AdaRound(**FIXED, **CHOSEN["adaround"]),
        "adaquant": AdaQuant(**FIXED, **CHOSEN["adaquant"]),
        "signround": SignRound(**FIXED, **CHOSEN["signround"]),
        "no_s1": replace(ours, learn_s1=False),
        "no_s3": replace(ours, use_s3=False),
    }


@study(
    "minilm",
    "Learned rounding on MiniLM",
    replication="data",
    seeds=range(100, 105),
    columns=column_names(MiniLM, variants()),
    tune=tune,
    chosen=CHOSEN,
)
def measure_minilm(seed: int, *, progress: Progress) -> dict[str, float]:
    """Every variant on MiniLM."""
    return columns(MiniLM(), variants(), seed=seed, progress=progress)


@study(
    "gpt",
    "stdlib-gpt at 8, 4 and 3 bits",
    replication="data",
    seeds=range(100, 105),
    columns=column_names(StdlibGPT, [f"{key}_{bits}" for bits in RATES for key in ("flexround", "rtn", "gptq")]),
)
def measure_gpt(seed: int, *, progress: Progress) -> dict[str, float]:
    """stdlib-gpt at 8, 4 and 3 bits, one scale per row as the code has it for language models, at its rates."""
    methods: dict[str, Method] = {
        f"flexround_{bits}": FlexRound(bits=bits, per="row", steps=STEPS, lr=rate) for bits, rate in RATES.items()
    }
    methods |= {f"{kind.key}_{bits}": kind(bits=bits) for bits in RATES for kind in (RTN, GPTQ)}
    return columns(StdlibGPT(), methods, seed=seed, progress=progress)


@study(
    "moves",
    "How far weights move",
    replication="data",
    seeds=range(100, 108),
    columns=(
        *(f"{third}_{what}" for third in THIRDS for what in ("moves", "far")),
        "flexround_farthest",
        "adaround_farthest",
    ),
)
def measure_moves(seed: int, *, progress: Progress) -> dict[str, float]:
    """How far weights go from where rounding to nearest had put them, in grid points, in one block of MiniLM: for each
    third of the weights by size, FlexRound's mean and its share of two points and more; the farthest that AdaRound goes."""
    work = block_inputs(MiniLM().model(), BLOCK, MiniLM().calibration(seed))
    ours, theirs = (_quantizers(work, each) for each in (variants()["flexround"], variants()["adaround"]))
    moves = torch.cat([moved(quantizer).abs().flatten() for quantizer in ours.values()])
    size = torch.cat([work.weight(name).abs().flatten() for name in ours])
    order = torch.argsort(size)
    values = {}
    for name, some in zip(THIRDS, order.tensor_split(3), strict=True):
        values[f"{name}_moves"] = float(moves[some].float().mean())
        values[f"{name}_far"] = 100 * float((moves[some] >= 2).float().mean())
    progress(1.0, "done")
    farthest = max(int(moved(quantizer).abs().max()) for quantizer in theirs.values())
    return values | {"flexround_farthest": float(moves.max()), "adaround_farthest": float(farthest)}


def _quantizers(work: BlockInputs, method: Method) -> dict[str, LearnedRounding]:
    assert isinstance(method, RoundingMethod)
    learned = {name: method.learned(work.weight(name)) for name in work.layers}
    parameters = [each for quantizer in learned.values() for each in quantizer.parameters() if each.requires_grad]
    reconstruct(work, learned, method.optimizer(parameters), method.fit())
    return learned


@study("bound", "How far AdaRound can go", replication=None, columns=("beyond_one",))
def measure_moves_bound(seed: int, *, progress: Progress) -> dict[str, float]:
    """The same block at the first seed: how many grid points beyond one AdaRound goes at most."""
    return {"beyond_one": max(0.0, measure_moves(seed, progress=progress)["adaround_farthest"] - 1.0)}


@study("export", "What is stored", replication=None, columns=("more_bits",))
def measure_export(seed: int, *, progress: Progress) -> dict[str, float]:
    """Bits a weight that FlexRound's stored form takes beyond round-to-nearest's: codes, scale and zero point are all."""
    work = layer_inputs("minilm", 2, "attention.self.query")
    worst = 0.0
    scales: tuple[Per, ...] = ("tensor", "row")
    for per in scales:
        fitted = FlexRound(per=per, steps=5).quantize(work)[NAME]
        nearest = RTN(bits=4, per=per).quantize(work)[NAME]
        worst = max(worst, abs(fitted.storage().total - nearest.storage().total) / fitted.storage().count)
        worst = max(worst, float(_bytes(fitted) != _bytes(nearest)))
    return {"more_bits": worst}


def _bytes(stored: QuantizedWeight) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in stored.pack().values())


@study(
    "digits",
    "A convolutional network on digits",
    replication="training",
    seeds=range(100, 108),
    columns=(
        "full_accuracy",
        *(f"{key}_{bits}_{what}" for key in TITLES for bits in DIGITS_BITS for what in ("accuracy", "error")),
    ),
    tune=tune_digits,
    chosen=DIGITS,
)
def measure_digits(seed: int, *, progress: Progress) -> dict[str, float]:
    """Accuracy and output error of every method, in percent, at 2, 3 and 4 bits; the seed draws the images, trains the
    network anew and calibrates anew."""
    return digits_experiment.columns(seed, DIGITS_BITS, progress=progress)
