"""A reader's label files: what is read, what is said of bad rows, and that a label cannot carry anything but text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.circuits.transcoders.units import labels as module
from lab.circuits.transcoders.units.labels import LENGTH, Labels
from lab.files import FileError

ROWS = {(0, 3): "years from 40 on", (11, 24575): "„Zitate“, auch mit Komma", (2, 0): "=cmd()"}


def as_json(rows: object) -> bytes:
    return json.dumps(rows).encode()


def test_reads_json_and_csv_alike() -> None:
    entries = [{"layer": layer, "feature": feature, "label": label} for (layer, feature), label in ROWS.items()]
    table = 'label;Feature;layer;note\n"years from 40 on";3;0;x\n„Zitate“, auch mit Komma;24575;11;\n=cmd();0;2;\n'
    assert dict(Labels.read(as_json(entries))) == ROWS
    assert dict(Labels.read(table.encode("utf-8-sig"))) == ROWS
    assert dict(Labels.read(b'layer,feature,label\n\n0,3,"a\nb"\n')) == {(0, 3): "a b"}
    assert dict(Labels.read(b"[]")) == {}


def test_a_saved_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    Labels(ROWS).save(path)
    assert Labels.read(path) == Labels(ROWS)
    labels = Labels.read(path)
    labels[5, 5] = "new"
    del labels[2, 0]
    labels.save(path)
    assert dict(Labels.read(path)) == {(0, 3): ROWS[0, 3], (11, 24575): ROWS[11, 24575], (5, 5): "new"}
    assert Labels.read(Labels().to_json().encode()) == Labels()
    assert [name.name for name in tmp_path.iterdir()] == ["labels.json"]


@given(st.text(max_size=3 * LENGTH))
def test_what_is_accepted_is_clean_and_survives_the_file(text: str) -> None:
    labels = Labels()
    try:
        labels[1, 2] = text
    except ValueError as error:
        assert "label must have 1 to 200 printable characters" in str(error)
        return
    label = labels[1, 2]
    assert 1 <= len(label) <= LENGTH and label == " ".join(label.split())
    assert not any(ord(mark) < 32 or 127 <= ord(mark) < 160 or 0x202A <= ord(mark) <= 0x202E for mark in label)
    assert Labels.read(labels.to_json().encode()) == labels


def test_control_characters_are_removed() -> None:
    labels = Labels({(0, 0): "\x1b[31mred\x00\u202egnp.exe\ud800\nnext", (0, 1): "ن\u200cم"})
    assert labels[0, 0] == "[31mredgnp.exe next"
    assert labels[0, 1] == "ن\u200cم"  # a joiner that the word needs


def test_bad_rows_are_named_by_line() -> None:
    table = b"layer,feature,label\n0,1,good\n-1,2,a\n0,2.5,b\n3,4\n0,1,again\n1,1,\n"
    with pytest.raises(FileError) as caught:
        Labels.read(table, name="mine.csv")
    assert str(caught.value) == (
        "'mine.csv': line 3: layer must be a whole number from 0 to 9,999, not '-1'; "
        "line 4: feature must be a whole number from 0 to 2,147,483,647, not '2.5'; "
        "line 5: label must be text, not 'None'; and 2 more"
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"layer,feature,label\n0,1,a\n0,1,b\n", "line 3: layer 0, feature 1 has a label already, in line 2"),
        (as_json([{"layer": True, "feature": 1, "label": "a"}]), "entry 1: layer must be a whole number"),
        (as_json([{"layer": 0, "feature": 1e3, "label": "a"}]), "entry 1: feature must be a whole number"),
        (as_json([{"layer": 0, "feature": 1, "label": ["a"]}]), "entry 1: label must be text"),
        (as_json([{"layer": 0, "feature": 1, "label": "a" * 201}]), "entry 1: label must have 1 to 200 .* has 201"),
        (as_json([7]), "entry 1: layer must be"),
        (as_json({"layer": 0}), "must be a list of objects"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'[{"layer": 0, "feature": ' + b"9" * 9000 + b', "label": "a"}]', "not readable as JSON"),
        (b"layer,feature\n0,1\n", "label is not there"),
        (b"layer,layer,feature,label\n", "layer is not there, or twice"),
        (b'layer,feature,label\n0,1,"open\n', "line 2: not readable as CSV"),
        (b"layer,feature,label\n0,1," + b"x" * 200_000, "not readable as CSV"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"\n \n", "layer is not there"),
        (b"", "empty"),
    ],
)
def test_files_that_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(FileError, match=said):
        Labels.read(data, name="labels")


def test_a_large_file_is_refused_unread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    with path.open("wb") as file:
        file.truncate(6_000_000)
    monkeypatch.setattr(module, "_csv_rows", lambda text: pytest.fail("was read"))
    with pytest.raises(FileError, match="at most 4.768 MiB"):
        Labels.read(path)


@pytest.mark.parametrize("key", [(-1, 0), (0, -1), (0, 2**31), (10_000, 0)])
def test_keys_that_are_refused(key: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="(layer|feature) must be a whole number"):
        Labels({key: "a"})
