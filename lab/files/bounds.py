"""How a file from outside is let in: size bounded, name only ever shown, a library's complaint made one sentence."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable


class FileError(ValueError):
    """What is wrong with a file that a user brought, in one sentence that says what would be right.

    >>> str(FileError("'my.csv': the file is empty"))
    "'my.csv': the file is empty"
    """


@dataclass(frozen=True)
class Limits:
    """What a file may hold: bytes (as stored, and again unpacked), rows, and feature columns.

    >>> Limits(max_rows=100).max_columns
    512
    """

    max_bytes: int = 256 * 2**20
    max_rows: int = 50_000
    max_columns: int = 512


LIMITS = Limits()


@runtime_checkable
class Stream(Protocol):
    """An open binary stream: what `open(path, "rb")`, `io.BytesIO` and an upload are.

    >>> import io
    >>> isinstance(io.BytesIO(), Stream)
    True
    """

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...
    def seekable(self) -> bool: ...


Source = Path | str | bytes | Stream


def shown(text: object, width: int = 60) -> str:
    """`text` quoted for a message: cut to `width` characters, everything unprintable escaped.

    >>> shown("a" * 99, width=5), shown("tab\\there")
    ("'aaaaa...'", "'tab\\\\there'")
    """
    text = str(text)
    return repr(text if len(text) <= width else text[:width] + "...")


@contextmanager
def malformed(kind: str, remedy: str, *errors: type[Exception]) -> Iterator[None]:
    """Around library calls that read a file of `kind`: the `errors` a bad file provokes become one `FileError`.

    >>> with malformed("npz", "save it again", EOFError):
    ...     raise EOFError("no data left")
    Traceback (most recent call last):
    lab.files.bounds.FileError: not readable as npz (EOFError: no data left); save it again
    """
    try:
        yield
    except FileError:
        raise
    except errors as error:
        said = " ".join(shown(error, width=120)[1:-1].split())
        raise FileError(f"not readable as {kind} ({type(error).__name__}: {said}); {remedy}") from error


def content(source: Source, name: str | None, limits: Limits) -> tuple[bytes, str]:
    """The file's bytes, at most `limits.max_bytes` of them, and its name as messages show it.

    Raises `FileError` for what cannot be opened, is empty or too large, `TypeError` for what is no binary source.

    >>> content(b"1,2", "../../etc/passwd", LIMITS)
    (b'1,2', "'../../etc/passwd'")
    """
    if name is None:
        name = Path(source).name if isinstance(source, (str, Path)) else getattr(source, "name", None)
    title = shown(name) if isinstance(name, str) else "the file"
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, (str, Path)):
        data = _from_path(Path(source), title, limits)
    elif isinstance(source, Stream):
        data = _from_stream(source, limits)
    else:
        raise TypeError(f"source must be a path, bytes or an open binary stream, not {type(source).__name__}")
    if not data:
        raise FileError(f"{title}: the file is empty")
    if len(data) > limits.max_bytes:
        raise _too_large(title, limits, f"{len(data):,} bytes" if isinstance(source, bytes) else "more")
    return data, title


def _from_path(path: Path, title: str, limits: Limits) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would never end
            raise FileError(f"{title}: this is no regular file but a folder, a pipe or a device")
        if status.st_size > limits.max_bytes:
            raise _too_large(title, limits, f"{status.st_size:,} bytes")
        with path.open("rb") as stream:
            return stream.read(limits.max_bytes + 1)  # it may have grown since
    except OSError as error:
        raise FileError(f"{title}: cannot be opened ({error.strerror})") from error
    except ValueError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{title}: cannot be a path ({error})") from error  # a NUL byte


def _from_stream(stream: Stream, limits: Limits) -> bytes:
    if stream.seekable():
        stream.seek(0)
    parts: list[bytes] = []
    room = limits.max_bytes + 1
    while room > 0 and (part := stream.read(room)):
        if not isinstance(part, bytes):
            raise TypeError("source must be open in binary mode: open(path, 'rb')")
        parts.append(part)
        room -= len(part)
    return b"".join(parts)


def _too_large(title: str, limits: Limits, found: str) -> FileError:
    return FileError(f"{title}: a file may have at most {limits.max_bytes / 2**20:.4g} MiB, and this one has {found}")
