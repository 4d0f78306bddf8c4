"""A paper's room, opened: its experiments, studies and races, imported only when they are asked for."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from lab.catalog import Card
from lab.experiment import Experiment, Race, Study
from lab.views import View


class NotReady(ValueError):
    """The paper's room is not built yet."""


def _door(card: Card, name: str) -> ModuleType:
    if not card.has_room:
        raise NotReady(f"{card.short} is planned; its room is not built yet (`lab list` shows what is ready)")
    return importlib.import_module(f"{card.module}.{name}")


def method(card: Card) -> ModuleType:
    """The method's package."""
    _door(card, "experiment")
    return importlib.import_module(card.module)


def figures(card: Card) -> ModuleType:
    """The room's figure functions."""
    return _door(card, "figures")


def views(card: Card) -> dict[str, View]:
    """What the room's page shows, by the key of the experiment."""
    return {view.experiment: view for view in figures(card).VIEWS}


def experiments(card: Card) -> dict[str, Experiment]:
    """The room's experiments by key."""
    return {experiment.key: experiment for experiment in _door(card, "experiment").EXPERIMENTS}


def studies(card: Card) -> dict[str, Study]:
    """The room's studies by key."""
    return {study.key: study for study in _door(card, "experiment").STUDIES}


def races(card: Card) -> dict[str, Race]:
    """The room's races by key."""
    return {race.key: race for race in _door(card, "experiment").RACES}


def recorded_configs(card: Card) -> list[tuple[Experiment, Any]]:
    """What must be shipped as a recorded result: each `run` experiment without inputs, at its defaults and tour steps."""
    wanted = []
    for key, experiment in experiments(card).items():
        if experiment.cost != "run" or experiment.inputs is not None:
            continue
        configs = [experiment.config()]
        configs += [experiment.config.parse(step.config) for step in card.tour if step.experiment == key]
        wanted += [(experiment, config) for config in dict.fromkeys(configs)]
    return wanted
