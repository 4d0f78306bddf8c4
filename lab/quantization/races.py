"""The quantization papers' races: each method against its published formulation written plainly, at equal results.

float32, on layers and blocks of MiniLM with the calibration the bench gives them. `python -m lab.quantization.races` runs all.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from lab.experiment import Progress, silent
from lab.quantization.bench import BlockWork, Method, quantize_model
from lab.quantization.blocks import find_blocks, first_calls
from lab.quantization.flexround.method import FlexRound
from lab.quantization.flexround.plain import PlainFlexRound
from lab.quantization.flexround.quantizer import FlexRoundQuantizer
from lab.quantization.gptq import DAMPING
from lab.quantization.grid import Per
from lab.quantization.one_layer import NAME, layer_work
from lab.quantization.pb_llm.method import PBLLM
from lab.quantization.pb_llm.plain import plain_pb_gptq
from lab.quantization.ptq1_61.method import PTQ161
from lab.quantization.ptq1_61.plain import PlainPTQ161
from lab.quantization.reconstruction import Fit, LearnedWeight, reconstruct
from lab.quantization.registry import method
from lab.quantization.subjects import MiniLM
from lab.racing import answer, paired

THREADS, REPEATS, QUICK = 2, 9, 3
SCALES: tuple[Per, ...] = ("tensor", "row")
STEPS = 8  # of a fit, in one timed call


def pb_gptq(*, quick: bool = False, progress: Progress = silent) -> dict[str, Any]:
    """PB-GPTQ against the published loop: a layer of 1536 x 384, and q, k and v, which share one factorisation."""
    repeats = QUICK if quick else REPEATS
    with _threads():
        progress(0.0, "a layer of 1536 x 384")
        rows = [_pb_row("layer-1536x384", ("intermediate.dense",), 2.0, repeats)]
        progress(0.5, "q, k and v")
        rows.append(
            _pb_row("qkv-384x384", tuple(f"attention.self.{name}" for name in ("query", "key", "value")), 2.0, repeats)
        )
    return answer(rows, threads=THREADS, whole_minilm={} if quick else whole_models(list(WHOLE)[:2]))


def _pb_row(key: str, layers: tuple[str, ...], target: float, repeats: int) -> dict[str, Any]:
    works = [layer_work("minilm", 2, layer) for layer in layers]
    weights = [work.weight(NAME) for work in works]
    seen = works[0].statistics()[NAME]
    hessian = seen.hessian()
    ours = PBLLM(stats="official")

    def method() -> list[torch.Tensor]:
        seen.forget()
        return [ours.layer(weight, seen).dequantize() for weight in weights]

    def peer() -> list[torch.Tensor]:
        return [plain_pb_gptq(weight, hessian, damping=DAMPING, scale_dtype=torch.float16) for weight in weights]

    apart = max(float((a - b).abs().max()) for a, b in zip(method(), peer(), strict=True))
    differ = sum(int(((a - b).abs() > 1e-5).sum()) for a, b in zip(method(), peer(), strict=True))
    return {
        "key": key,
        "method": "PB-GPTQ",
        "peer": "the published loop",
        "target": target,
        "largest_difference": apart,
        "entries_apart": differ,
        "entries": sum(weight.numel() for weight in weights),
        **paired(method, peer, repeats),
    }


def ptq_step(*, quick: bool = False, progress: Progress = silent) -> dict[str, Any]:
    """A step of PTQ1.61 against the published one, which rounds and takes signs anew: a block of MiniLM, three batch sizes."""
    rows = []
    with _threads():
        for place, batch in enumerate((1, 4, 8)):
            progress(place / 3, f"{batch} x 48 tokens")
            work = _block_work(1, batch)
            runs = {}
            for name, kind in (("method", PTQ161), ("peer", PlainPTQ161)):
                fitted = kind(steps=STEPS)
                runs[name] = _fit_of(work, fitted)
            ours, theirs = runs["method"](), runs["peer"]()
            rows.append(
                {
                    "key": f"block-{batch}x48",
                    "method": "PTQ1.61 step",
                    "peer": "the published step",
                    "target": 1.3,
                    "largest_difference": max(abs(a - b) for a, b in zip(ours, theirs, strict=True)),
                    **paired(runs["method"], runs["peer"], QUICK if quick else REPEATS),
                }
            )
    return answer(rows, threads=THREADS, steps=STEPS)


def _fit_of(work: BlockWork, fitted: PTQ161) -> Callable[[], list[float]]:
    start = fitted.learned(work)

    def run() -> list[float]:
        return fitted.fit(work, copy.deepcopy(start))

    return run


def flexround_iteration(*, quick: bool = False, progress: Progress = silent) -> dict[str, Any]:
    """FlexRound against its formula written plainly: the quantizers with Adam alone, and whole iterations on a block."""
    repeats = QUICK if quick else REPEATS
    rows = []
    with _threads():
        work = _block_work(0, 4)
        for place, per in enumerate(SCALES):
            progress(place / 2, f"a scale for each {per}")
            fitted = FlexRound(per=per, steps=STEPS, init="minmax")
            quantizers: dict[str, dict[str, FlexRoundQuantizer]] = {
                "method": {name: fitted.learned(work.weight(name)) for name in work.layers},
                "peer": {name: PlainFlexRound(work.weight(name), per=per, init="minmax") for name in work.layers},
            }
            ours, plain = quantizers["method"], quantizers["peer"]
            alone = paired(_alone(ours, True), _alone(plain, False), repeats)
            whole = paired(_whole(work, ours, True), _whole(work, plain, False), repeats)
            named = {"method": "FlexRound", "peer": "the formula in autograd, plain Adam"}
            rows.append({"key": f"quantizers-{per}", "target": 2.0, **named, **alone})
            rows.append({"key": f"iteration-{per}", "target": 2.0, **named, **whole})
    return answer(rows, threads=THREADS, steps=STEPS, whole_minilm={} if quick else whole_models(list(WHOLE)[2:]))


def _adam(parts: Mapping[str, LearnedWeight], ours: bool) -> torch.optim.Optimizer:
    learned = [each for part in parts.values() for each in part.parameters() if each.requires_grad]
    return torch.optim.Adam(learned, lr=3e-3, fused=ours)


def _alone(parts: Mapping[str, FlexRoundQuantizer], ours: bool) -> Callable[[], None]:
    optimizer = _adam(parts, ours)
    directions = {name: torch.randn_like(part()) for name, part in parts.items()}

    def run() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            torch.stack([(part() * directions[name]).sum() for name, part in parts.items()]).sum().backward()
            optimizer.step()

    return run


def _whole(work: BlockWork, parts: Mapping[str, FlexRoundQuantizer], ours: bool) -> Callable[[], list[float]]:
    def run() -> list[float]:
        fresh: dict[str, LearnedWeight] = {name: copy.deepcopy(part) for name, part in parts.items()}
        return reconstruct(work, fresh, _adam(fresh, ours), Fit(STEPS, cosine=True))

    return run


WHOLE: dict[str, Method] = {
    "GPTQ, 4 bits": method("gptq"),
    "PB-GPTQ, 10 % salient": method("pb-llm"),
    "FlexRound, 4 bits, 200 steps a block": method("flexround", steps=200),
}


def whole_models(names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Seconds that whole MiniLM takes, calibration included, and the memory beyond the model itself, at its peak and as
    copies of the model: an order of magnitude, no race."""
    subject = MiniLM()
    model = subject.model()
    size = sum(part.numel() * part.element_size() for part in model.parameters())
    found = {}
    with _threads():
        for name in names:
            with _Peak() as peak:
                start = time.perf_counter()
                quantize_model(model, WHOLE[name], subject.calibration(0))
                seconds = time.perf_counter() - start
            found[name] = {
                "seconds": round(seconds, 2),
                "peak_mib": round(peak.most / 2**20),
                "model_mib": round(size / 2**20),
                "copies": round(peak.most / size, 2),
            }
    return found


