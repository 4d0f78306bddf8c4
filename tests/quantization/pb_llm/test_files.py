"""The official code's mask files are read; nothing that one of them asks for is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lab.files.bounds import FileError, Limits
from lab.quantization.pb_llm import load_mask


def saved(value: Any, **settings: Any) -> bytes:
    torch.save(value, file := io.BytesIO(), **settings)
    return file.getvalue()


MASK = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)) > 0


def test_a_mask_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "mask_0.9_model.decoder.layers.0.fc1.pkl"
    torch.save(MASK, path)
    assert torch.equal(load_mask(path), MASK) and torch.equal(load_mask(path.read_bytes()), MASK)
    assert torch.equal(load_mask(saved(MASK.T.contiguous().T)), MASK)


class Hostile:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    target = tmp_path / "made"
    for data in (saved(Hostile(target)), pickle.dumps(Hostile(target)), saved([MASK, Hostile(target)])):
        with pytest.raises(FileError, match="not readable as mask"):
            load_mask(data, name="mask_0.9_x.pkl")
        assert not target.exists()


def packed() -> bytes:
    with (
        zipfile.ZipFile(io.BytesIO(saved(torch.zeros(999, 999) > 0))) as old,
        zipfile.ZipFile(new := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for member in old.infolist():
            archive.writestr(member.filename, old.read(member))
    return new.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the file is empty"),
        (b"no pickle", "not readable as mask"),
        (saved(MASK)[:-30], "not readable as mask"),
        (saved(MASK, _use_new_zipfile_serialization=False), "not readable as mask"),
        (packed(), "its parts are packed"),
        (saved(MASK.float()), r"one matrix of torch.bool, and this is torch.float32 of the shape \(6, 9\)"),
        (saved(MASK[0]), "one matrix of torch.bool"),
        (saved({"mask": MASK}), "one matrix of torch.bool, and this is dict"),
        (saved(MASK.to_sparse()), "one matrix of torch.bool"),
        (saved(MASK[:0]), "the mask claims 0 entries"),
        (saved(MASK[:1, :1].expand(10**6, 10**6)), "the mask claims 1,000,000,000,000 entries"),
    ],
)
def test_what_is_no_mask_is_a_sentence(data: bytes, says: str) -> None:
    with pytest.raises(FileError, match=says) as caught:
        load_mask(data, name="m.pkl")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("'m.pkl': " if data else "'m.pkl'")


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(saved(MASK))
    with pytest.raises(FileError, match="at most"):
        load_mask(tmp_path / "m.pkl", limits=Limits(max_bytes=100))
