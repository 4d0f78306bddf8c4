"""Damaged files for the readers of `lab.files`, and the memory that reading one may take.

`make test` tries 150 mutants of each format, `make fuzz` 1,000.
"""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FUZZ = settings(
    max_examples=int(os.environ.get("LAB_FUZZ", "150")),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "insert", "delete", "cut", "copy"]), st.floats(0, 1), st.integers(0, 255)
    ),
    min_size=1,
    max_size=4,
)


def mutant(data: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    """The file after some edits: of a kind, at a place between 0 (its begin) and 1 (its end), with a byte."""
    changed = bytearray(data)
    for kind, where, byte in edits:
        at = min(int(where * len(changed)), len(changed) - 1)
        if at < 0:
            break
        if kind == "flip":
            changed[at] ^= 1 << byte % 8
        elif kind == "set":
            changed[at] = byte
        elif kind == "insert":
            changed[at:at] = bytes([byte])
        elif kind == "delete":
            del changed[at : at + 1 + byte % 8]
        elif kind == "cut":
            del changed[at:]
        else:
            changed[at:at] = changed[at : at + byte]
    return bytes(changed)


def patched(archive: bytes, *, size: int | None = None, flags: int | None = None, method: int | None = None) -> bytes:
    """The archive of one member with other values in its directory entry and its local header."""
    data = bytearray(archive)
    entry = data.rindex(b"PK\1\2")
    for value, at, kind in ((size, 24, "<L"), (flags, 8, "<H"), (method, 10, "<H")):
        if value is not None:
            struct.pack_into(kind, data, entry + at, value)
    return bytes(data)


@contextmanager
def peak_below(mib: float) -> Iterator[None]:
    """The block may allocate so many MiB at once."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mib * 2**20, f"peak {peak / 2**20:.1f} MiB"
