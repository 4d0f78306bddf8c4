"""What makes a number stale: an edit of the code it came from, or another asset; nothing else does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from lab import assets, catalog, code_hash, paths, provenance
from lab.cache import cached
from lab.experiment import Study, no_progress, part, slug_of
from lab.provenance import Record, note_opened, opened_files

STUDIES = "toy/evidence/studies.py"
FILES = {
    "toy/__init__.py": "",
    "toy/method.py": (
        '"""The method."""\nRATE = 2.0\n\n\n'
        'def double(x):\n    """Twice."""\n    return RATE * x  # exact\n\n\n'
        "def unused(x):\n    return -x\n"
    ),
    "toy/evidence/__init__.py": "",
    STUDIES: (
        "from lab.experiment import study\nfrom toy import method as m\nfrom toy.method import double\n\n\n"
        "class Base:\n    def scale(self):\n        return m.RATE\n\n\n"
        "def helper(x, unused=3):\n    return double(x) + Base().scale()\n\n\n"
        '@study("sums", "Sums of doubles", columns=("a",), replication=None)\n'
        "def measure(seed, *, progress):\n    return {'a': sum(helper(x) for x in range(seed))}\n"
    ),
    "toy/figures.py": "from toy.method import double\n\n\ndef picture(result):\n    return double(result)\n",
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def hashed(root: Path) -> str:
    place = code_hash.declared(root / "toy", "toy", "study", "sums")
    assert place is not None
    return code_hash.code_hash(*place, root=root)


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("toy/method.py", '"""Twice."""', '"""The double of a number."""'),
        ("toy/method.py", "  # exact", ""),
        ("toy/method.py", '"""The method."""\n', ""),
        ("toy/method.py", "return RATE * x", "return (\n        RATE\n        * x\n    )"),
        ("toy/method.py", "return -x", "return 7 * x"),
        ("toy/figures.py", "double(result)", "double(result) + 1"),
        (STUDIES, "Sums of doubles", "Another title"),
        (STUDIES, 'columns=("a",)', 'columns=("a", "b")'),
        (STUDIES, "from toy import method as m\n", "import toy.method as m\n"),
    ],
)
def test_what_computes_nothing_stales_nothing(toy: Path, name: str, old: str, new: str) -> None:
    before = hashed(toy)
    edit(toy, name, old, new)
    assert hashed(toy) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("toy/method.py", "RATE = 2.0", "RATE = 3.0"),
        ("toy/method.py", "return RATE * x", "return x * RATE"),
        (STUDIES, "unused=3", "unused=4"),
        (STUDIES, "return m.RATE", "return -m.RATE"),
        (STUDIES, "range(seed)", "range(seed + 1)"),
        ("toy/method.py", "RATE = 2.0", "RATE = 2.0\nprint('on import')"),
    ],
)
def test_what_computes_stales(toy: Path, name: str, old: str, new: str) -> None:
    before = hashed(toy)
    edit(toy, name, old, new)
    assert hashed(toy) != before


def test_moving_a_file_or_a_function_stales_nothing(toy: Path) -> None:
    before = hashed(toy)
    (toy / "toy" / "deeper").mkdir()
    (toy / "toy" / "deeper" / "__init__.py").touch()
    shutil.move(toy / "toy/method.py", toy / "toy/deeper/double.py")
    edit(toy, STUDIES, "from toy import method as m", "from toy.deeper import double as m")
    edit(toy, STUDIES, "from toy.method import double", "from toy.deeper.double import double")
    shutil.move(toy / STUDIES, toy / "toy/measured.py")
    assert hashed(toy) == before
    text = (toy / "toy/measured.py").read_text()
    start, stop = text.index("def helper"), text.index("@study")
    head = "from toy.deeper.double import double\nfrom toy.measured import Base\n\n\n"
    (toy / "toy/helpers.py").write_text(head + text[start:stop])
    rest = text[:start].replace("study\n", "study\nfrom toy.helpers import helper\n") + text[stop:]
    (toy / "toy/measured.py").write_text(rest)
    assert hashed(toy) == before


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the lab's code that may be edited."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(
        Path(code_hash.__file__).parent, root / "lab", ignore=shutil.ignore_patterns("__pycache__", "_share")
    )
    return root


def of_study(root: Path, slug: str, key: str) -> str:
    card = catalog.get(slug)
    place = code_hash.declared(
        root / card.folder.relative_to(paths.cards_folder().parents[1]), card.module, "study", key
    )
    assert place is not None
    return code_hash.code_hash(*place, root=root)


def test_an_edit_of_gptq_stales_what_compensates_and_not_a_bill(copied: Path) -> None:
    studies = [("pb-llm", "minilm"), ("pb-llm", "bill"), ("ptq1-61", "bill"), ("sp2ot", "digits")]
    before = {study: of_study(copied, *study) for study in studies}
    assert before == {(slug, key): provenance.code_of(slug, "study", key) for slug, key in studies}
    edit(copied, "lab/quantization/gptq.py", ".div_(pivots[k])", ".mul_(1 / pivots[k])")
    edit(copied, "lab/plot.py", "height: int = 430", "height: int = 431")
    changed = {study for study in studies if of_study(copied, *study) != before[study]}
    assert changed == {("pb-llm", "minilm")}


def test_an_edit_of_the_training_loop_stales_what_trains(copied: Path) -> None:
    before = {key: of_study(copied, "sp2ot", key) for key in ("digits", "descent")}
    edit(copied, "lab/train.py", "self.wrapped.zero_grad()", "self.wrapped.zero_grad(set_to_none=False)")
    assert of_study(copied, "sp2ot", "digits") != before["digits"]
    assert of_study(copied, "sp2ot", "descent") == before["descent"]


TOY = Study("sp2ot", "toy", "Toy", dict, None)


def test_another_asset_or_corpus_stales_what_read_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with opened_files() as opened:
        assets.folder("sp2ot-digits-encoder")
    record = Record.now(TOY, 1.0, opened=opened)
    untouched = Record.now(TOY, 1.0, opened={"corpus stdlib-source": provenance.checksum_of("corpus stdlib-source")})
    assert list(record.opened) == ["asset sp2ot-digits-encoder"] and not record.stale and not untouched.stale
    data = tmp_path / "data"
    for name in ("checkpoints/manifest.json", "corpora/cards.json"):
        (data / name).parent.mkdir(parents=True)
        shutil.copy(paths.shared("data") / name, data / name)
    monkeypatch.setattr(paths, "shared", lambda name: tmp_path / name)
    manifest = json.loads((data / "checkpoints/manifest.json").read_text())
    manifest["sp2ot-digits-encoder"]["card.json"] = "0" * 64
    (data / "checkpoints/manifest.json").write_text(json.dumps(manifest))
    assert not record.stale, "a card computes nothing"
    manifest["sp2ot-digits-encoder"]["model.safetensors"] = "0" * 64
    (data / "checkpoints/manifest.json").write_text(json.dumps(manifest))
    assert record.stale == "recorded with another asset sp2ot-digits-encoder" and not untouched.stale
    (data / "corpora/cards.json").unlink()
    assert untouched.stale == "recorded with another corpus stdlib-source"


def test_older_code_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record.now(TOY, 1.0, opened={})
    assert not record.stale
    assert record.model_copy(update={"code": "1234"}).stale == "recorded by older code"


def test_what_a_cache_hands_out_counts_as_opened() -> None:
    calls: list[int] = []

    @cached(maxsize=2)
    def read(x: int) -> int:
        calls.append(x)
        note_opened(f"asset {x}", "sum")
        return 10 * x

    @cached(maxsize=2)
    def twice(x: int) -> int:
        return 2 * read(x)

    for _ in range(2):
        with opened_files() as opened:
            assert twice(3) == 60
        assert opened == {"asset 3": "sum"} and calls == [3]
    with opened_files() as outer:
        with opened_files() as inner:
            read(4)
        assert inner == {"asset 4": "sum"}
    assert outer == inner
    for x in (5, 6, 4):
        read(x)
    assert calls == [3, 4, 5, 6, 4], "the least recently used goes first"
    read.cache_clear()
    read(4)
    assert calls[-2:] == [4, 4]


def test_a_cache_computes_once_for_many_threads_and_keeps_no_failure() -> None:
    calls: list[int] = []
    together = Barrier(8)

    @cached()
    def slow(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            raise ValueError("the first attempt fails")
        return x

    def ask(_: int) -> int | str:
        together.wait()
        try:
            return slow(7)
        except ValueError:
            return "failed"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert sorted(map(str, answers)) == ["7"] * 7 + ["failed"] and calls == [7, 7]


def recorder(log: list[tuple[float, str]]) -> Callable[..., None]:
    return lambda fraction, note="", partial=None: log.append((fraction, note))


def test_parts_of_a_run_report_their_share() -> None:
    log: list[tuple[float, str]] = []
    inner = part(part(recorder(log), 0.5, 0.5, "fits"), 0.0, 0.5)
    inner(0.0, "layer 1")
    inner(1.0)
    assert log == [(0.5, "fits: layer 1"), (0.75, "fits")]
    no_progress(1.0)


@pytest.mark.parametrize(
    ("module", "slug"),
    [("lab.quantization.pb_llm.studies", "pb-llm"), ("lab.circuits.transcoders.evidence.races", "transcoders")],
)
def test_a_slug_follows_from_the_package(module: str, slug: str) -> None:
    assert slug_of(module) == slug
