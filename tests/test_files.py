"""Readers of users' files: each good file works, each bad one is one sentence, and no mutant gets further than that."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from mutants import EDITS, FUZZ, mutant, patched, peak_below

from lab.files import FileError, Limits, Table, read_csv, read_npz, read_parquet, read_table

SMALL = Limits(max_bytes=2**20, max_rows=50, max_columns=8)


def npz(compress: bool = False, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(file, **arrays)
    return file.getvalue()


def parquet(frame: pd.DataFrame | pa.Table, **options: object) -> bytes:
    file = io.BytesIO()
    if isinstance(frame, pa.Table):
        pq.write_table(frame, file, **options)
    else:
        frame.to_parquet(file, **options)
    return file.getvalue()


def zipped(compress_type: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress_type) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy(header: str, numbers: bytes = b"", version: int = 1) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<L", len(text)) + text + numbers


def refused(data: bytes, *words: str, read: Callable[..., Table] = read_table, **options: object) -> str:
    """The sentence a file is refused with; it names the file and holds each of `words`."""
    with pytest.raises(FileError) as caught:
        read(data, name="my file", **options)
    sentence = str(caught.value)
    assert sentence.startswith("'my file': ") and "\n" not in sentence and len(sentence) < 600
    for word in words:
        assert word in sentence, sentence
    return sentence


# --- csv ---------------------------------------------------------------------------------------------------------

AB = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("data", "columns", "values"),
    [
        (b"a,b\n1,2\n3,4\n", ("a", "b"), AB),
        (b"a,b\n1,2\n3,4", ("a", "b"), AB),
        (b"\xef\xbb\xbfa,b\n1,2\n3,4\n", ("a", "b"), AB),
        (b"a,b\r\n1,2\r\n3,4\r\n", ("a", "b"), AB),
        (b"a,b\r1,2\r3,4\r", ("a", "b"), AB),
        (b"\n\na,b\n\n1,2\n3,4\n\n\n", ("a", "b"), AB),
        (b"a;b\n1;2\n3;4\n", ("a", "b"), AB),
        (b"a\tb\n1\t2\n3\t4\n", ("a", "b"), AB),
        (b'"a, first",b\n"1",2\n 3 , 4 \n', ("a, first", "b"), AB),
        (b'"a ""x""","b\nc"\n1,2\n3,4\n', ('a "x"', "b\nc"), AB),
        (b"1,2\n3,4\n", ("x0", "x1"), AB),
        (b"\xef\xbb\xbf1,2\n3,4\n", ("x0", "x1"), AB),
        (b"a\n1e0\n+.5\n-2.\n", ("a",), [[1.0], [0.5], [-2.0]]),
        (b"0,1,2,3\n1,2,3,4\n5,6,7,8\n", ("0", "1", "2", "3"), [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ("größe,長さ\n1,2\n3,4\n".encode(), ("größe", "長さ"), AB),
    ],
)
def test_csv_in_every_usual_dress(data: bytes, columns: tuple[str, ...], values: list[list[float]]) -> None:
    table = read_table(data)
    assert table.columns == columns and table.values.tolist() == values
    assert table.values.dtype == np.float32 and table.labels is None and table.label_names == ()


