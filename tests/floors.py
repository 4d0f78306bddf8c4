"""An import contract: the floors within a theme and its rooms, and what rooms and themes may know of one another.

`lint-imports` checks it (pyproject.toml), by the names of files and folders, in sub-packages too.
Imports go downwards or stay on their floor. A room may import another room's method and its tuned settings, a theme
none of its rooms and no other theme, the house no theme. Nothing imports itself by way of others. The floors, from the lowest:

    method        whatever has none of the names below, `__init__` included
    tuned         `tuned`: the settings that a search chose, as data
    experiments   `*_experiment`, `experiment` in a sub-package, and whatever else lies in a folder `views`
    evidence      `studies`, `*_study`, `*_studies`, `tuning`, `*_tuning`, `races`, and what lies in a folder `evidence`
    the door      the room's own `experiment`, which gathers experiments, studies and races
    figures       `figures`, `*_figures`
    exercises     `exercises`
"""

from __future__ import annotations

import re
from typing import NamedTuple

from grimp import ImportGraph
from importlinter import Contract, ContractCheck
from importlinter.application import output

from lab.catalog import THEMES

FLOORS = ("method", "tuned", "experiments", "evidence", "the door", "figures", "exercises")
METHOD, TUNED, EXPERIMENTS, EVIDENCE, DOOR, FIGURES, EXERCISES = range(len(FLOORS))
NAMES = {
    EXERCISES: r"exercises",
    FIGURES: r"figures|\w+_figures",
    EVIDENCE: r"studies|\w+_study|\w+_studies|tuning|\w+_tuning|races",
    EXPERIMENTS: r"experiment|\w+_experiment",
    TUNED: r"tuned",
}
FOLDERS = {"views": EXPERIMENTS, "evidence": EVIDENCE}


class Place(NamedTuple):
    """Where a module stands; theme and room are empty for the house, room for what a theme shares."""

    theme: str
    room: str
    floor: int


def place(module: str, packages: set[str]) -> Place:
    """Theme, room and floor of a module by its name; `packages` are those that have modules in them.

    >>> rooms = {"lab.clustering.sp2ot", "lab.clustering.sp2ot.views"}
    >>> [place(f"lab.clustering.sp2ot.{name}", rooms).floor for name in ("transport", "views.words", "experiment")]
    [0, 2, 4]
    >>> place("lab.clustering.figures", rooms), place("lab.train", rooms)
    (Place(theme='clustering', room='', floor=5), Place(theme='', room='', floor=0))
    """
    *folders, name = module.split(".")
    folders = folders[1:]
    if not folders or folders[0] not in THEMES:
        return Place(name if name in THEMES else "", "", METHOD)
    if len(folders) == 1 and module in packages:
        return Place(folders[0], name, METHOD)
    room = folders[1] if len(folders) > 1 else ""
    if len(folders) == 2 and name == "experiment":
        return Place(folders[0], room, DOOR)
    named = next((floor for floor, names in NAMES.items() if re.fullmatch(names, name)), METHOD)
    return Place(folders[0], room, max([named, *(FOLDERS.get(folder, METHOD) for folder in folders[2:])]))


def objection(importer: Place, imported: Place) -> str:
    """Why one module may not import another; "" if it may.

    >>> objection(Place("tables", "transtab", METHOD), Place("tables", "transtab", FIGURES))
    'method imports figures'
    """
    if not imported.theme or importer == imported:
        return ""
    if not importer.theme:
        return "the house imports a theme"
    if importer.room and importer.room != imported.room and imported.room:
        return "" if imported.floor <= TUNED else f"a room imports another room's {FLOORS[imported.floor]}"
    if importer.theme != imported.theme:
        return "" if importer.room and imported.floor <= TUNED else "a theme imports another"
    if imported.room and not importer.room:
        return "a theme imports one of its rooms"
    if imported.floor > importer.floor:
        return f"{FLOORS[importer.floor]} imports {FLOORS[imported.floor]}"
    return ""


class Floors(Contract):
    """The contract; it has no options."""

    type_name = "floors"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        packages = {module.rpartition(".")[0] for module in graph.modules}
        places = {module: place(module, packages) for module in graph.modules if module.split(".")[0] == "lab"}
        broken = [
            f"{importer} imports {imported}: {said}"
            for importer in sorted(places)
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if imported in places and (said := objection(places[importer], places[imported]))
        ]
        above = {module: graph.find_upstream_modules(module) for module in places}
        broken += [
            f"{importer} imports {imported}: a circle"
            for importer in sorted(places)
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if importer in above.get(imported, set())
        ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["broken"]:
            output.print_error(f"  {line}", bold=False)
