"""What an experiment is: a Config goes in, `run` reports its progress, a Result comes out.

A room (`lab/<theme>/<paper>/experiment.py`) offers three tuples:

    EXPERIMENTS   what pages and notebooks show          Config [+ inputs] -> Result
    STUDIES       what the ledger's claims rest on       seed -> named numbers
    RACES         what `lab bench` times                 peers in one run -> ratios

Each is a function declared by `@experiment`, `@study` or `@race`: slug, Config and Result follow from where the function
stands and from its annotations, so that only the key and the title are written, once.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

Cost = Literal["live", "run"]
Replication = Literal["training", "data", "sampling"]
Scale = Literal["linear", "log"]
C = TypeVar("C", bound="Config")


class Stopped(Exception):
    """Raised by a progress callback when the reader pressed Stop; `run` must let it through."""


class ConfigError(ValueError):
    """A Config refused its values; the text is one sentence for the reader."""


@runtime_checkable
class Progress(Protocol):
    """How a run tells where it is: a fraction in [0, 1], a few words, and (optionally) a Result so far."""

    def __call__(self, fraction: float, note: str = "", partial: Any | None = None) -> None: ...


def no_progress(fraction: float, note: str = "", partial: Any | None = None) -> None:
    """A progress callback that does nothing."""


def part(progress: Progress, begin: float, share: float, label: str = "") -> Progress:
    """The progress callback of a part of a run: its fraction f is shown as begin + share * f, its note as "label: note".

    >>> seen = []
    >>> part(lambda fraction, note="", partial=None: seen.append((fraction, note)), 0.5, 0.25, "layer 3")(1.0, "fitting")
    >>> seen
    [(0.75, 'layer 3: fitting')]
    """

    def report(fraction: float, note: str = "", partial: Any | None = None) -> None:
        progress(begin + share * fraction, ": ".join(words for words in (label, note) if words), partial)

    return report


class Config(BaseModel):
    """Base of every experiment's knobs: frozen, no unknown names, no NaN or inf.

    `primary` names at most four knobs that stand beside the picture; the rest fold away.

    >>> class Blobs(Config):
    ...     n: int = knob(200, "number of points", ge=10, le=1000)
    >>> Blobs.parse({"n": 5})
    Traceback (most recent call last):
    lab.experiment.ConfigError: n: Input should be greater than or equal to 10 (you gave 5).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    primary: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parse(cls: type[C], values: Mapping[str, Any]) -> C:
        """A Config from plain values; ConfigError says in one sentence which field is wrong and what would be right."""
        try:
            return cls(**dict(values))
        except ValidationError as error:
            raise ConfigError(_sentence(error)) from error

    def fingerprint(self) -> str:
        """Sixteen hex digits that name these values: the cache's key."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message if message.endswith(".") else f"{message}."
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{name}: there is no such knob."
    given = repr(first["input"])
    return f"{name}: {message} (you gave {given if len(given) <= 60 else given[:57] + '...'})."


def knob(
    default: Any,
    description: str,
    *,
    ge: float | None = None,
    le: float | None = None,
    step: float | None = None,
    unit: str = "",
    scale: Scale = "linear",
    label: str = "",
    private: bool = False,
    max_length: int | None = None,
) -> Any:
    """A Config field that can be drawn as a control: bounds, unit, a one-line description.

    scale="log" draws a slider over a rounded logarithmic grid. `label` is what stands above the control; the field's name
    if left out. `private` fields (paths, hub ids) are never bound to a
    page's address and are drawn only after `lab open --allow-models`.
    """
    extra: dict[str, JsonValue] = {"unit": unit, "scale": scale, "label": label, "private": private, "step": step}
    return Field(default, description=description, json_schema_extra=extra, ge=ge, le=le, max_length=max_length)


@runtime_checkable
class Inputs(Protocol):
    """What a reader brings beside the knobs: an upload, or a selection made by clicking.

    `accept` lists file suffixes for the upload box (empty for selections), `max_megabytes` its limit.
    """

    accept: ClassVar[tuple[str, ...]]
    max_megabytes: ClassVar[int]

    @classmethod
    def read(cls, source: Path | bytes, *, name: str) -> Inputs:
        """Parse the reader's file; raises lab.files.FileError with one sentence."""
        ...

    def fingerprint(self) -> str:
        """Hex digits that name this content in a cache."""
        ...