@pytest.mark.parametrize(
    ("data", "options", "columns", "codes", "names"),
    [
        (b"a,label\n1,dog\n2,cat\n3,dog\n", {}, ("a",), [1, 0, 1], ("cat", "dog")),
        (b"Class,a\n10,1\n9,2\n10,3\n", {}, ("a",), [1, 0, 1], ("9", "10")),
        (b"a,TARGET\n1,1.0\n2,0\n3,1\n", {}, ("a",), [1, 0, 1], ("0", "1")),
        (b"x,y,label\n1,2,0\n2,.5,1\n3,4,1\n", {}, ("x", "y"), [0, 1, 1], ("0", "1")),
        (b"a,label,kind\n1,2,u\n3,4,v\n5,6,u\n", {"label": "kind"}, ("a", "label"), [0, 1, 0], ("u", "v")),
        (b"1,2,7\n3,4,8\n5,6,8\n", {"label": "x2"}, ("x0", "x1"), [0, 1, 1], ("7", "8")),
        (b"a,y\n1,1_0\n2,NaN\n3,nan\n", {}, ("a",), [0, 1, 2], ("1_0", "NaN", "nan")),
        (b"a,y\n1,2\n2,10x\n3,2\n", {}, ("a",), [1, 0, 1], ("10x", "2")),
        (b"a,y\n1,true\n2,false\n3,true\n", {}, ("a",), [1, 0, 1], ("false", "true")),
    ],
)
def test_csv_labels(data: bytes, options: dict, columns: tuple, codes: list[int], names: tuple) -> None:
    table = read_table(data, **options)
    assert table.columns == columns and table.labels is not None
    assert table.labels.dtype == np.int64 and table.labels.tolist() == codes and table.label_names == names


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["empty"]),
        (b"\n\n \n", ["column 1 has no name"]),
        (b"\n\r\n\n", ["blank lines only"]),
        (b"a,b\n", ["two rows", "none"]),
        (b"a,b\n1,2\n", ["two rows", "has 1"]),
        (b"1,2\n", ["two rows", "has 1"]),
        (b"a,b,a\n1,2,3\n4,5,6\n", ["'a'", "2 times", "unique"]),
        (b",a\n0,1\n1,2\n", ["column 1 has no name", "index=False"]),
        (b"a,b\n1,2\n3\n", ["row 2 (line 3)", "1 cells", "has 2"]),
        (b"a,b\n1,2,3\n3,4\n", ["row 1 (line 2)", "3 cells", "has 2"]),
        (b"a,b\n1,x\n3,4\n", ["'b' holds 'x' in row 1", "numbers", "label"]),
        (b"a,b,c,d,e\n1,p,q,r,s\n1,p,q,r,s\n", ["'b'", "'c'", "'d'", "and 1 more", "encode them"]),
        (b"a,b\n1,2\n3,\n", ["'b' has no value in row 2"]),
        (b"a,b\n1,2\n3,NA\n", ["'b' has no value in row 2"]),
        (b"a,b\n1,2\nnan,4\n", ["'a' holds NaN", "row 2"]),
        (b"a,b\n1,2\n3,inf\n", ["'b' holds NaN, infinity", "row 2"]),
        (b"a,b\n1,2\n3,1e39\n", ["'b'", "beyond float32", "row 2"]),
        (b"a,b\n1,2\n3,1_0\n", ["'b' holds '1_0' in row 2"]),
        (b"a;b\n1,5;2\n3;4\n", ["'a' holds '1,5'"]),
        (b"a,b\n1,2\n\x1c3,4\n", ["'a' holds '3' in row 2"]),  # blank to str.strip, not to float
        (b"a,y\n1,0\n2,\n3,1\n", ["'y' has no value in row 2"]),
        (b"a,y\n1,0\n2,nan\n3,1\n", ["'y' has no value in row 2"]),
        (b"a,y\n1,0.25\n2,3\n3,1\n", ["'y' is read as the label", "'0.25'", "rename"]),
        (b"label\n0\n1\n", ["at least one feature"]),
        (b"5.1,3.5,Iris-setosa\n4.9,3.0,Iris-setosa\n4.7,3.2,Iris-setosa\n", ["is the header line missing?"]),
        ("größe,b\n1,2\n3,4\n".encode("latin-1"), ["UnicodeDecodeError", "CSV UTF-8"]),
        ("a,b\n1,2\n3,4\n".encode("utf-16"), ["neither csv", "CSV UTF-8"]),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ["neither csv"]),
        (b'a,b\n1,"2\n3,4\n', ["not readable as csv", "unexpected end"]),
        (b'a,b\n1,"2"x\n3,4\n', ["not readable as csv"]),
        (b"a,b\n1,2\n3," + b"9" * 200_000 + b"\n", ["not readable as csv", "field larger"]),
        (b"a,b\n1,2\n" + b"1," * 600_000, ["characters"]),
        (b"a,b\n1,2\n" + b'"\n",' * 600_000, ["characters"]),
    ],
)
def test_csv_refusals(data: bytes, words: list[str]) -> None:
    refused(data, *words)


