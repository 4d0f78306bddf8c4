"""Zip archives from outside: every member whole and in memory, or one sentence; never a byte more than declared."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutants import EDITS, FUZZ, mutant, patched, peak_below

from lab.files import FileError, Limits, read_zip
from lab.files.archive import MAX_MEMBERS, MEMBER_BYTES

pytestmark = pytest.mark.filterwarnings("error")

SMALL = Limits(max_bytes=2**20)
FILES = {"a.txt": b"hello", "pictures/b.bin": bytes(range(256)) * 40, "empty": b"", "größe.csv": b"a\n1\n"}


def zipped(
    members: dict[str, bytes] | list[tuple[str, bytes]], packing: int = zipfile.ZIP_DEFLATED, comment: bytes = b""
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, data in dict(members).items():
            archive.writestr(name, data)
        archive.comment = comment
    return file.getvalue()


def refused(data: bytes, *words: str, limits: Limits = SMALL) -> None:
    with pytest.raises(FileError) as caught:
        read_zip(data, name="my.zip", limits=limits)
    sentence = str(caught.value)
    assert sentence.startswith("'my.zip': ") and "\n" not in sentence and len(sentence) < 400
    for word in words:
        assert word in sentence, sentence


# --- truths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_source_gives_every_member(packing: int, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(data := zipped(FILES, packing, comment=b"a commit's hash"))
    with path.open("rb") as opened:
        for source in (path, str(path), data, io.BytesIO(data), opened):
            found = read_zip(source)
            assert found == FILES and list(found) == list(FILES)
    assert os.listdir(tmp_path) == ["a.zip"]
    with pytest.raises(TypeError, match="source"):
        read_zip(7)  # type: ignore[arg-type]


def test_an_archive_that_was_streamed() -> None:
    """Sizes stand behind each member then, in a data descriptor, and not before it."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, part: bytes) -> int:  # type: ignore[override]
            self.data += bytes(part)
            return len(part)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, data in FILES.items():
            archive.writestr(name, data)
    assert read_zip(pipe.data) == FILES


def test_folders_and_what_macos_adds_are_left_out() -> None:
    more = {"pictures/": b"", "__MACOSX/": b"", "__MACOSX/._a.txt": b"\0\5\x16\7"}
    assert read_zip(zipped(FILES | more)) == FILES
    assert read_zip(zipped({})) == {}


def test_a_zip_in_a_zip_is_bytes() -> None:
    inner = zipped({"deep.txt": b"deep"})
    assert read_zip(zipped({"inner.zip": inner}, zipfile.ZIP_STORED)) == {"inner.zip": inner}


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../a",
        "a/../../b",
        "..",
        ".",
        "./a",
        "a//b",
        "a\\b",
        "..\\a",
        "C:/a",
        "c:a",
        "/",
        "a/..",
        "n\\",
    ],
)
def test_names_that_lead_elsewhere(name: str) -> None:
    refused(zipped({name: b"1"}), "is no plain path inside the archive", "from the folder they are in")


