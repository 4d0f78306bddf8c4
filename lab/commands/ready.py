"""`lab check SLUG`: what a paper still lacks to be ready, as far as a program can see it."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from lab import exercise, ledger, paths, results, rooms
from lab.catalog import Card
from lab.commands import notebooks
from lab.commands.new import TODO
from lab.experiment import ConfigError, Race, Study

MAX_PAGE_LINES = 80
EXERCISES = 3


def missing(card: Card) -> list[str]:
    """What the paper lacks, one sentence each; empty when a program finds nothing more."""
    if not card.has_room:
        return ["there is no room yet" + ("" if card.package else f": `lab new {card.slug}` makes its skeleton")]
    found = _card(card) + _todo(card)
    try:
        importlib.invalidate_caches()
        found += _room(card) + _evidence(card)
    except Exception as error:  # the room is somebody's work in progress: whatever it raises is theirs to read
        found.append(f"the room cannot be used: {type(error).__name__}: {' '.join(str(error).split())}")
    return found + _page(card) + _notebook(card)


def _card(card: Card) -> list[str]:
    lacks = [name for name in ("headline", "minutes", "prerequisites", "claims", "tour") if not getattr(card, name)]
    found = [f"the card has no {name}" for name in lacks]
    if card.tour and not 3 <= len(card.tour) <= 6:
        found.append(f"the tour has {len(card.tour)} steps; 3 to 6 are right")
    return found


def _todo(card: Card) -> list[str]:
    """Files in which the skeleton still says TODO."""
    folders = [card.folder]
    if not card.package and not paths.installed():
        folders.append(paths.clone() / "tests" / card.theme / card.room)
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    files += [path for path in (card.page, card.page.with_suffix(".md"), card.notebook) if path.exists()]
    counts = {path: path.read_bytes().count(TODO.encode()) for path in dict.fromkeys(files) if path.suffix != ".pyc"}
    return [f"{path.name} says {TODO} {_times(count)}" for path, count in counts.items() if count]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _room(card: Card) -> list[str]:
    method, found = rooms.method(card), []
    for name in getattr(method, "__all__", ()):
        docstring = inspect.getdoc(getattr(method, name)) or ""
        lacks = [section for section in _sections(getattr(method, name)) if section not in docstring]
        if not docstring:
            found.append(f"{name} has no docstring")
        elif lacks:
            found.append(f"the docstring of {name} has no {' and no '.join(lacks)}")
    if not getattr(method, "__all__", ()):
        found.append("the method has no public names (`__all__` in `__init__.py`)")
    experiments, views = rooms.experiments(card), rooms.figures(card).VIEWS
    found += [f"experiment {key} has no view" for key in sorted(set(experiments) - {view.experiment for view in views})]
    found += [f"the view {view.tab!r} shows no experiment" for view in views if view.experiment not in experiments]
    for number, step in enumerate(card.tour, 1):
        try:
            experiments[step.experiment].config.parse(step.config)
        except (KeyError, ConfigError) as error:
            found.append(f"step {number} of the tour cannot be shown: {error}")
    count = len(exercise.exercises(card.slug))
    return found + ([f"{count} of {EXERCISES} exercises are there"] if count != EXERCISES else [])


def _sections(public: Any) -> list[str]:
    """The sections that the docstring of a public name needs."""
    try:
        parameters = [name for name in inspect.signature(public).parameters if name != "self"]
    except (TypeError, ValueError):
        return []
    return (["Parameters"] if parameters else []) + ["Examples"]


def _evidence(card: Card) -> list[str]:
    studies, races = rooms.studies(card), rooms.races(card)
    found = []
    for claim in card.claims:
        declared: Study | Race | None = (
            races.get(claim.study) if claim.rule.name == "race" else studies.get(claim.study)
        )
        if declared is not None:
            names = ledger.unknown_columns(card, declared)
            found += [f"{claim.study} has no column {name!r}, which a claim judges" for name in names]
        elif claim.rule.name != "out_of_reach":
            found.append(f"claim {claim.key} rests on {claim.study!r}, which the room does not declare")
    found = list(dict.fromkeys(found))
    if not card.record.exists():
        found.append(f"nothing is recorded: `lab measure {card.slug} --record`")
    else:
        for line in ledger.standings(card):
            if line.ours.verdict == "not measured":
                found.append(f"claim {line.claim.key} is not measured ({line.ours.reason})")
            elif line.stale:
                found.append(f"claim {line.claim.key} was {line.stale}")
    for experiment, config in rooms.recorded_configs(card):
        if not (results.shipped_folder(experiment, config) / "record.json").exists():
            found.append(
                f"the result of {experiment.key} is not recorded for {config.model_dump(exclude_defaults=True)}"
            )
    return found


def _page(card: Card) -> list[str]:
    if not card.page.exists():
        return ["there is no page"]
    found, lines = [], len(card.page.read_text(encoding="utf-8").splitlines())
    if lines > MAX_PAGE_LINES:
        found.append(f"the page has {lines} lines; {MAX_PAGE_LINES} are enough")
    return found + ([] if card.thumbnail.exists() else [f"there is no picture for the gallery ({card.thumbnail.name})"])


def _notebook(card: Card) -> list[str]:
    if not card.notebook.exists():
        return ["there is no notebook"]
    try:
        notebook = notebooks.read(card.notebook)
    except ValueError as error:
        return [str(error)]
    found = notebooks.too_long(notebook, notebooks.Limits()) + notebooks.traces(notebook)
    if card.prerequisites:
        found += notebooks.opening(notebook, card)
    code = "\n".join(notebook.sources("code"))
    unasked = [task.key for task in _exercises(card) if f'"{task.key}"' not in code]
    return found + [f"the notebook does not ask the exercise {key}" for key in unasked]


def _exercises(card: Card) -> tuple[exercise.Exercise, ...]:
    try:
        return exercise.exercises(card.slug)
    except Exception:  # said already, with the room
        return ()