def test_csv_limits_say_the_limit_and_what_was_found() -> None:
    refused(b"a\n" + b"1\n" * 51, "at most 50 rows", "about 52", limits=SMALL)
    refused(b",".join([b"1"] * 9) + b"\n", "at most 8 feature columns", "has 9", limits=SMALL)
    assert read_table(b"a\n" + b"1\n" * 50, limits=SMALL).values.shape == (50, 1)
    eight = b",".join(b"c%d" % i for i in range(8)) + b",y\n"
    assert read_table(eight + b"1," * 8 + b"0\n" + b"1," * 8 + b"1\n", limits=SMALL).values.shape == (2, 8)
    refused(b"a" * (2**20 + 1), "at most 1 MiB", limits=SMALL)


def test_a_label_that_is_not_there() -> None:
    for data in (b"a,b\n1,2\n3,4\n", npz(X=np.eye(2), z=np.eye(2)), parquet(pd.DataFrame({"a": [1, 2], "b": [1, 2]}))):
        refused(data, "no label column 'kind'", label="kind")


# --- sources -----------------------------------------------------------------------------------------------------


def test_every_source_gives_the_same_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data := b"a,b\n1,2\n3,4\n")
    stream = io.BytesIO(data)
    stream.read()  # as a page leaves an upload that it has shown
    with path.open("rb") as opened, path.open("rb", buffering=0) as raw:
        for source in (path, str(path), data, stream, opened, raw):
            assert read_table(source).values.tolist() == AB
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert read_table(pipe).values.tolist() == AB


def test_what_is_no_source(tmp_path: Path) -> None:
    for source in (12, None, [1], io.StringIO("a\n1\n2\n")):
        with pytest.raises(TypeError):
            read_table(source)  # type: ignore[arg-type]
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.csv").write_bytes(b"1" * (2**20 + 1))
    for source, words in {
        tmp_path / "none.csv": "'none.csv': cannot be opened (No such file",
        tmp_path: "no regular file",
        tmp_path / "pipe": "'pipe': this is no regular file",
        "a\0b.csv": r"'a\x00b.csv': cannot be a path",
        tmp_path / "large.csv": "at most 1 MiB, and this one has 1,048,577 bytes",
    }.items():
        with pytest.raises(FileError) as caught:
            read_table(source, limits=SMALL)
        assert words in str(caught.value)


def test_a_name_is_only_ever_shown() -> None:
    class Upload(io.BytesIO):
        name = "<img src=x>\x1b[2J\u202e" + "n" * 500

    with pytest.raises(FileError) as caught:
        read_table(Upload(b""))
    sentence = str(caught.value)
    assert sentence.isprintable() and len(sentence) < 130 and r"\x1b" in sentence and r"\u202e" in sentence
    assert read_table(b"a\n1\n2\n", name="/etc/passwd").values.shape == (2, 1)


def test_readers_of_one_kind_refuse_the_others() -> None:
    files = {read_csv: b"a\n1\n2\n", read_npz: npz(X=np.eye(2)), read_parquet: parquet(pd.DataFrame({"a": [1, 2]}))}
    for read, data in files.items():
        assert read(data).values.shape[0] == 2
        for other in files.keys() - {read}:
            refused(data, read=other)


def test_importing_the_readers_loads_no_heavy_library() -> None:
    heavy = "{'pandas', 'pyarrow', 'torch', 'sklearn', 'plotly', 'scipy'}"
    code = f"import lab.files, sys; lab.files.read_table(b'a\\n1\\n2\\n'); assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- npz ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