def test_a_name_with_a_nul_is_not_cut() -> None:
    refused(zipped({"a.txtXb.exe": b"1"}).replace(b"a.txtX", b"a.txt\0"), r"'a.txt\x00b.exe'", "plain path")
    refused(zipped({"X": b"1"}).replace(b"X", b"\0"), r"'' is no plain path", "plain path")
    refused(zipped({"größe": b"1"}).replace("ö".encode(), b"\xff\xff"), "UnicodeDecodeError")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_what_is_no_file(kind: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    refused(file.getvalue(), "'link' is a link or a device")


def test_archives_that_are_none_or_unusual() -> None:
    good = zipped({"a.txt": b"hello" * 9})
    refused(b"", "empty")
    for cut in (good[:-1], good[: len(good) // 2], b"PK\3\4", b"PK\5\6", b"no archive", good + b"more"):
        refused(cut, "not readable as zip", "cut off")
    refused(b"#!/bin/sh\n" + good, "other bytes stand before the archive")
    refused(good[:-22] + b"more" + good[-22:], "other bytes")
    refused(good[:-22] + b"PK\6\7" + bytes(16) + good[-22:], "zip64")
    refused(patched(good, flags=1), "'a.txt' is encrypted; zip the files again, without a password")
    refused(patched(good, flags=0x20), "not readable as zip", "NotImplementedError")
    refused(zipped({"a": b"1"}, zipfile.ZIP_BZIP2), "not packed with deflate")
    refused(zipped({"a": b"1"}, zipfile.ZIP_LZMA), "not packed with deflate")
    refused(zipped({"a.txt": b"1", "b.txt": b"2"}).replace(b"b.txt", b"a.txt"), "same name")
    damaged = bytearray(zipped({"a.txt": b"hello"}, zipfile.ZIP_STORED))
    damaged[36] ^= 1
    refused(bytes(damaged), "Bad CRC-32")
    refused(zipped({"a.txt": b"hello"}).replace(b"PK\3\4", b"PK\3\5"), "not readable as zip")


# --- bounds ------------------------------------------------------------------------------------------------------


def test_numbers_of_members_and_bytes() -> None:
    most = {f"{i}": b"" for i in range(MAX_MEMBERS)}
    assert len(read_zip(zipped(most))) == MAX_MEMBERS
    refused(many := zipped(most | {"more": b""}), "at most 4,096 members, and this one has 4,097")
    refused(many[:-14] + struct.pack("<HH", 1, 1) + many[-10:], "at most 4,096 members, and this one has 4,097")
    refused(zipped({"x" * 60_000 + str(i): b"" for i in range(80)}, comment=b"c"), "members", limits=Limits())
    large = bytes(2**20)
    assert read_zip(zipped({"a": large}), limits=SMALL) == {"a": large}
    refused(zipped({"a": large, "b": b"1"}), "at most 1 MiB, and this one declares 1 MiB")
    refused(bytes(2**20 + 1), "at most 1 MiB, and this one has 1,048,577 bytes")
    refused(patched(zipped({"a": b"1"}), size=2**19), "'a' declares more than its bytes can hold")
    bomb = zipped({"a": bytes(MEMBER_BYTES + 1)})
    with peak_below(8):
        refused(bomb, "at most 64 MiB, and 'a' declares 64 MiB", limits=Limits())
        refused(bomb, "at most 1 MiB, and this one declares 64 MiB")


def test_a_directory_that_lies_about_sizes() -> None:
    bomb = zipped({"a": bytes(2**26)})
    with peak_below(8):
        refused(patched(bomb, size=100), "Bad CRC-32")
        refused(patched(bomb, size=0), "Bad CRC-32")
        refused(patched(zipped({"a": b"12345"}), size=6), "ends early")
        refused(patched(zipped({"a": b"12345"}, zipfile.ZIP_STORED), size=6), "ends early")
    believable = bytearray(patched(bomb, size=100))
    struct.pack_into("<L", believable, believable.rindex(b"PK\1\2") + 16, zlib.crc32(bytes(100)))
    with peak_below(8):
        assert read_zip(bytes(believable)) == {"a": bytes(100)}  # what it says, and no byte more


def test_members_over_the_same_bytes() -> None:
    """The bomb that needs no nesting: a thousand directory entries, and one kernel that they all unpack."""
    one = zipped({"aaaa": bytes(2**20)})
    start = one.index(b"PK\1\2")
    entry = one[start:-22]
    many = b"".join(entry.replace(b"aaaa", b"%04d" % i) for i in range(100))
    end = struct.pack("<LHHHHLLH", 0x06054B50, 0, 0, 100, 100, len(many), start, 0)
    with peak_below(8):
        refused(one[:start] + many + end, "'0001' lies over the one before it", limits=Limits())
    longer = bytearray(one)
    struct.pack_into("<L", longer, start + 20, start)
    refused(bytes(longer), "'aaaa' lies over the archive's directory")


def test_memory_is_what_is_stated() -> None:
    data = zipped({"a": os.urandom(2**22), "b": bytes(2**24), "c": bytes(2**23)})
    with peak_below(4 + 16 + 8 + 16 + 4):  # what it unpacks to, the largest once more, and less than the 16 MiB stated
        read_zip(data)
    many = zipped({f"{'n' * 900}{i}": b"" for i in range(MAX_MEMBERS)})
    with peak_below(16):
        assert len(read_zip(many)) == MAX_MEMBERS


# --- fuzz --------------------------------------------------------------------------------------------------------

VALID = [zipped(FILES), zipped(FILES, zipfile.ZIP_STORED), zipped({"a": b"1"}, comment=b"comment"), zipped({"d/": b""})]


@FUZZ
@given(which=st.sampled_from(VALID), edits=EDITS)
def test_mutants_are_archives_or_sentences(which: bytes, edits: list) -> None:
    with peak_below(4):
        try:
            files = read_zip(mutant(which, edits), limits=SMALL)
        except FileError as error:
            assert "\n" not in str(error)
        else:
            assert sum(map(len, files.values())) <= SMALL.max_bytes
            assert not any(name.startswith("/") or ".." in name.split("/") for name in files)
