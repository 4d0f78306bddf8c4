"""A long run in a thread of its own: it has progress, can be stopped, survives a moving knob, ends with its reader."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from lab.experiment import Stopped

MAX_SECONDS = 3600.0
ABANDONED_SECONDS = 120.0
_SLOTS = threading.Semaphore(2)


class Job:
    """`work(progress)` in a daemon thread, at most two jobs at once.

    work   calls progress(fraction, note, partial) now and then; that is where a stop takes effect
    alive  False once nobody can see the outcome; the job ends when that has lasted ABANDONED_SECONDS

    >>> job = Job(lambda progress: 6 * 7)
    >>> job.wait(10), job.result, job.trouble
    (True, 42, '')
    """

    def __init__(self, work: Callable[[Any], Any], *, alive: Callable[[], bool] = lambda: True) -> None:
        self.fraction, self.note, self.partial = 0.0, "waiting for its turn", None
        self.result: Any = None
        self.trouble = ""
        self.began = time.monotonic()
        self._last_seen = self.began
        self._alive = alive
        self._stop, self._done = threading.Event(), threading.Event()
        threading.Thread(target=self._run, args=(work,), daemon=True, name="lab-job").start()

    def stop(self) -> None:
        """Ask it to end; it does at its next progress call."""
        self._stop.set()

    @property
    def done(self) -> bool:
        """It ended, well or not."""
        return self._done.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it ended; False when that took longer."""
        return self._done.wait(seconds)

    @property
    def seconds(self) -> float:
        """Since it was asked for."""
        return time.monotonic() - self.began

    def _progress(self, fraction: float, note: str = "", partial: Any | None = None) -> None:
        now = time.monotonic()
        if self._alive():
            self._last_seen = now
        if self._stop.is_set() or now - self._last_seen > ABANDONED_SECONDS or now - self.began > MAX_SECONDS:
            raise Stopped
        self.fraction, self.note = min(max(fraction, 0.0), 1.0), note
        self.partial = self.partial if partial is None else partial

    def _run(self, work: Callable[[Any], Any]) -> None:
        self.trouble = "The run ended without an answer."
        try:
            with _SLOTS:
                self._progress(0.0, "starting")
                self.result = work(self._progress)
                self.trouble = ""
        except Stopped:
            self.trouble = "Stopped; nothing was kept of this run."
        except Exception as error:
            logging.getLogger("lab").warning("a run failed", exc_info=error)
            self.trouble = sentence(error)
        finally:
            self._done.set()


def sentence(error: BaseException) -> str:
    """An error in one sentence; our own kinds (ValueError, OSError) explain themselves, others are named too."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    if isinstance(error, ValueError | OSError) and first:
        return first if first.endswith((".", "!", "?")) else f"{first}."
    return f"The run failed with {type(error).__name__}{f': {first}' if first else ''}."