def test_npz_arrays_by_name_and_by_shape(compress: bool) -> None:
    matrix, words = np.arange(6.0).reshape(3, 2), np.array(["b", "a", "b"])
    for arrays in (
        {"X": matrix, "y": words},
        {"features": np.asfortranarray(matrix), "labels": words},
        {"data": matrix.astype(">f8"), "Target": words},
        {"whatever": matrix.astype(np.int16), "class": words, "other": np.arange(3)},
        {"X": matrix.astype(np.float16), "more": np.eye(4), "y": words},
        {"x": matrix.astype(np.longdouble), "label": words},
    ):
        table = read_table(npz(compress, **arrays))
        assert table.columns == ("x0", "x1") and table.values.tolist() == matrix.tolist()
        assert table.labels is not None and table.labels.tolist() == [1, 0, 1] and table.label_names == ("a", "b")
    assert read_table(npz(X=matrix > 1, kind=np.array([True, False, True])), label="kind").label_names == (
        "False",
        "True",
    )
    assert read_table(npz(X=matrix, y=np.array([1.0, 0.0, 1.0]))).label_names == ("0", "1")
    assert read_table(npz(X=matrix)).labels is None


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": np.arange(3)}, ["'X' has shape (3,)", "(rows, columns)"]),
        ({"X": np.ones((2, 2, 2))}, ["(2, 2, 2)"]),
        ({"X": np.array([["a"], ["b"]])}, ["'X'", "must be numbers"]),
        ({"a": np.eye(2), "b": np.eye(2)}, ["named 'X'", "'a' (2, 2), 'b' (2, 2)"]),
        ({"a": np.arange(3)}, ["named 'X'", "'a' (3,)"]),
        ({}, ["named 'X'", "none"]),
        ({"X": np.ones((1, 2))}, ["two rows", "has 1"]),
        ({"X": np.ones((0, 2))}, ["two rows", "none"]),
        ({"X": np.ones((2, 0))}, ["one feature column"]),
        ({"X": np.ones((51, 1))}, ["at most 50 rows", "has 51"]),
        ({"X": np.ones((2, 9))}, ["at most 8 feature columns", "has 9"]),
        ({"X": np.ones((2, 70_000))}, ["at most 1 MiB", "has 1,120,"]),
        ({"X": np.array([[1.0], [np.nan]])}, ["'x0' holds NaN", "row 2"]),
        ({"X": np.array([[1.0], [1e300]])}, ["'x0'", "beyond float32", "row 2"]),
        ({"X": np.eye(2) * 1j}, ["'X' has type 'complex128'", "real numbers"]),
        ({"X": np.ones(2, dtype=[("a", "f8")])}, ["'X' has type"]),
        ({"X": np.array(["2020-01-01"], dtype="M8[D]")}, ["'X' has type 'datetime64[D]'"]),
        ({"X": np.eye(2), "y": np.arange(3)}, ["'y' has shape (3,)", "(2,)"]),
        ({"X": np.eye(2), "y": np.eye(2)}, ["'y' has shape (2, 2)"]),
        ({"X": np.eye(2), "y": np.array([0.5, 1])}, ["'y' is read as the label", "'0.5'"]),
        ({"X": np.eye(2), "y": np.array([np.nan, 1])}, ["'y' has no value in row 1"]),
        ({"X": np.eye(2), "y": np.array(["a", ""])}, ["'y' has no value in row 2"]),
        ({"X": np.eye(2), "y": np.array(["", ""])}, ["'y' has no value in row 1"]),
        ({"X": np.eye(2), "y": np.array(["a", "\ud800"])}, ["not readable as npz", "UnicodeEncodeError"]),
        ({f"a{i}": np.arange(2) for i in range(65)}, ["at most 64 members", "has 65"]),
    ],
)
def test_npz_refusals(arrays: dict[str, np.ndarray], words: list[str]) -> None:
    refused(npz(**arrays), *words, limits=SMALL)


class _Trap:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


def test_an_array_of_objects_is_refused_unread(tmp_path: Path) -> None:
    trap = np.array([_Trap(tmp_path / "sprung")], dtype=object)
    for arrays in ({"X": trap}, {"X": np.eye(2), "notes": trap}):
        refused(npz(**arrays), "Python objects", "never loaded")
    refused(zipped(X=pickle.dumps(_Trap(tmp_path / "sprung"))), "not readable as npz")
    refused(pickle.dumps(_Trap(tmp_path / "sprung"), protocol=4))
    assert not (tmp_path / "sprung").exists()


def test_a_zip_bomb_is_refused_before_it_unpacks() -> None:
    file = io.BytesIO()
    header = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (262144, 512)}")
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("X.npy", "w") as out,
    ):
        out.write(header)
        zeros = bytes(2**24)
        for _ in range(64):
            out.write(zeros)
    bomb = file.getvalue()
    assert len(bomb) < 6 * 2**20
    with peak_below(64):
        refused(bomb, "at most 256 MiB", "declares 1,024 MiB")
    lying = patched(bomb, size=len(header) + 16)  # the directory now says: two numbers
    with peak_below(64):
        refused(lying, "not readable as npz", "Bad CRC-32")
    small = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 1)}", bytes(16))
    expanding = patched(zipped(X=small + bytes(2**26)), size=len(small))
    with peak_below(8):
        refused(expanding, "not readable as npz", "Bad CRC-32")


