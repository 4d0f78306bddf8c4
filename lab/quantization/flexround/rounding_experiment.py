"""Experiment `rounding`: learned rounding under the lens, every step of it, on a part of one real layer.

Four methods are fitted side by side to the same inputs. Each of their steps is written down as `reconstruct` takes it: where
a weight stands between the grid's points, which point it would be stored as, what its gradient is, and what the layer's
output has lost by then.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lab.experiment import Config, Progress, knob, silent
from lab.quantization.bench import BlockWork, Method
from lab.quantization.flexround.method import FlexRound
from lab.quantization.flexround.quantizer import FlexRoundQuantizer
from lab.quantization.grid import Init
from lab.quantization.layer_experiment import PARTS
from lab.quantization.one_layer import NAME, layer_work, matrix_work
from lab.quantization.reconstruction import reconstruct, run_with
from lab.quantization.registry import method
from lab.quantization.rounding import (
    AdaQuantQuantizer,
    AdaRoundQuantizer,
    LearnedRounding,
    RoundingMethod,
    SignRoundQuantizer,
    moved,
)

if TYPE_CHECKING:
    import pandas as pd

Part = Literal["query", "attention out", "mlp in"]
Learner = Literal["flexround", "adaround", "adaquant", "signround"]
LEARNERS: tuple[Learner, ...] = ("flexround", "adaround", "adaquant", "signround")
TITLES = {
    "rtn": "round to nearest",
    "flexround": "FlexRound",
    "adaround": "AdaRound",
    "adaquant": "AdaQuant",
    "signround": "SignRound",
}
OUTPUTS, FITTED = 128, 2304  # of the layer that are fitted; tokens that calibrate, the others are held out
FOLLOWED, SCATTERED = 401, 2001  # weights whose way is kept, and whose move is kept, evenly by size
NEAR = 2  # grid points from which a move counts as far
STEPS = 60  # that the rates are tuned for
CHOSEN: dict[str, dict[str, float]] = {  # by `tune`
    "flexround": {"lr": 1.5e-2},
    "flexround, sgd": {"lr": 1e-2 / 3},
    "adaround": {"lr": 0.4, "regularizer": 1e-3},
    "adaquant": {"lr": 2e-2},
    "signround": {"lr": 0.35 / STEPS},
}
_RATES = [{"lr": rate} for rate in (3e-3, 1e-3, 2e-3, 5e-3, 7e-3, 1e-2, 1.5e-2, 2e-2, 3e-2)]
GRIDS: dict[str, list[dict[str, float]]] = {
    "flexround": _RATES,
    "flexround, sgd": [{"lr": each["lr"] / 3} for each in _RATES],
    "adaround": [{"lr": rate, "regularizer": weight} for rate, weight in product((0.2, 0.4, 0.8), (1e-5, 1e-4, 1e-3))],
    "adaquant": _RATES,
    "signround": [{"lr": rate / STEPS} for rate in (1.0, 0.2, 0.35, 0.5, 0.7, 1.4, 2.0, 3.0, 4.0)],
}
TUNED_ON: tuple[tuple[Part, int], ...] = (("query", 0), ("attention out", 4), ("mlp in", 1), ("query", 5))
TUNED_SEED = 20


class RoundingConfig(Config):
    """Which rounding is learned, for how long, and which weight is looked at."""

    primary: ClassVar[tuple[str, ...]] = ("bits", "steps", "method", "weight")

    bits: int = knob(4, "bits of a weight", ge=2, le=8)
    steps: int = knob(60, "optimizer steps", ge=0, le=100)
    method: Learner = knob("flexround", "whose weights are under the lens")
    weight: int = knob(
        90,
        "which one weight is under the lens: its place in the order of size, smallest at 0",
        ge=0,
        le=100,
        unit="%",
        label="weight, by size",
    )
    per: Literal["tensor", "row"] = knob(
        "tensor", "what shares a scale: the whole layer, or each output", label="a scale for"
    )
    rate: float = knob(
        1.0, "learning rate of each method, times the one tuned for it", ge=0.1, le=10, scale="log", label="rate"
    )
    learn_s1: bool = knob(True, "FlexRound: learn the grid's step as well", label="learn the step")
    use_s3: bool = knob(True, "FlexRound: give each output a factor of its own", label="factor a row")
    optimizer: Literal["adam", "sgd"] = knob(
        "adam", "FlexRound: Adam makes all weights' steps alike in log space, SGD leaves them as large as the gradients"
    )
    big: float = knob(
        1.0, "how many times larger the largest weight is made", ge=1, le=50, scale="log", label="one huge weight"
    )
    init: Init = knob(
        "mse", "the first grid: the weights' whole range, or one shrunk to the least error", label="first grid"
    )
    block: int = knob(2, "the layer's block, counted from 0", ge=0, le=5)
    part: Part = knob("query", "which of the block's layers", label="layer")
    seed: int = knob(0, "draws the calibration text, and its order", ge=0, le=20)


@dataclass(frozen=True)
class RoundingResult:
    """T steps of the four methods on one layer; positions and codes are in points of the present grid, 0 at weight 0.

    method (key), title, layer: what is under the lens; low, high: the grid's ends.
    race: method, step 0..T, error (share of the output's energy lost, on the calibration, rounded as it would be stored).
    methods: method, error, held_out (the same on text that did not calibrate), moved, far (shares), farthest (points).
    weight, output, input: the one weight; place, code (T + 1,) its W / S and its point; step (T + 1,) the grid's; gradient
    (T,) of the loss in the number that the method learns for it.
    sizes (m,): the followed weights in steps of the first grid, with sign, by size; places (T + 1, m); codes (T + 1, m).
    scatter_size (n,), scatter_move (n,): |w| and by how many points a weight went, for n weights evenly by size.
    deciles: method, decile 1..10 of |w|, size (mean), mean (points moved), far (share of two points and more).
    points (p,), before (p,), after (p,): how many weights stand on each point, by rounding to nearest and in the end.
    """

    method: str
    title: str
    layer: str
    bits: int
    low: int
    high: int
    race: pd.DataFrame
    methods: pd.DataFrame
    weight: float
    output: int
    input: int
    place: np.ndarray
    code: np.ndarray
    step: np.ndarray
    gradient: np.ndarray
    sizes: np.ndarray
    places: np.ndarray
    codes: np.ndarray
    scatter_size: np.ndarray
    scatter_move: np.ndarray
    deciles: pd.DataFrame
    points: np.ndarray
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True, eq=False)
class Trace:
    """How one fit went: error (T + 1,); of the followed weights place, code, step (T + 1, m) and gradient (T, m); of all
    weights (o, i) the move in grid points and the final code, its zero point subtracted, and the final weight."""

    error: np.ndarray
    place: np.ndarray
    code: np.ndarray
    step: np.ndarray
    gradient: np.ndarray
    move: np.ndarray
    final: np.ndarray
    rounded: Tensor


@dataclass(frozen=True, eq=False)
class Bench:
    """A layer by itself, with X^T X of what calibrates and of what is held out, and its weights in the order of size."""

    work: BlockWork
    weight: Float[Tensor, "o i"]
    grams: tuple[Float[Tensor, "i i"], Float[Tensor, "i i"]]  # of what calibrates, of what is held out
    energies: tuple[float, float]  # of the outputs
    order: Int[Tensor, " n"]  # places in the flat weight

    @classmethod
    def of(cls, weight: Float[Tensor, "o i"], inputs: Float[Tensor, "t i"], fitted: int, name: str = "layer") -> Bench:
        """The first ``fitted`` of the inputs (t, i) calibrate; with as many as there are, the same ones judge."""
        seen, held = inputs[:fitted], inputs[fitted:] if fitted < len(inputs) else inputs
        grams = seen.T @ seen, held.T @ held
        energies = float(((weight @ grams[0]) * weight).sum()), float(((weight @ grams[1]) * weight).sum())
        order = weight.abs().flatten().argsort(stable=True)
        return cls(matrix_work(weight, seen, name=name), weight, grams, energies, order)

    def evenly(self, count: int) -> Int[Tensor, " m"]:
        """Places of up to ``count`` weights evenly in the order of size, the smallest and the largest among them."""
        n = len(self.order)
        return self.order[torch.linspace(0, n - 1, min(count, n)).round().long()]

    def lost(self, rounded: Float[Tensor, "o i"], *, held: bool = False) -> float:
        """Share of the output's energy that is lost, on what calibrates or on what is held out."""
        off = rounded - self.weight
        return float(((off @ self.grams[held]) * off).sum()) / self.energies[held]


def place_of(quantizer: LearnedRounding) -> Float[Tensor, "o i"]:
    """Where each weight stands between the points of its present grid: what is rounded, or for AdaRound rounded softly."""
    steps, scale = quantizer.steps, quantizer.scale
    if isinstance(quantizer, FlexRoundQuantizer):
        _, d2, d3, d4 = quantizer.factors()
        for part in (d2, d3, d4):
            steps = steps if part is None else steps / part.exp()
        found = steps * quantizer.start / scale
    elif isinstance(quantizer, AdaRoundQuantizer):
        found = steps.floor() + quantizer.h()
    else:
        assert isinstance(quantizer, AdaQuantQuantizer | SignRoundQuantizer)
        found = (steps + quantizer.v) * quantizer.start / scale
    return found.detach().view(quantizer.shape)


def learned_number(quantizer: LearnedRounding) -> Tensor:
    """What a method learns for each weight: d2, a or v."""
    for name in ("d2", "a", "v"):
        if hasattr(quantizer, name):
            found: Tensor = getattr(quantizer, name)
            return found
    raise TypeError(f"quantizer: a {type(quantizer).__name__} learns no number for each weight")


def follow(bench: Bench, fitted: RoundingMethod, *, sgd: bool = False, progress: Progress = silent) -> Trace:
    """Fit a layer as the method does, and write every step down; ``sgd`` takes plain gradient descent instead of Adam."""
    work = bench.work
    quantizer = fitted.learned(bench.weight)
    parameters = [each for each in quantizer.parameters() if each.requires_grad]
    optimizer = _descent(bench, quantizer, fitted.lr) if sgd else fitted.optimizer(parameters)
    some, number = bench.evenly(FOLLOWED), learned_number(quantizer)
    rows: dict[str, list[Any]] = {name: [] for name in ("error", "place", "code", "step", "gradient")}

    @torch.no_grad()
    def write() -> None:
        rounded = quantizer.settled(quantizer.steps)
        scale = quantizer.scale.expand_as(rounded).flatten()[some]
        rows["error"].append(bench.lost(rounded.view(quantizer.shape)))
        rows["place"].append(place_of(quantizer).flatten()[some].numpy())
        rows["code"].append(torch.round(rounded.flatten()[some] / scale).numpy())
        rows["step"].append(scale.numpy().copy())

    def watch(fraction: float, note: str = "", partial: Any | None = None) -> None:
        assert number.grad is not None
        rows["gradient"].append(number.grad.flatten()[some].numpy().copy())
        write()
        progress(fraction, note)

    write()
    reconstruct(work, {NAME: quantizer}, optimizer, fitted.fit(), watch)
    final = quantizer.integers()[0].view(quantizer.steps.shape).float() - quantizer.zero
    arrays = {name: np.array(values, np.float32) for name, values in rows.items()}
    arrays["gradient"] = arrays["gradient"].reshape(-1, len(some))
    return Trace(
        **arrays,
        move=moved(quantizer).numpy(),
        final=final.view(quantizer.shape).numpy().astype(np.int16),
        rounded=quantizer.finish().dequantize(),
    )


def _descent(bench: Bench, quantizer: LearnedRounding, rate: float) -> torch.optim.Optimizer:
    """Plain gradient descent; each array of factors has the rate with which its steps are ``rate`` long on average at first."""
    lengths = [torch.zeros(()) for _ in quantizer.parameters()]
    for call, target in zip(bench.work.calls, bench.work.targets, strict=True):
        quantizer.zero_grad()
        functional.mse_loss(run_with(bench.work.block, call, {NAME: quantizer()}), target).backward()
        for length, each in zip(lengths, quantizer.parameters(), strict=True):
            length += 0.0 if each.grad is None else each.grad.abs().mean() / len(bench.work.calls)
    groups = [
        {"params": [each], "lr": rate / max(float(length), 1e-30)}
        for length, each in zip(lengths, quantizer.parameters(), strict=True)
        if each.requires_grad
    ]
    return torch.optim.SGD(groups)


def run(config: RoundingConfig, *, progress: Progress) -> RoundingResult:
    """Fit the four methods, or take the fits that are kept; look at the chosen one closely."""
    import pandas as pd

    bench = _bench(config.part, config.block, config.seed, config.big)
    traces: dict[Learner, Trace] = {}
    for place, key in enumerate(LEARNERS):
        progress(place / len(LEARNERS), TITLES[key])
        traces[key] = _trace(*_settings(config, key))
    one, weight = traces[config.method], bench.weight
    start = one.final - one.move  # where rounding to nearest puts them
    nearest = FlexRound(bits=config.bits, per=config.per, init=config.init).learned(weight)
    zero = nearest.zero.expand_as(nearest.steps).flatten()
    low, high = int(-zero.max()), int(nearest.top - zero.min())
    points = np.arange(low, high + 1)
    lens = round(config.weight / 100 * (one.place.shape[1] - 1))
    some, many = bench.evenly(FOLLOWED), bench.evenly(SCATTERED)
    flat = int(some[lens])
    progress(1.0, "done")
    return RoundingResult(
        method=config.method,
        title=TITLES[config.method],
        layer=f"{config.part}, block {config.block} of MiniLM",
        bits=config.bits,
        low=low,
        high=high,
        race=_race(bench, nearest, traces),
        methods=_methods(bench, nearest, traces),
        weight=float(weight.flatten()[flat]),
        output=flat // weight.shape[1],
        input=flat % weight.shape[1],
        place=one.place[:, lens],
        code=one.code[:, lens],
        step=one.step[:, lens],
        gradient=one.gradient[:, lens],
        sizes=nearest.steps.flatten()[some].numpy(),
        places=one.place,
        codes=one.code.astype(np.int16),
        scatter_size=weight.abs().flatten()[many].numpy(),
        scatter_move=one.move.reshape(-1)[many.numpy()].astype(np.int16),
        deciles=pd.concat([_deciles(bench, key, trace) for key, trace in traces.items()], ignore_index=True),
        points=points,
        before=np.array([(start == point).sum() for point in points]),
        after=np.array([(one.final == point).sum() for point in points]),
    )


def tune() -> dict[str, dict[str, float]]:
    """The search behind `CHOSEN`: nine trials each, the least mean logarithm of the loss on held-out text wins.

    At 4 bits, on `TUNED_ON`, layers other than the one shown first, with calibration of another seed. A minute on one core.
    """
    benches = [_bench(part, block, TUNED_SEED, 1.0) for part, block in TUNED_ON]
    found: dict[str, dict[str, float]] = {}
    for name, grid in GRIDS.items():
        key, _, descent = name.partition(", ")
        fits = [method(key, bits=4, per="tensor", steps=STEPS, **settings) for settings in grid]
        found[name] = grid[int(np.argmin([_score(benches, each, bool(descent)) for each in fits]))]
    return found


def _score(benches: list[Bench], fitted: Method, sgd: bool) -> float:
    assert isinstance(fitted, RoundingMethod)
    losses = [bench.lost(follow(bench, fitted, sgd=sgd).rounded, held=True) for bench in benches]
    return float(np.mean(np.log(losses)))


def _settings(config: RoundingConfig, key: Learner) -> tuple[RoundingConfig, Learner]:
    """What a method's fit depends on: the other knobs at their defaults, so that moving them fits nothing anew."""
    idle = ("weight", "method") if key == "flexround" else ("weight", "method", "learn_s1", "use_s3", "optimizer")
    return config.model_copy(update={name: RoundingConfig.model_fields[name].default for name in idle}), key


@functools.lru_cache(maxsize=24)
def _trace(config: RoundingConfig, key: Learner) -> Trace:
    sgd = key == "flexround" and config.optimizer == "sgd"
    settings: dict[str, Any] = dict(CHOSEN["flexround, sgd" if sgd else key])
    settings["lr"] *= config.rate * (STEPS / max(config.steps, 1) if key == "signround" else 1.0)
    if key == "flexround":
        settings |= {"learn_s1": config.learn_s1, "use_s3": config.use_s3}
    fitted = method(
        key, bits=config.bits, per=config.per, steps=config.steps, init=config.init, seed=config.seed, **settings
    )
    assert isinstance(fitted, RoundingMethod)
    bench = _bench(config.part, config.block, config.seed, config.big)
    return follow(bench, fitted, sgd=sgd)


@functools.lru_cache(maxsize=8)
def _bench(part: Part, block: int, seed: int, big: float) -> Bench:
    """The first outputs of a layer of MiniLM, its largest weight made larger."""
    whole = layer_work("minilm", block, PARTS["minilm"][part], seed=seed)
    weight = whole.weight(NAME)[:OUTPUTS].clone()
    weight.view(-1)[weight.abs().argmax()] *= big
    inputs = torch.cat([call.hidden.flatten(0, -2) for call in whole.calls])
    return Bench.of(weight, inputs, FITTED, f"{whole.name}, {OUTPUTS} outputs")


def _nearest_weight(nearest: LearnedRounding) -> Tensor:
    with torch.no_grad():
        found: Tensor = nearest()
    return found


def _race(bench: Bench, nearest: LearnedRounding, traces: dict[Learner, Trace]) -> pd.DataFrame:
    import pandas as pd

    steps = len(next(iter(traces.values())).error)
    lost = bench.lost(_nearest_weight(nearest))
    parts = [pd.DataFrame({"method": "rtn", "step": np.arange(steps), "error": lost})]
    parts += [
        pd.DataFrame({"method": key, "step": np.arange(steps), "error": trace.error.astype(float)})
        for key, trace in traces.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _methods(bench: Bench, nearest: LearnedRounding, traces: dict[Learner, Trace]) -> pd.DataFrame:
    import pandas as pd

    rounded = {"rtn": _nearest_weight(nearest)} | {key: trace.rounded for key, trace in traces.items()}
    moves = {"rtn": np.zeros(1, int)} | {key: np.abs(trace.move) for key, trace in traces.items()}
    rows = [
        (
            key,
            bench.lost(rounded[key]),
            bench.lost(rounded[key], held=True),
            float((moves[key] > 0).mean()),
            float((moves[key] >= NEAR).mean()),
            int(moves[key].max()),
        )
        for key in rounded
    ]
    return pd.DataFrame(rows, columns=["method", "error", "held_out", "moved", "far", "farthest"])


def _deciles(bench: Bench, key: str, trace: Trace) -> pd.DataFrame:
    import pandas as pd

    moves = np.abs(trace.move).reshape(-1)[bench.order.numpy()]
    sizes = bench.weight.abs().flatten()[bench.order].numpy()
    rows = [
        (key, place, float(size.mean()), float(move.mean()), float((move >= NEAR).mean()))
        for place, (size, move) in enumerate(
            zip(np.array_split(sizes, 10), np.array_split(moves, 10), strict=True), start=1
        )
    ]
    return pd.DataFrame(rows, columns=["method", "decile", "size", "mean", "far"])