def slug_of(module: str) -> str:
    """The slug of the paper in whose room a module stands.

    >>> slug_of("lab.quantization.pb_llm.studies")
    'pb-llm'
    """
    from lab import paths

    parts = module.split(".")
    if parts[0] == "lab" and len(parts) > 2:
        return parts[2].replace("_", "-")
    for slug, package in paths.external_papers().items():
        if module == package or module.startswith(f"{package}."):
            return slug
    return parts[0].replace("_", "-")


def _declared(module: str, name: str) -> Any:
    """What pickles of declarations are rebuilt by: the object that a module holds under its function's name."""
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class Declaration:
    """What experiments, studies and races have in common: they stand for their functions, also in other processes."""

    slug: str
    key: str
    title: str
    run: Callable[..., Any]

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.run

    def __reduce__(self) -> tuple[Any, ...]:
        return _declared, (self.run.__module__, self.run.__name__)


@dataclass(frozen=True)
class Experiment(Declaration):
    """One experiment of a room, made by `@experiment`.

    cost     "live": answers within about a second, recomputed as a knob moves; "run": shows the recorded result, has Run.
    config   the Config subclass; result: the frozen dataclass that `run` returns
    run      run(config, *, progress) or, with `inputs`, run(config, inputs, *, progress); deterministic for a seed
    inputs   the type of what the reader brings, if any; such results are never shipped
    write    writes a Result as a file of the field's own format (labels.csv, parts.glb); used by `lab run`
    small    knob values at which a run takes a moment: what tests run
    """

    cost: Cost
    config: type[Config]
    result: type
    inputs: Any = None  # a class that keeps the protocol Inputs, or None
    write: Callable[[Any, Path], None] | None = None
    small: Mapping[str, Any] = field(default_factory=dict)
    kind: ClassVar[Literal["experiment"]] = "experiment"

    def small_config(self) -> Config:
        """A Config at which a run takes a moment."""
        return self.config.parse(self.small)

    def __call__(
        self, config: Config | None = None, inputs: Any | None = None, *, progress: Progress = no_progress
    ) -> Any:
        """Run it, with its arguments checked."""
        config = self.config() if config is None else config
        if not isinstance(config, self.config):
            raise TypeError(
                f"config: {self.slug}/{self.key} takes a {self.config.__name__}, not {type(config).__name__}"
            )
        if (self.inputs is None) != (inputs is None):
            wanted = "no inputs" if self.inputs is None else f"inputs of type {self.inputs.__name__}"
            raise TypeError(f"inputs: {self.slug}/{self.key} takes {wanted}, got {type(inputs).__name__}")
        result = self.run(config, progress=progress) if inputs is None else self.run(config, inputs, progress=progress)
        if not (isinstance(result, self.result) and is_dataclass(result)):
            raise TypeError(f"{self.slug}/{self.key} returned {type(result).__name__}, not {self.result.__name__}")
        return result


