"""Experiment `rounding`: learned rounding under the lens, every step of it, on a part of one real layer.

Four methods are fitted side by side to the same inputs. Each of their steps is written down as `reconstruct` takes it: where
a weight stands between the grid's points, which point it would be stored as, what its gradient is, and what the layer's
output has lost by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from lab.cache import cached
from lab.experiment import Config, Progress, experiment, knob
from lab.quantization.flexround.method import FlexRound
from lab.quantization.flexround.trace import FOLLOWED, LayerData, Trace, follow
from lab.quantization.flexround.tuned import ROUNDING, STEPS
from lab.quantization.grid import Init
from lab.quantization.layer_experiment import PARTS
from lab.quantization.one_layer import NAME, layer_inputs
from lab.quantization.rounding import AdaQuant, AdaRound, LearnedRounding, RoundingMethod, SignRound

if TYPE_CHECKING:
    import pandas as pd

Part = Literal["query", "attention out", "mlp in"]
Learner = Literal["flexround", "adaround", "adaquant", "signround"]
FITTED_BY: dict[Learner, type[RoundingMethod]] = {
    "flexround": FlexRound,
    "adaround": AdaRound,
    "adaquant": AdaQuant,
    "signround": SignRound,
}
TITLES = {
    "rtn": "round to nearest",
    "flexround": "FlexRound",
    "adaround": "AdaRound",
    "adaquant": "AdaQuant",
    "signround": "SignRound",
}
OUTPUTS, FITTED = 128, 2304  # of the layer that are fitted; tokens that calibrate, the others are held out
SCATTERED = 2001  # weights whose move is kept, evenly by size
NEAR = 2  # grid points from which a move counts as far


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
    weight: the one weight; place, code (T + 1,) its W / S and its point; step (T + 1,) the grid's; gradient
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


@experiment("rounding", "Rounding under the lens", cost="live", small={"steps": 4})
def rounding(config: RoundingConfig, *, progress: Progress) -> RoundingResult:
    """Fit the four methods, or take the fits that are kept; look at the chosen one closely."""
    import pandas as pd

    layer = _layer_data(config.part, config.block, config.seed, config.big)
    traces: dict[Learner, Trace] = {}
    for number, key in enumerate(FITTED_BY):
        progress(number / len(FITTED_BY), TITLES[key])
        traces[key] = _trace(*_settings(config, key))
    one, weight = traces[config.method], layer.weight
    start = one.final - one.move  # where rounding to nearest puts them
    nearest = FlexRound(bits=config.bits, per=config.per, init=config.init).learned(weight)
    zero = nearest.zero.expand_as(nearest.steps).flatten()
    low, high = int(-zero.max()), int(nearest.top - zero.min())
    points = np.arange(low, high + 1)
    lens = round(config.weight / 100 * (one.position.shape[1] - 1))
    some, many = layer.evenly(FOLLOWED), layer.evenly(SCATTERED)
    flat = int(some[lens])
    progress(1.0, "done")
    return RoundingResult(
        method=config.method,
        title=TITLES[config.method],
        layer=f"{config.part}, block {config.block} of MiniLM",
        bits=config.bits,
        low=low,
        high=high,
        race=_race(layer, nearest, traces),
        methods=_methods(layer, nearest, traces),
        weight=float(weight.flatten()[flat]),
        place=one.position[:, lens],
        code=one.code[:, lens],
        step=one.step[:, lens],
        gradient=one.gradient[:, lens],
        sizes=nearest.steps.flatten()[some].numpy(),
        places=one.position,
        codes=one.code.astype(np.int16),
        scatter_size=weight.abs().flatten()[many].numpy(),
        scatter_move=one.move.reshape(-1)[many.numpy()].astype(np.int16),
        deciles=pd.concat([_deciles(layer, key, trace) for key, trace in traces.items()], ignore_index=True),
        points=points,
        before=np.array([(start == point).sum() for point in points]),
        after=np.array([(one.final == point).sum() for point in points]),
    )


def _settings(config: RoundingConfig, key: Learner) -> tuple[RoundingConfig, Learner]:
    """What a method's fit depends on: the other knobs at their defaults, so that moving them fits nothing anew."""
    idle = ("weight", "method") if key == "flexround" else ("weight", "method", "learn_s1", "use_s3", "optimizer")
    return config.model_copy(update={name: RoundingConfig.model_fields[name].default for name in idle}), key


