"""Races compare like with like: equal results, and rows that say what was raced."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from lab.quantization import races
from lab.quantization.flexround.races import flexround_iteration
from lab.quantization.pb_llm.races import pb_gptq
from lab.quantization.ptq1_61.races import ptq_step
from lab.racing import answer, paired


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(races, "THREADS", 1)
    monkeypatch.setattr(races, "QUICK", 1)
    monkeypatch.setattr(races, "STEPS", 2)


def test_pb_gptq_is_the_published_loop() -> None:
    for row in pb_gptq(quick=True)["rows"]:
        assert row["entries_apart"] <= row["entries"] * 1e-5 and set(row["ratio"]) == {"median", "min", "max"}
        assert row["target"] == 2.0 and row["ratio"]["min"] > 0


def test_ptq_steps_end_in_the_same_losses() -> None:
    found = ptq_step(quick=True)
    assert [row["key"] for row in found["rows"]] == ["block-1x48", "block-4x48", "block-8x48"]
    assert all(row["largest_difference"] < 1e-5 for row in found["rows"]) and found["machine"]["cores"] >= 1


def test_flexround_rows_are_quantizers_and_iterations() -> None:
    keys = [row["key"] for row in flexround_iteration(quick=True)["rows"]]
    assert keys == ["quantizers-tensor", "iteration-tensor", "quantizers-row", "iteration-row"]


ALONE = """
import json
from lab.quantization import races
from lab.quantization.tasks import MiniLM
from lab.quantization.baselines import XNOR
races.MiniLM = lambda: MiniLM(count=8)
print(json.dumps(races.whole_models({"one bit": XNOR()})["one bit"]))
"""


def test_a_whole_model_takes_time_and_memory() -> None:
    # In a process of its own: memory that other tests have freed but the process still holds would hide what this takes.
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["seconds"] > 0 and found["model_mib"] == 87 and 0.5 < found["copies"] < 4


def test_paired_takes_turns() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        time.sleep(0.02)

    found = paired(lambda: order.append("fast"), slow, 3)
    assert order == ["fast", "slow"] * 4
    assert found["ratio"]["median"] > 1 and len(found["seconds_peer"]) == 3
    assert answer([], threads=1)["threads"] == 1
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        paired(slow, slow, 0)
