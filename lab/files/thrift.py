"""Thrift's compact protocol, as much of it as parquet's headers use: structs, lists, integers, bytes; nothing trusted.

Stricter than the readers behind it, so that nothing is read here one way and there another: a field that occurs twice,
an integer too wide for its type and a map are refused.
"""

from __future__ import annotations

_DEPTH = 10  # a parquet footer nests 7 deep


class ThriftError(ValueError):
    """These bytes are no struct in the compact protocol, or hold more values than the reader's budget."""


class Compact:
    """Reads structs from `data[at:end]` as {field: value}; `at` is where the next one begins.

    `budget` bounds the values that all structs together may hold, and so the memory.

    >>> reader = Compact(bytes([0x15, 20, 0x18, 2, 97, 98, 0]), 0, 7, budget=9)
    >>> reader.struct(), reader.at
    ({1: 10, 2: b'ab'}, 7)
    """

    def __init__(self, data: bytes, at: int, end: int, budget: int) -> None:
        self.data, self.at, self.end, self.budget = data, at, min(end, len(data)), budget

    def struct(self, depth: int = 0) -> dict[int, object]:
        """The struct at `at`; raises `ThriftError`."""
        fields: dict[int, object] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._integer(2**16)
            if field in fields or not 0 < field < 2**15:
                raise ThriftError(f"field {field} is out of order")
            kind = head & 0x0F
            fields[field] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> object:
        self.budget -= 1
        if self.budget < 0 or depth > _DEPTH:
            raise ThriftError("it holds too many values or nests too deep")
        if kind in (1, 2, 3):  # in a list, a boolean is a byte
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer(2 ** {4: 16, 5: 32, 6: 64}[kind])
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._varint(2**32))
        if kind == 9:
            return self._list(depth)
        if kind == 12:
            return self.struct(depth)
        raise ThriftError(f"it holds a value of kind {kind}")

    def _list(self, depth: int) -> list[object]:
        head = self._byte()
        length = self._varint(2**32) if head >> 4 == 15 else head >> 4
        return [self._value(head & 0x0F, depth + 1) for _ in range(length)]

    def _byte(self) -> int:
        if self.at >= self.end:
            raise ThriftError("it ends early")
        self.at += 1
        return self.data[self.at - 1]

    def _bytes(self, length: int) -> bytes:
        if length > self.end - self.at:
            raise ThriftError("it ends early")
        self.at += length
        return self.data[self.at - length : self.at]

    def _varint(self, bound: int) -> int:
        value = shift = 0
        while (byte := self._byte()) >= 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ThriftError("an integer does not end")
        value |= byte << shift
        if value >= bound:
            raise ThriftError("an integer is too wide")
        return value

    def _integer(self, bound: int) -> int:
        value = self._varint(bound)
        return (value >> 1) ^ -(value & 1)