@pytest.mark.parametrize(
    ("header", "numbers", "words"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2)}", bytes(8), ["declares shape (2, 2)"]),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (10**9, 2)}", b"", ["not readable as npz"]),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999, 2)}", b"", ["declares shape"]),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -2)}", bytes(32), ["declares shape (-2, -2)"]),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (True, 2)}", bytes(16), ["declares shape (True, 2)"]),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 100 + ")}", bytes(8), ["shape"]),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}", bytes(32), ["Python objects"]),
        ("{'descr': '(2,)O', 'fortran_order': False, 'shape': (2,)}", bytes(32), ["Python objects"]),
        ("{'descr': '(9999999,)f8', 'fortran_order': False, 'shape': (2,)}", b"", ["has type"]),
        ("{'descr': 'nonsense', 'fortran_order': False, 'shape': (2,)}", b"", ["not readable as npz"]),
        ("{'descr': [], 'fortran_order': False, 'shape': (2, 2)}", b"", ["has type"]),
        ("{'shape': (2, 2)}", b"", ["not readable as npz"]),
        ("{[]: 1}", b"", ["not readable as npz"]),
        ("(" * 5000, b"", ["not readable as npz"]),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2)}" + " " * 10_000, bytes(32), ["not readable"]),
        ("'''", b"", ["not readable as npz"]),
        ("", b"", ["not readable as npz"]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_npy_headers_that_lie(header: str, numbers: bytes, words: list[str]) -> None:
    with peak_below(8):
        refused(zipped(X=npy(header, numbers)), *words)


def test_npz_header_versions() -> None:
    header = "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 2)}"
    numbers = np.arange(4.0).tobytes()
    assert read_table(zipped(X=npy(header, numbers, version=2))).values.tolist() == [[0, 2], [1, 3]]
    refused(zipped(X=npy(header, numbers, version=3)), "npy version (3, 0)")
    huge = b"\x93NUMPY\2\0" + struct.pack("<L", 2**26) + b" " * 2**26  # a header of 64 MiB
    archive = zipped(X=huge)
    with peak_below(8):
        refused(archive, "not readable as npz")


def test_archives_that_are_not_what_numpy_writes() -> None:
    good = npz(True, X=np.eye(3))
    one = io.BytesIO()
    np.save(one, np.eye(3))
    refused(good[:-30], "cut off")
    refused(good[: len(good) // 2], "cut off")
    refused(good + b"more", "cut off")
    refused(b"PK\3\4", "cut off")
    refused(b"PK\5\6" + bytes(18), "named 'X'")
    refused(patched(good, flags=1), "'X.npy' is encrypted")
    refused(patched(good, flags=0x20), "not readable as npz", "NotImplementedError")
    refused(patched(good, method=99), "not packed with deflate")
    refused(zipped(zipfile.ZIP_LZMA, X=one.getvalue()), "not packed with deflate")
    refused(patched(good, size=2**31), "at most 256 MiB")
    refused(patched(good, size=2**27), "more than its bytes can hold")
    refused(good[:-22] + b"PK\6\7" + bytes(16) + good[-22:], "zip64")
    refused(good[:-12] + struct.pack("<H", 5000) + good[-10:], "at most 64 members", "5,000")
    refused(good[:-10] + struct.pack("<L", 2**17) + good[-6:], "at most 64 members")
    refused(good[:-10] + struct.pack("<L", 50_000) + good[-6:], "not readable as npz")
    for name in ("../X", "/etc/X", "a/X", "..\\X", "C:X"):
        refused(zipped(**{name: one.getvalue()}), "is no array of an npz file")
    sheet = io.BytesIO()
    with zipfile.ZipFile(sheet, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    refused(sheet.getvalue(), "'xl/workbook.xml'", "save a spreadsheet as CSV")
    twice = zipped(X=one.getvalue(), Y=one.getvalue()).replace(b"Y.npy", b"X.npy")
    refused(twice, "same name")
    broken = bytearray(npz(X=np.eye(3)))
    broken[250] ^= 1  # among the numbers
    refused(bytes(broken), "not readable as npz", "CRC")


# --- parquet -----------------------------------------------------------------------------------------------------


def test_parquet_types_and_labels() -> None:
    frame = pd.DataFrame(
        {"i": np.array([1, 2, 3], np.int8), "f": [0.5, 1.5, 2.5], "b": [True, False, True], "kind": ["b", "a", "b"]}
    )
    for labels in (frame.kind, frame.kind.astype("category"), pd.Series([7, 3, 7]), pd.Series([7.0, 3.0, 7.0])):
        for options in ({}, {"row_group_size": 2}, {"compression": "gzip"}, {"data_page_version": "2.0"}):
            table = read_table(parquet(frame.assign(kind=labels), **options), label="kind")
            assert table.columns == ("i", "f", "b") and table.values.tolist() == [[1, 0.5, 1], [2, 1.5, 0], [3, 2.5, 1]]
            assert table.labels is not None and table.labels.tolist() == [1, 0, 1]
            assert table.label_names == (("a", "b") if labels.iloc[0] == "b" else ("3", "7"))
    plain = parquet(frame.rename(columns={"kind": "y"}), use_dictionary=False)
    assert read_table(plain).label_names == ("a", "b")
    arrow = pa.table({"h": pa.array(np.float16([1, 2])), "u": pa.array([2**64 - 1, 0], pa.uint64())})
    assert read_table(parquet(arrow)).values[0].tolist() == [1.0, 2.0**64]
    large = pa.table({"a": [1, 2], "y": pa.array(["u", "v"], pa.large_string())})
    assert read_table(parquet(large)).label_names == ("u", "v")
    dotted = parquet(pd.DataFrame({"a.b": [1, 2], "a": [3, 4]}))
    assert read_table(dotted).values.tolist() == [[1, 3], [2, 4]]


def test_the_index_of_pandas_is_no_feature() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=["p", "q"])
    assert read_table(parquet(frame)).columns == ("a",)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": [1, 2], "city": ["u", "v"]}, ["'city' holds values of type 'string'", "label"]),
        ({"a": [1, None]}, ["'a' has no value in row 2"]),
        ({"a": [True, None]}, ["'a' has no value in row 2"]),
        ({"a": [1.0, float("nan")]}, ["'a' holds NaN", "row 2"]),
        ({"a": [1.0, 1e300]}, ["'a'", "beyond float32"]),
        ({"a": [[1], [2]]}, ["'a' holds nested", "list"]),
        ({"a": [{"b": 1}, {"b": 2}]}, ["'a' holds nested", "struct"]),
        ({"a": pa.array([0, 1], pa.timestamp("s"))}, ["'a' holds values of type 'timestamp"]),
        ({"a": [1, 2], "y": pa.array([0, 1], pa.date32())}, ["'y' has type 'date32", "integers or words"]),
        ({"a": [1, 2], "y": [b"u", b"v"]}, ["'y' has type 'binary'"]),
        ({"a": [1, 2], "y": ["u", None]}, ["'y' has no value in row 2"]),
        ({"a": [1, 2], "y": [0.5, 1.0]}, ["'y' is read as the label", "'0.5'"]),
        ({"a": [1]}, ["two rows", "has 1"]),
        ({"a": pa.array([], pa.int64())}, ["two rows", "none"]),
        ({"y": [1, 2]}, ["one feature column"]),
        ({"": [1, 2]}, ["column 1 has no name"]),
        ({"a": list(range(51))}, ["at most 50 rows", "has 51"]),
        ({f"c{i}": [1, 2] for i in range(9)}, ["at most 8 feature columns", "has 9"]),
    ],
)
def test_parquet_refusals(columns: dict, words: list[str]) -> None:
    refused(parquet(pa.table(columns)), *words, limits=SMALL)


def test_parquet_names_that_occur_twice() -> None:
    refused(parquet(pa.table([[1, 2], [3, 4]], names=["a", "a"])), "'a' occurs 2 times")


def test_parquet_that_is_cut_or_lies() -> None:
    good = parquet(pd.DataFrame({"a": [1, 2]}))
    refused(good[:-1], "cut off")
    refused(b"PAR1", "cut off")
    refused(good[:-8] + struct.pack("<L", 2**30) + b"PAR1", "footer declares")
    refused(b"PAR1" + bytes(20) + struct.pack("<L", 4) + b"PAR1", "not readable as parquet")
    repeated = pa.table({"a": range(500), "y": [f"{'k' * 10_000}{i}" for i in range(500)]})
    prefixes = parquet(repeated, use_dictionary=["a"], column_encoding={"y": "DELTA_BYTE_ARRAY"})
    assert len(prefixes) < 2**16
    refused(prefixes, "DELTA_BYTE_ARRAY")


def test_each_byte_of_a_parquet_footer_may_be_wrong() -> None:
    """Some of these end the whole process in pyarrow's metadata objects, so the footer is not read through them."""
    good = parquet(pa.table({"a": [1, 2]}), compression="none", write_statistics=False, store_schema=False)
    footer = len(good) - 8 - struct.unpack("<L", good[-8:-4])[0]
    for at in range(footer, len(good) - 8):
        for byte in {0, good[at] ^ 1} - {good[at]}:
            check_mutant(good[:at] + bytes([byte]) + good[at + 1 :])


def test_a_parquet_bomb_is_refused_before_it_unpacks() -> None:
    words = pa.table({"a": [1, 2], "y": ["k" * 2**24, "l" * 2**24]})
    bomb = parquet(words, compression="gzip", use_dictionary=False, write_statistics=False)
    assert len(bomb) < 2**17
    before = pa.total_allocated_bytes()
    with peak_below(8):
        refused(bomb, "unpack to at most 1,048,576 bytes", "declares 33,", limits=SMALL)
    assert pa.total_allocated_bytes() - before < 2**20


def test_one_long_word_in_every_row_is_held_once() -> None:
    long = "k" * 2**20
    data = parquet(
        pa.table({"a": np.arange(50_000.0), "y": pa.DictionaryArray.from_arrays(np.zeros(50_000, np.int32), [long])})
    )
    with peak_below(64):
        assert read_table(data).label_names == (long,)


# --- fuzz --------------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame({"a": [1.5, 2.5, 3.5], "b": [1, 2, 3], "label": ["cat", "dog", "cat"]})
HEADER = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 1), }", np.arange(3.0).tobytes())
VALID = {
    "csv": b'a,"b",label\n1.5,1,cat\n2.5,"2",dog\n3.5,3,cat\n',
    "npz": npz(True, X=np.eye(3), y=np.array(["cat", "dog", "cat"])),
    "parquet": parquet(FRAME, compression="snappy"),
    "npy": HEADER,
    "pages": parquet(FRAME, compression="none", write_statistics=False),
}


