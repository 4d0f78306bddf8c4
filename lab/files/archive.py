"""Zip archives in memory: what a member may cost is known before it is unpacked, and nothing is ever written to disk.

The directory at a zip's end makes claims about each member. All of them are checked against the limits and against the
file's true bytes first; while unpacking, a member gets the room that its claim says and a checksum that it must meet.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
import zlib

from lab.files.bounds import FileError, Limits, Source, content, malformed, shown

ZIP_LIMITS = Limits(max_bytes=128 * 2**20)
MEMBER_BYTES = 64 * 2**20
MAX_MEMBERS = 4096
ENTRY_BYTES = 1024  # of the directory, for each member allowed: zipfile builds an object for every >= 46 bytes of it
INFLATION = 1032  # deflate cannot expand further
CHUNK = 2**18
REMEDY = "zip the files again, without a password"
# What zipfile raises on bytes that are no archive.
BAD_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, NotImplementedError)
_DRIVE = re.compile("[A-Za-z]:")


def read_zip(source: Source, *, name: str | None = None, limits: Limits = ZIP_LIMITS) -> dict[str, bytes]:
    """The files in a zip archive as {name: bytes}, in the archive's order; all of them, or none if one is unsound.

    `source` is a path, the archive's bytes, or an open binary stream; `name` serves messages only. Folders are left
    out, and so is `__MACOSX/`, which macOS adds unasked; "/" separates folders in names. A zip in the zip is bytes as
    any other file. At most 4,096 members are read, of at most 64 MiB each and `limits.max_bytes` together. Memory:
    the archive, what it unpacks to, its largest member once more, and 16 MiB.

    Raises `FileError` for what is malformed, over a limit, encrypted, or packed otherwise than by deflate; for two
    members of one name or over the same bytes; for links and devices; for a name that would leave the folder it is
    unpacked in; and for bytes before or behind the archive. `TypeError` when `source` is none of the three.

    >>> with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
    ...     archive.writestr("notes/a.txt", "hello")
    >>> read_zip(file)
    {'notes/a.txt': b'hello'}
    """
    data, title = content(source, name, limits)
    try:
        archive = open_archive(data, "zip", REMEDY, MAX_MEMBERS, limits)
        for info in archive.infolist():
            _check_file(info)
        files = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
        with malformed("zip", REMEDY, *BAD_ZIP):
            return {info.filename: bytes(unpack(archive, info)) for info in files}
    except FileError as error:
        raise FileError(f"{title}: {error}") from error


def open_archive(data: bytes, kind: str, remedy: str, members: int, limits: Limits) -> zipfile.ZipFile:
    """The archive, once its directory is known to be small, and to claim no more than the limits and the file allow.

    Only the plain layout is let in: one directory, right before the end record, and no zip64; so that the record read
    here is the one that zipfile will go by. `kind` and `remedy` are for the messages. Raises `FileError`.

    >>> with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
    ...     archive.writestr("a.txt", "hello")
    >>> open_archive(file.getvalue(), "zip", "zip it again", 1, ZIP_LIMITS).namelist()
    ['a.txt']
    """
    at = len(data) - 22
    if data[at : at + 4] != b"PK\5\6" or data[-2:] != b"\0\0":  # as zipfile looks for it: there may be a comment behind
        at = data.rfind(b"PK\5\6", max(0, at - 2**16))
    if at < 0 or len(data) < at + 22 or len(data) != at + 22 + int.from_bytes(data[at + 20 : at + 22], "little"):
        raise FileError(f"not readable as {kind}: the zip archive's end is missing, is it cut off?; {remedy}")
    if data[max(0, at - 20) : at][:4] == b"PK\6\7":
        raise FileError(f"{kind} archives in the zip64 layout (over 4 GiB, or over 65,535 members) are not read")
    count, size, offset = struct.unpack("<HLL", data[at + 10 : at + 20])
    if count > members or size > ENTRY_BYTES * members:
        raise FileError(f"an archive may have at most {members:,} members, and this one has {count:,}")
    if offset + size != at:
        raise FileError(
            f"not readable as {kind}: other bytes stand before the archive or behind its directory; {remedy}"
        )
    with malformed(kind, remedy, *BAD_ZIP):
        archive = zipfile.ZipFile(io.BytesIO(data))
        _check_claims(archive.infolist(), len(data), remedy, members, limits)
        _check_places(archive.infolist(), data, offset, remedy)
    return archive


def unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, start: int = 0) -> bytearray:
    """The member's bytes from `start` on, in the room that the directory accounts for and no more.

    Raises what zipfile does, one of `BAD_ZIP`, for a member that ends early, is longer, or fails its checksum.

    >>> with zipfile.ZipFile(io.BytesIO(), "w") as archive:
    ...     archive.writestr("a.txt", "hello")
    ...     unpack(archive, archive.getinfo("a.txt"), start=1)
    bytearray(b'ello')
    """
    room = bytearray(info.file_size - start)
    at = 0
    with archive.open(info) as stream, memoryview(room) as view:
        stream.read(start)
        while part := stream.read(CHUNK):  # in chunks: zipfile would join thousands of small pieces in one long read
            view[at : at + len(part)] = part
            at += len(part)
    if at < len(room):
        raise EOFError(f"member {info.filename} ends early")
    return room


def _check_claims(infos: list[zipfile.ZipInfo], stored: int, remedy: str, members: int, limits: Limits) -> None:
    if len(infos) > members:
        raise FileError(f"an archive may have at most {members:,} members, and this one has {len(infos):,}")
    if len({info.filename for info in infos}) < len(infos):
        raise FileError(f"two members of the archive have the same name; {remedy}")
    for info in infos:
        if info.flag_bits & 0x1:
            raise FileError(f"the member {shown(info.filename)} is encrypted; {remedy}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FileError(f"the member {shown(info.filename)} is not packed with deflate; {remedy}")
    total = sum(info.file_size for info in infos)
    if total > limits.max_bytes:
        raise FileError(
            f"a file may unpack to at most {limits.max_bytes / 2**20:.4g} MiB, and this one declares "
            f"{total / 2**20:,.0f} MiB"
        )
    for info in infos:
        if info.file_size > INFLATION * (min(info.compress_size, stored) + 1):
            raise FileError(f"the member {shown(info.filename)} declares more than its bytes can hold; {remedy}")


def _check_places(infos: list[zipfile.ZipInfo], data: bytes, directory: int, remedy: str) -> None:
    """Refuse members that share bytes with each other or the directory: a few bytes that unpack many times over."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
        if info.header_offset < end:
            raise FileError(f"the member {shown(info.filename)} lies over the one before it; {remedy}")
        end = info.header_offset + 30 + name + extra + info.compress_size
        if end > directory:
            raise FileError(f"the member {shown(info.filename)} lies over the archive's directory; {remedy}")


def _check_file(info: zipfile.ZipInfo) -> None:
    for name in {info.filename, info.orig_filename}:  # zipfile itself cuts a name at a NUL
        parts = name.removesuffix("/").split("/")
        if {"", ".", ".."} & set(parts) or "\\" in name or "\0" in name or _DRIVE.match(name):
            raise FileError(
                f"the member name {shown(name)} is no plain path inside the archive (a/b.txt); zip the files again, "
                "from the folder they are in"
            )
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise FileError(f"the member {shown(info.filename)} is a link or a device; zip the file it stands for")
    if info.file_size > MEMBER_BYTES:
        raise FileError(
            f"a file in the archive may have at most {MEMBER_BYTES // 2**20} MiB, and {shown(info.filename)} declares "
            f"{info.file_size / 2**20:,.0f} MiB"
        )
