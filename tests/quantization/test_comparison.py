"""Whole models compared: fewer bits cost ability, the bill says how many there were, and stopping works."""

from __future__ import annotations

from typing import Any

import pytest

from lab.experiment import Stopped
from lab.quantization.comparison import compare, full_precision
from lab.quantization.registry import method
from lab.quantization.subjects import SUBJECTS, MiniLM, StdlibGPT

SMALL = StdlibGPT(count=8, length=64, stretches=16)


def test_fewer_bits_cost_perplexity() -> None:
    whole = full_precision(SMALL)["perplexity"]
    notes: list[tuple[float, str]] = []
    rows = compare(
        SMALL,
        [method("rtn", bits=bits) for bits in (8, 4, 2)],
        progress=lambda fraction, note="", partial=None: notes.append((fraction, note)),
    )
    found = [row.metrics["perplexity"] for row in rows]
    assert found == sorted(found) and found[0] == pytest.approx(whole, rel=0.01) and found[2] > 1.5 * whole
    assert [round(row.bill.per_weight) for row in rows] == [8, 4, 2]
    assert all(len(row.errors) == 4 and row.seconds > 0 for row in rows)
    assert notes[-1][0] == 1.0 and [fraction for fraction, _ in notes] == sorted(fraction for fraction, _ in notes)
    assert any("round to nearest, 2 bit: transformer.h.3" in note for _, note in notes)


def test_masks_cost_less_at_their_bound() -> None:
    (row,) = compare(SMALL, [method("pb-llm", low_frac=0.9)])
    assert row.bill.per_weight > row.bound.per_weight > row.bill.per_weight - 0.6
    assert row.bill.mask == row.bill.count


def test_stop_goes_through() -> None:
    def stop(fraction: float, note: str = "", partial: Any = None) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        compare(SMALL, [method("rtn")], progress=stop)


def test_calibration_is_drawn_by_the_seed_and_never_measured_on() -> None:
    for subject in SUBJECTS.values():
        one, again, other = (subject.windows(seed) for seed in (0, 0, 1))
        assert one.equal(again) and not one.equal(other)
        batches = subject.calibration(0)
        assert sum(len(batch["input_ids"]) for batch in batches) == len(one)
    assert MiniLM(pairs=50, count=4).windows(0).shape == (4, 48)