@cached(maxsize=24)
def _trace(config: RoundingConfig, key: Learner) -> Trace:
    sgd = key == "flexround" and config.optimizer == "sgd"
    settings: dict[str, Any] = dict(ROUNDING["flexround, sgd" if sgd else key])
    settings["lr"] *= config.rate * (STEPS / max(config.steps, 1) if key == "signround" else 1.0)
    if key == "flexround":
        settings |= {"learn_s1": config.learn_s1, "use_s3": config.use_s3}
    fitted = FITTED_BY[key](
        bits=config.bits, per=config.per, steps=config.steps, init=config.init, seed=config.seed, **settings
    )
    layer = _layer_data(config.part, config.block, config.seed, config.big)
    return follow(layer, fitted, sgd=sgd)


@cached(maxsize=8)
def _layer_data(part: Part, block: int, seed: int, big: float) -> LayerData:
    """The first outputs of a layer of MiniLM, its largest weight made larger."""
    whole = layer_inputs("minilm", block, PARTS["minilm"][part], seed=seed)
    weight = whole.weight(NAME)[:OUTPUTS].clone()
    weight.view(-1)[weight.abs().argmax()] *= big
    inputs = torch.cat([call.hidden.flatten(0, -2) for call in whole.calls])
    return LayerData.of(weight, inputs, FITTED, f"{whole.name}, {OUTPUTS} outputs")


def _nearest_weight(nearest: LearnedRounding) -> Tensor:
    with torch.no_grad():
        rounded: Tensor = nearest()
    return rounded


def _race(layer: LayerData, nearest: LearnedRounding, traces: dict[Learner, Trace]) -> pd.DataFrame:
    import pandas as pd

    steps = len(next(iter(traces.values())).error)
    lost = layer.lost(_nearest_weight(nearest))
    curves = [pd.DataFrame({"method": "rtn", "step": np.arange(steps), "error": lost})]
    curves += [
        pd.DataFrame({"method": key, "step": np.arange(steps), "error": trace.error.astype(float)})
        for key, trace in traces.items()
    ]
    return pd.concat(curves, ignore_index=True)


def _methods(layer: LayerData, nearest: LearnedRounding, traces: dict[Learner, Trace]) -> pd.DataFrame:
    import pandas as pd

    rounded = {"rtn": _nearest_weight(nearest)} | {key: trace.rounded for key, trace in traces.items()}
    moves = {"rtn": np.zeros(1, int)} | {key: np.abs(trace.move) for key, trace in traces.items()}
    rows = [
        (
            key,
            layer.lost(rounded[key]),
            layer.lost(rounded[key], held=True),
            float((moves[key] > 0).mean()),
            float((moves[key] >= NEAR).mean()),
            int(moves[key].max()),
        )
        for key in rounded
    ]
    return pd.DataFrame(rows, columns=["method", "error", "held_out", "moved", "far", "farthest"])


def _deciles(layer: LayerData, key: str, trace: Trace) -> pd.DataFrame:
    import pandas as pd

    moves = np.abs(trace.move).reshape(-1)[layer.order.numpy()]
    sizes = layer.weight.abs().flatten()[layer.order].numpy()
    rows = [
        (key, decile, float(size.mean()), float(move.mean()), float((move >= NEAR).mean()))
        for decile, (size, move) in enumerate(
            zip(np.array_split(sizes, 10), np.array_split(moves, 10), strict=True), start=1
        )
    ]
    return pd.DataFrame(rows, columns=["method", "decile", "size", "mean", "far"])