def check_mutant(data: bytes) -> None:
    """A table or a sentence, and in either case less memory than 32 MiB."""
    with peak_below(32):
        try:
            table = read_table(data, limits=Limits(max_bytes=2**24))
        except FileError as error:
            assert "\n" not in str(error)
        else:
            assert np.isfinite(table.values).all() and table.values.shape[1] == len(table.columns)


QUIET = pytest.mark.filterwarnings("ignore")  # numpy warns of old headers


@QUIET
@FUZZ
@given(edits=EDITS)
def test_mutants_of_csv(edits: list) -> None:
    check_mutant(mutant(VALID["csv"], edits))


@QUIET
@FUZZ
@given(edits=EDITS)
def test_mutants_of_npz(edits: list) -> None:
    check_mutant(mutant(VALID["npz"], edits))


@QUIET
@FUZZ
@given(edits=EDITS)
def test_mutants_of_array_headers_in_a_sound_archive(edits: list) -> None:
    check_mutant(zipped(X=mutant(VALID["npy"], edits)))


@QUIET
@FUZZ
@given(edits=EDITS)
def test_mutants_of_parquet(edits: list) -> None:
    check_mutant(mutant(VALID["parquet"], edits))


@QUIET
@FUZZ
@given(edits=EDITS)
def test_mutants_of_parquet_pages_under_a_sound_footer(edits: list) -> None:
    whole = VALID["pages"]
    footer = struct.unpack("<L", whole[-8:-4])[0] + 8
    pages = len(whole) - footer
    changed = mutant(whole[4:pages], edits)[: pages - 4].ljust(pages - 4, b"\0")
    check_mutant(b"PAR1" + changed + whole[-footer:])
