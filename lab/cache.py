"""What experiments share is computed once: a cache for many threads that remembers which assets the computing opened."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, ParamSpec, TypeVar

from lab import provenance

P = ParamSpec("P")
T = TypeVar("T")


class Cached(Generic[P, T]):
    """A function whose answers are kept, the least recently used going first; see `cached`."""

    def __init__(self, function: Callable[P, T], maxsize: int | None) -> None:
        functools.update_wrapper(self, function)
        self._function, self._maxsize = function, maxsize
        self._answers: OrderedDict[Hashable, tuple[T, dict[str, str]]] = OrderedDict()
        self._computing: dict[Hashable, threading.RLock] = {}
        self._lock = threading.Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        key: Hashable = (args, tuple(sorted(kwargs.items())))
        with self._lock:
            answer = self._look_up(key)
            turn = self._computing.setdefault(key, threading.RLock()) if answer is None else None
        if turn is not None:
            with turn:  # one thread computes; the others wait and find its answer
                with self._lock:
                    answer = self._look_up(key)
                if answer is None:
                    answer = self._compute(key, *args, **kwargs)
        assert answer is not None
        for name, checksum in answer[1].items():
            provenance.note_opened(name, checksum)
        return answer[0]

    def _look_up(self, key: Hashable) -> tuple[T, dict[str, str]] | None:
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def _compute(self, key: Hashable, *args: P.args, **kwargs: P.kwargs) -> tuple[T, dict[str, str]]:
        try:
            with provenance.opened_files() as opened:
                answer = (self._function(*args, **kwargs), opened)
            with self._lock:
                self._answers[key] = answer
                while self._maxsize is not None and len(self._answers) > self._maxsize:
                    self._answers.popitem(last=False)
        finally:
            with self._lock:
                self._computing.pop(key, None)
        return answer

    def cache_clear(self) -> None:
        """Forget all answers."""
        with self._lock:
            self._answers.clear()


def cached(maxsize: int | None = 8) -> Callable[[Callable[P, T]], Cached[P, T]]:
    """Keep a function's last `maxsize` answers (None: all), for all threads; arguments must be hashable.

    As `functools.lru_cache`, and besides: equal arguments asked for by several threads at once are computed once; a call
    that fails leaves nothing; and the assets and corpora that the computing opened count as opened by everybody who is
    handed the answer, so that records name them.

    >>> @cached(maxsize=2)
    ... def square(x: int) -> int:
    ...     print("computing")
    ...     return x * x
    >>> square(3), square(3)
    computing
    (9, 9)
    """
    return lambda function: Cached(function, maxsize)
