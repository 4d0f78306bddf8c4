"""A long run in its thread: it answers, can be stopped, is given up with its reader, and fails in one sentence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from ui import jobs
from ui.jobs import Job, sentence


def endless(progress: Callable[..., None]) -> None:
    while True:
        progress(0.5, "working", partial="half")
        time.sleep(0.005)


def test_it_answers() -> None:
    def work(progress: Callable[..., None]) -> int:
        progress(0.25, "a quarter")
        return 42

    job = Job(work)
    assert job.wait(10) and job.result == 42 and not job.trouble and job.note == "a quarter"


def test_stop_ends_it_at_its_next_sign_of_life() -> None:
    job = Job(endless)
    while job.partial is None:
        time.sleep(0.005)
    job.stop()
    assert job.wait(10) and job.result is None and job.trouble.startswith("Stopped")
    assert job.partial == "half" and job.fraction == 0.5


def test_it_is_given_up_when_its_reader_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ABANDONED_SECONDS", 0.05)
    assert Job(endless, alive=lambda: False).wait(10)
    watched = Job(endless, alive=lambda: True)
    assert not watched.wait(0.2)
    watched.stop()
    assert watched.wait(10)


def test_it_is_given_up_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_SECONDS", 0.05)
    assert Job(endless).wait(10)


def test_only_two_work_at_once() -> None:
    gate, busy, most = threading.Event(), [], []

    def work(progress: Callable[..., None]) -> None:
        busy.append(1)
        most.append(len(busy))
        gate.wait(10)
        busy.pop()

    several = [Job(work) for _ in range(4)]
    time.sleep(0.05)
    assert len(busy) == 2 and several[3].note == "waiting for its turn"
    gate.set()
    assert all(job.wait(10) for job in several) and max(most) <= 2


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("rho: must lie in (0, 1]"), "rho: must lie in (0, 1]."),
        (KeyError("x"), "The run failed with KeyError: 'x'."),
        (MemoryError(), "The run failed with MemoryError."),
        (ValueError(""), "The run failed with ValueError."),
        (RuntimeError("first\nsecond"), "The run failed with RuntimeError: first."),
    ],
)
def test_every_error_becomes_one_sentence(error: Exception, says: str) -> None:
    def work(progress: Any) -> None:
        raise error

    job = Job(work)
    assert job.wait(10) and job.trouble == says == sentence(error)
