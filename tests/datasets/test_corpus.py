"""The frozen corpora are what their cards say, the same from any interpreter, and refused when damaged."""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import paths
from lab.datasets import corpus

NEXT_LINE, SEPARATOR = "\x85", "\u2028"  # str.splitlines would break a record at these


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A corpora folder of the test's own."""
    monkeypatch.setattr(corpus.paths, "shared", lambda name: tmp_path)
    corpus._text.cache_clear()
    yield tmp_path / "corpora"
    corpus._text.cache_clear()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library of three modules and what must stay out."""
    root = tmp_path / "lib"
    (root / "test").mkdir(parents=True)
    (root / "LICENSE.txt").write_text("a licence")
    doc = f'"""Counts the sheep on a meadow.{NEXT_LINE} They are counted{SEPARATOR} twice, since some of them are black."""'
    (root / "sheep.py").write_text(f"{doc}\n\ndef count():\n    {doc}\n", encoding="utf-8")
    (root / "plain.py").write_text("x = 1\n")
    (root / "broken.py").write_text("def (:\n")
    (root / "latin.py").write_bytes(b"x = '\xe9'\n")
    (root / "test" / "test_sheep.py").write_text(doc, encoding="utf-8")
    return root


def test_shipped_corpora_are_what_their_cards_say() -> None:
    cards, folder = corpus.cards(), paths.shared("data") / "corpora"
    assert set(cards) == set(corpus.NAMES)
    for name, card in cards.items():
        packed = (folder / f"{name}.jsonl.xz").read_bytes()
        assert len(packed) == card["bytes"] and hashlib.sha256(packed).hexdigest() == card["sha256"]
    found, modules = corpus.docstrings(), corpus.source()
    assert len(found) == cards["stdlib-docstrings"]["entries"] and len(modules) == cards["stdlib-source"]["entries"]
    assert len({(pair.query, pair.rest) for pair in found}) == len(found) > 2500
    assert all(pair.place.partition(":")[0] in modules for pair in found)
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in (folder / "LICENSE.txt").read_text(encoding="utf-8")


def test_pairs_follow_from_the_shipped_source() -> None:
    text = corpus.source()["bisect.py"]
    assert [pair for pair in corpus.docstrings() if pair.place.startswith("bisect.py")] == list(
        corpus.pairs("bisect.py", text)
    )


def test_made_read_and_made_again(library: Path, elsewhere: Path) -> None:
    made = corpus.make(elsewhere, library)
    assert list(corpus.source()) == ["plain.py", "sheep.py"]
    (pair,) = corpus.docstrings()
    assert pair.query == "Counts the sheep on a meadow." and pair.rest.startswith("They are counted twice")
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    assert corpus.make(elsewhere, library) == made
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_flip, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_damaged_corpus_names_its_repair(library: Path, elsewhere: Path, damage: Any) -> None:
    corpus.make(elsewhere, library)
    damage(elsewhere / "stdlib-source.jsonl.xz")
    with pytest.raises(corpus.CorpusError, match=r"stdlib-source\.jsonl\.xz .*python -m lab\.datasets\.corpus"):
        corpus.source()
    assert corpus.docstrings()
    (elsewhere / "cards.json").unlink()
    corpus._text.cache_clear()
    with pytest.raises(corpus.CorpusError, match=r"cards\.json"):
        corpus.docstrings()


def test_unpacking_is_bounded(library: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = corpus.make(elsewhere, library)
    bomb = lzma.compress(b" " * 10**7)
    (elsewhere / "stdlib-source.jsonl.xz").write_bytes(bomb)
    cards["stdlib-source"]["sha256"] = hashlib.sha256(bomb).hexdigest()
    (elsewhere / "cards.json").write_text(json.dumps(cards))
    monkeypatch.setattr(corpus, "MAX_BYTES", 1000)
    with pytest.raises(corpus.CorpusError, match="unpacks to more"):
        corpus.source()
