"""Whole models compared: fewer bits cost ability, the bill says how many there were, and stopping works."""

from __future__ import annotations

from typing import Any

import pytest

from lab.experiment import Stopped
from lab.quantization.baselines import RTN
from lab.quantization.comparison import compare, full_precision
from lab.quantization.pb_llm import PBLLM
from lab.quantization.tasks import TASKS, MiniLM, StdlibGPT

SMALL = StdlibGPT(count=8, length=64, stretches=16)


def test_fewer_bits_cost_perplexity() -> None:
    whole = full_precision(SMALL)["perplexity"]
    notes: list[tuple[float, str]] = []
    rows = compare(
        SMALL,
        [RTN(bits=bits) for bits in (8, 4, 2)],
        progress=lambda fraction, note="", partial=None: notes.append((fraction, note)),
    )
    found = [row.metrics["perplexity"] for row in rows]
    assert found == sorted(found) and found[0] == pytest.approx(whole, rel=0.01) and found[2] > 1.5 * whole
    assert [round(row.storage.per_weight) for row in rows] == [8, 4, 2]
    assert all(len(row.errors) == 4 and row.seconds > 0 for row in rows)
    assert notes[-1][0] == 1.0 and [fraction for fraction, _ in notes] == sorted(fraction for fraction, _ in notes)
    assert any("round to nearest, 2 bit: transformer.h.3" in note for _, note in notes)


def test_masks_cost_less_at_their_bound() -> None:
    (row,) = compare(SMALL, [PBLLM(low_frac=0.9)])
    assert row.storage.per_weight > row.bound.per_weight > row.storage.per_weight - 0.6
    assert row.storage.mask == row.storage.count


def test_stop_goes_through() -> None:
    def stop(fraction: float, note: str = "", partial: Any = None) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        compare(SMALL, [RTN()], progress=stop)


def test_calibration_is_drawn_by_the_seed_and_never_measured_on() -> None:
    for task in TASKS.values():
        one, again, other = (task.windows(seed) for seed in (0, 0, 1))
        assert one.equal(again) and not one.equal(other)
        batches = task.calibration(0)
        assert sum(len(batch["input_ids"]) for batch in batches) == len(one)
    assert MiniLM(pairs=50, count=4).windows(0).shape == (4, 48)