@dataclass(frozen=True)
class Study(Declaration):
    """A measurement that claims rest on, made by `@study`: one call measures one replicate.

    run          run(seed, *, progress) -> {column: number}; method and baselines share the seed, so rows are paired
    columns      the names of these numbers: a card may judge no others
    replication  what a new seed makes anew: a training, the data, or only the sampling; None for an exact statement,
                 which has no seeds (it is called once, with seed 0)
    seeds        the ledger's seeds, disjoint from the ones that tuned any knob
    tune         tune(*, progress, jobs) -> {"chosen": {...}, "trials": [...], "seeds": [...]}: the search behind every
                 tuned knob, in that many processes
    chosen       the constants in the code that the search must have chosen; checked against the record
    """

    replication: Replication | None
    seeds: tuple[int, ...] = (0,)
    columns: tuple[str, ...] = ()  # of an undeclared one: not judged
    tune: Callable[..., Mapping[str, Any]] | None = None
    chosen: Mapping[str, Any] | None = None
    kind: ClassVar[Literal["study"]] = "study"

    def __call__(self, seed: int = 0, *, progress: Progress = no_progress) -> dict[str, float]:
        """Measure one replicate; ValueError when it returns other columns than it declares."""
        values = {name: float(value) for name, value in self.run(seed, progress=progress).items()}
        if self.columns and set(values) != set(self.columns):
            other = ", ".join(sorted(set(values) ^ set(self.columns)))
            raise ValueError(f"{self.slug}/{self.key} declares other columns than it returns: {other}")
        return values


@dataclass(frozen=True)
class Race(Declaration):
    """A timed comparison of peers in one process, made by `@race`: run(*, quick, progress) -> {"rows": [...], ...}.

    Each row has key, method, peer, target (the ratio aimed at) and ratio = {"median", "min", "max"}; `rows` are the keys.
    """

    rows: tuple[str, ...] = ()
    kind: ClassVar[Literal["race"]] = "race"

    def __call__(self, *, quick: bool = False, progress: Progress = no_progress) -> dict[str, Any]:
        """Run it; ValueError when its rows have other keys than it declares.

        Rows of peers that are named in the answer's "not_installed" may be missing.
        """
        answer = dict(self.run(quick=quick, progress=progress))
        keys = [row["key"] for row in answer["rows"]]
        other = set(keys) - set(self.rows) if answer.get("not_installed") else set(keys) ^ set(self.rows)
        if self.rows and other:
            raise ValueError(f"{self.slug}/{self.key} declares other rows than it returns: {', '.join(sorted(other))}")
        return answer


def experiment(
    key: str,
    title: str,
    *,
    cost: Cost,
    small: Mapping[str, Any] | None = None,
    write: Callable[[Any, Path], None] | None = None,
) -> Callable[[Callable[..., Any]], Experiment]:
    """Declare an experiment: the decorated run(config, [inputs,] *, progress) becomes an `Experiment`, called alike.

    Config, inputs and Result are its annotations. `key` must be written as a literal: records find their code by it.
    """

    def declare(run: Callable[..., Any]) -> Experiment:
        types = typing.get_type_hints(run)
        given = [name for name in inspect.signature(run).parameters if name != "progress"]
        config, inputs = types[given[0]], types[given[1]] if len(given) > 1 else None
        slug = slug_of(run.__module__)
        return Experiment(slug, key, title, run, cost, config, types["return"], inputs, write, small or {})

    return declare


def study(
    key: str,
    title: str,
    *,
    columns: Sequence[str],
    replication: Replication | None,
    seeds: Sequence[int] = (0,),
    tune: Callable[..., Mapping[str, Any]] | None = None,
    chosen: Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., Mapping[str, float]]], Study]:
    """Declare a study: the decorated run(seed, *, progress) -> {column: number} becomes a `Study`, called alike."""

    def declare(run: Callable[..., Mapping[str, float]]) -> Study:
        slug = slug_of(run.__module__)
        return Study(slug, key, title, run, replication, tuple(seeds), columns=tuple(columns), tune=tune, chosen=chosen)

    return declare


def race(key: str, title: str, *, rows: Sequence[str]) -> Callable[[Callable[..., Mapping[str, Any]]], Race]:
    """Declare a race: the decorated run(*, quick, progress) -> {"rows": [...]} becomes a `Race`, called alike."""
    return lambda run: Race(slug_of(run.__module__), key, title, run, tuple(rows))
