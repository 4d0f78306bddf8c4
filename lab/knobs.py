"""Config -> Control: one declaration of a knob, drawn alike by the dashboard, the notebooks and the command line."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from lab.experiment import Config

Kind = Literal["toggle", "choice", "int", "number", "float", "log", "text"]


@dataclass(frozen=True)
class Control:
    """How to draw one Config field.

    kind     toggle | choice (options) | int (slider) | number (wide int: a box) | float (slider) | log (grid) | text
    low, high, step   numbers in the field's unit (None where they do not apply)
    options  the choices, or the grid of a log slider
    """

    name: str
    kind: Kind
    default: Any
    label: str
    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    step: float | None = None
    options: tuple[Any, ...] = ()
    max_length: int | None = None
    private: bool = False
    primary: bool = False


def controls(config: type[Config]) -> tuple[Control, ...]:
    """Every field of a Config as a Control, primary ones first.

    Raises TypeError for a field that cannot be drawn (no bounds, no description, an unknown type): a mistake of ours.

    >>> from lab.experiment import Config, knob
    >>> class C(Config):
    ...     eps: float = knob(0.1, "entropy", ge=0.01, le=1.0, scale="log")
    >>> controls(C)[0].kind, controls(C)[0].options[0], controls(C)[0].options[-1]
    ('log', 0.01, 1.0)
    """
    drawn = [_control(config, name) for name in config.model_fields]
    order = {name: place for place, name in enumerate(config.primary)}
    return tuple(sorted(drawn, key=lambda control: order.get(control.name, len(order))))


def _control(config: type[Config], name: str) -> Control:
    field = config.model_fields[name]
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    place = f"{config.__name__}.{name}"
    if not field.description or field.is_required():
        raise TypeError(f"{place} needs a default and a description")
    unit = str(extra.get("unit", ""))
    common: dict[str, Any] = {
        "name": name,
        "default": field.default.value if isinstance(field.default, Enum) else field.default,
        "label": (str(extra.get("label") or "") or name.replace("_", " ")) + (f" ({unit})" if unit else ""),
        "help": field.description,
        "unit": unit,
        "private": bool(extra.get("private", False)),
        "primary": name in config.primary,
    }
    annotation = field.annotation
    low, high = _bound(field.metadata, "ge"), _bound(field.metadata, "le")
    step = extra.get("step")
    if annotation is bool:
        return Control(kind="toggle", **common)
    if options := _options(annotation):
        return Control(kind="choice", options=options, **common)
    if annotation is str:
        limit = _bound(field.metadata, "max_length")
        if limit is None:
            raise TypeError(f"{place} needs a max_length")
        return Control(kind="text", max_length=int(limit), **common)
    if annotation not in (int, float) or low is None or high is None:
        raise TypeError(f"{place} cannot be drawn: {annotation!r} with bounds {low}, {high}")
    if extra.get("scale") == "log":
        grid = log_grid(low, high, field.default, whole=annotation is int)
        return Control(kind="log", low=low, high=high, options=grid, **common)
    if annotation is int:
        kind: Kind = "int" if high - low <= 5000 else "number"
        return Control(kind=kind, low=int(low), high=int(high), step=int(typing.cast(Any, step) or 1), **common)
    return Control(
        kind="float",
        low=float(low),
        high=float(high),
        step=float(typing.cast(Any, step) or (high - low) / 100),
        **common,
    )


def log_grid(low: float, high: float, default: float, whole: bool = False) -> tuple[Any, ...]:
    """A rounded 1-1.5-2-3-5-7 grid from low to high that contains both ends and the default."""
    if low <= 0:
        raise TypeError(f"a log scale needs a positive lower bound, got {low}")
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = {float(f"{digit}e{decade}") for decade in decades for digit in (1, 1.5, 2, 3, 5, 7)}
    values = {value for value in values if low <= value <= high} | {low, high, default}
    return tuple(sorted({round(value) for value in values} if whole else {float(value) for value in values}))


def _options(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return tuple(member.value for member in annotation)
    return ()


def _bound(metadata: list[Any], name: str) -> float | None:
    values = [getattr(item, name) for item in metadata if getattr(item, name, None) is not None]
    return values[0] if values else None
