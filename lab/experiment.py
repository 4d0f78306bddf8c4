"""What an experiment is: a Config goes in, `run` reports its progress, a Result comes out.

A room (`lab/<theme>/<paper>/experiment.py`) offers three tuples:

    EXPERIMENTS   what pages and notebooks show          Config [+ inputs] -> Result
    STUDIES       what the ledger's claims rest on       seed -> named numbers
    RACES         what `lab bench` times                 peers in one run -> ratios
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
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


def silent(fraction: float, note: str = "", partial: Any | None = None) -> None:
    """The progress callback of those who do not watch."""


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


@dataclass(frozen=True)
class Experiment:
    """One experiment of a room.

    cost     "live": answers within about a second, recomputed as a knob moves; "run": shows the recorded result, has Run.
    config   the Config subclass; result: the frozen dataclass that `run` returns
    run      run(config, *, progress) or, with `inputs`, run(config, inputs, *, progress); deterministic for a seed
    inputs   the type of what the reader brings, if any; such results are never shipped
    write    writes a Result as a file of the field's own format (labels.csv, parts.glb); used by `lab run`
    """

    slug: str
    key: str
    title: str
    cost: Cost
    config: type[Config]
    result: type
    run: Callable[..., Any]
    inputs: Any = None  # a class that keeps the protocol Inputs, or None
    write: Callable[[Any, Path], None] | None = None

    def __call__(self, config: Config | None = None, inputs: Any | None = None, *, progress: Progress = silent) -> Any:
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
class Study:
    """A measurement that claims rest on: one call measures one replicate and returns named numbers (columns).

    measure      measure(seed, *, progress) -> {column: number}; method and baselines share the seed, so rows are paired
    replication  what a new seed makes anew: a training, the data, or only the sampling; None for an exact statement,
                 which has no seeds (measure is called once, with seed 0)
    seeds        the ledger's seeds, disjoint from the ones that tuned any knob
    tune         tune(*, progress, jobs) -> {"chosen": {...}, "trials": [...], "seeds": [...]}: the search behind every
                 tuned knob, in that many processes
    chosen       the constants in the code that the search must have chosen; checked against the record
    """

    slug: str
    key: str
    title: str
    measure: Callable[..., Mapping[str, float]]
    replication: Replication | None
    seeds: tuple[int, ...] = (0,)
    seconds: float = 1.0
    tune: Callable[..., Mapping[str, Any]] | None = None
    chosen: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Race:
    """A timed comparison of peers in one process: run(*, quick, progress) -> {"rows": [...], ...}, ratios included.

    Each row has key, method, peer, target (the ratio aimed at) and ratio = {"median", "min", "max"}.
    """

    slug: str
    key: str
    title: str
    run: Callable[..., Mapping[str, Any]]
