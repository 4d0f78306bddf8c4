"""What FlexRound's claims rest on. A seed draws the calibration and the text that is measured on anew."""

from __future__ import annotations

from dataclasses import replace

import torch

from lab.experiment import Progress, Study
from lab.quantization.baselines import GPTQ, RTN
from lab.quantization.comparison import columns
from lab.quantization.flexround.method import FlexRound
from lab.quantization.flexround.tuned import CHOSEN, FIXED, STEPS
from lab.quantization.flexround.tuning import tune
from lab.quantization.grid import Per
from lab.quantization.one_layer import NAME, layer_inputs
from lab.quantization.pipeline import BlockInputs, Method, block_inputs
from lab.quantization.reconstruction import reconstruct
from lab.quantization.rounding import AdaQuant, AdaRound, LearnedRounding, RoundingMethod, SignRound, moved
from lab.quantization.tasks import MiniLM, StdlibGPT
from lab.quantization.weights import QuantizedWeight

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


def measure_minilm(seed: int, *, progress: Progress) -> dict[str, float]:
    """Every variant on MiniLM."""
    return columns(MiniLM(), variants(), seed=seed, progress=progress)


def measure_gpt(seed: int, *, progress: Progress) -> dict[str, float]:
    """stdlib-gpt at 8, 4 and 3 bits, one scale a row as the code has it for language models, at its rates."""
    rates = {8: 5e-4, 4: 3e-3, 3: 2.5e-3}
    found: dict[str, Method] = {
        f"flexround_{bits}": FlexRound(bits=bits, per="row", steps=STEPS, lr=rate) for bits, rate in rates.items()
    }
    found |= {f"{kind.key}_{bits}": kind(bits=bits) for bits in rates for kind in (RTN, GPTQ)}
    return columns(StdlibGPT(), found, seed=seed, progress=progress)


def measure_moves(seed: int, *, progress: Progress) -> dict[str, float]:
    """How far weights go from where rounding to nearest had put them, in grid points, in one block of MiniLM: for each
    third of the weights by size, FlexRound's mean and its share of two points and more; the farthest that AdaRound goes."""
    work = block_inputs(MiniLM().model(), BLOCK, MiniLM().calibration(seed))
    ours, theirs = (_quantizers(work, each) for each in (variants()["flexround"], variants()["adaround"]))
    moves = torch.cat([moved(part).abs().flatten() for part in ours.values()])
    size = torch.cat([work.weight(name).abs().flatten() for name in ours])
    order = torch.argsort(size)
    found = {}
    for name, some in zip(("small", "middle", "large"), order.tensor_split(3), strict=True):
        found[f"{name}_moves"] = float(moves[some].float().mean())
        found[f"{name}_far"] = 100 * float((moves[some] >= 2).float().mean())
    progress(1.0, "done")
    farthest = max(int(moved(part).abs().max()) for part in theirs.values())
    return found | {"flexround_farthest": float(moves.max()), "adaround_farthest": float(farthest)}


def _quantizers(work: BlockInputs, method: Method) -> dict[str, LearnedRounding]:
    assert isinstance(method, RoundingMethod)
    learned = {name: method.learned(work.weight(name)) for name in work.layers}
    parameters = [each for part in learned.values() for each in part.parameters() if each.requires_grad]
    reconstruct(work, learned, method.optimizer(parameters), method.fit())
    return learned


def measure_moves_bound(seed: int, *, progress: Progress) -> dict[str, float]:
    """The same block at the first seed: how many grid points beyond one AdaRound goes at most."""
    return {"beyond_one": max(0.0, measure_moves(seed, progress=progress)["adaround_farthest"] - 1.0)}


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


STUDIES = (
    Study(
        "flexround",
        "minilm",
        "Learned rounding on MiniLM",
        measure_minilm,
        "data",
        seeds=tuple(range(100, 105)),
        seconds=240.0,
        tune=tune,
        chosen=CHOSEN,
    ),
    Study(
        "flexround",
        "gpt",
        "stdlib-gpt at 8, 4 and 3 bits",
        measure_gpt,
        "data",
        seeds=tuple(range(100, 105)),
        seconds=40.0,
    ),
    Study(
        "flexround", "moves", "How far weights move", measure_moves, "data", seeds=tuple(range(100, 108)), seconds=15.0
    ),
    Study("flexround", "bound", "How far AdaRound can go", measure_moves_bound, None, seconds=15.0),
    Study("flexround", "export", "What is stored", measure_export, None, seconds=3.0),
)
