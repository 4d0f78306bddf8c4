"""The import contract of floors: each rule is broken once, by an import planted in a graph."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
from floors import Floors
from grimp import ImportGraph

MODULES = (
    "lab.train",
    "lab.quantization.gptq",
    "lab.quantization.figures",
    "lab.clustering.figures",
    *(f"lab.quantization.{room}.{name}" for room in ("pb_llm", "flexround") for name in ("__init__", "experiment")),
    *(f"lab.quantization.pb_llm.{name}" for name in ("method", "tuned", "layer_experiment", "studies", "figures")),
    *(f"lab.quantization.pb_llm.{name}" for name in ("views.words", "views.layer.experiment", "evidence.races")),
    "lab.quantization.flexround.tuned",
)


def objections(*imports: tuple[str, str]) -> list[str]:
    """What the contract says of a lab with these imports."""
    graph = ImportGraph()
    for module in MODULES:
        parts = module.removesuffix(".__init__").split(".")
        for count in range(1, len(parts) + 1):
            graph.add_module(".".join(parts[:count]))
    for importer, imported in imports:
        graph.add_import(importer=importer, imported=imported)
    return Floors("floors", {}, {}).check(graph, verbose=False).metadata["broken"]


@pytest.mark.parametrize(
    ("importer", "imported", "said"),
    [
        ("pb_llm.method", "pb_llm.tuned", "method imports tuned"),
        ("pb_llm", "pb_llm.layer_experiment", "method imports experiments"),
        ("pb_llm.method", "pb_llm.figures", "method imports figures"),
        ("pb_llm.method", "figures", "method imports figures"),
        ("pb_llm.layer_experiment", "pb_llm.studies", "experiments imports evidence"),
        ("pb_llm.views.words", "pb_llm.evidence.races", "experiments imports evidence"),
        ("pb_llm.views.layer.experiment", "pb_llm.experiment", "experiments imports the door"),
        ("pb_llm.studies", "pb_llm.figures", "evidence imports figures"),
        ("pb_llm.layer_experiment", "flexround.experiment", "a room imports another room's the door"),
        ("flexround.experiment", "pb_llm.layer_experiment", "a room imports another room's experiments"),
        ("gptq", "pb_llm.method", "a theme imports one of its rooms"),
        ("figures", "lab.clustering.figures", "a theme imports another"),
        ("pb_llm.figures", "lab.clustering.figures", "a theme imports another"),
        ("lab.train", "gptq", "the house imports a theme"),
    ],
)
def test_a_planted_import_breaks_the_contract(importer: str, imported: str, said: str) -> None:
    importer, imported = (
        name if name.startswith("lab.") else f"lab.quantization.{name}" for name in (importer, imported)
    )
    assert objections((importer, imported)) == [f"{importer} imports {imported}: {said}"]


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("pb_llm.figures", "pb_llm.studies"),
        ("pb_llm.views.words", "pb_llm.views.layer.experiment"),
        ("pb_llm.experiment", "pb_llm.evidence.races"),
        ("pb_llm.layer_experiment", "flexround.tuned"),
        ("flexround", "pb_llm.method"),
        ("pb_llm.method", "gptq"),
        ("gptq", "lab.train"),
    ],
)
def test_imports_downwards_keep_it(importer: str, imported: str) -> None:
    importer, imported = (
        name if name.startswith("lab.") else f"lab.quantization.{name}" for name in (importer, imported)
    )
    assert objections((importer, imported)) == []


def test_a_circle_is_found() -> None:
    names = ["lab.quantization.gptq", "lab.train", "lab.quantization.figures"]
    said = objections(*itertools.pairwise([*names[1:], names[1]]))
    assert sum("a circle" in line for line in said) == 2


def test_nothing_that_is_shipped_imports_a_test() -> None:
    root = Path(__file__).parents[1]
    tests = {path.stem for path in Path(__file__).parent.rglob("*.py")} | {"tests", "conftest"}
    shipped = {path.stem for folder in ("apps", "lab") for path in (root / folder).rglob("*.py")}
    for path in itertools.chain((root / "apps").rglob("*.py"), (root / "lab").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.split(".")[0] for name in names} & (tests - shipped), path