class _Peak:
    """Watches the resident memory of this process; ``most`` bytes above where it began. 0 where the system does not say."""

    most = 0

    def __enter__(self) -> _Peak:
        self._began, self._done = _resident(), threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, _resident() - self._began)


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _block_work(block: int, batch: int) -> BlockWork:
    """A block of MiniLM on the full-precision stream, calibration in batches of ``batch`` windows."""
    subject = MiniLM(count=32)
    model = subject.model()
    inputs = [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in subject.windows(0).split(batch)]
    blocks = find_blocks(model)[1]
    calls = first_calls(model, inputs)
    with torch.no_grad():
        for before in blocks[:block]:
            calls = [call.after(call.run(before)) for call in calls]
    full = copy.deepcopy(blocks[block])
    return BlockWork(f"encoder.layer.{block}", full, copy.deepcopy(full), calls, calls)


class _threads:
    """Torch and BLAS use `THREADS` threads inside, as before outside."""

    def __enter__(self) -> None:
        self._limits, self._before = threadpool_limits(THREADS), torch.get_num_threads()
        torch.set_num_threads(THREADS)

    def __exit__(self, *_: object) -> None:
        self._limits.restore_original_limits()
        torch.set_num_threads(self._before)


def main() -> None:
    """Run every race and print the figures."""
    quick = "--quick" in sys.argv

    def say(fraction: float, note: str = "", partial: Any | None = None) -> None:
        print(f"{fraction:4.0%} {note}", file=sys.stderr)

    found: dict[str, Any] = {
        race.__name__: race(quick=quick, progress=say) for race in (pb_gptq, ptq_step, flexround_iteration)
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
