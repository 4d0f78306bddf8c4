"""`lab run SLUG FILE`: a paper's method on the reader's own file, its options drawn from the experiment's Config."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from lab import rooms
from lab.catalog import Card
from lab.experiment import Config, ConfigError, Experiment
from lab.knobs import Control, controls

CLEAR = "\r\033[K"


def run(card: Card, arguments: list[str]) -> None:
    """Read the file, run the method, write the result beside it (or to --out); every error is one sentence.

    Raises ConfigError, rooms.NotReady or paths.FolderError, which the command line turns into exit code 2.
    """
    experiment = _own_file_experiment(card)
    parsed = vars(_parser(card, experiment).parse_args(arguments))
    source, target = Path(parsed.pop("file")), parsed.pop("out", "")
    try:
        destination = _destination(card, source, target)
        is_file, into_folder = source.is_file(), destination.is_dir()
    except OSError as error:  # a name that no file system takes
        raise ConfigError(f"{(error.filename or target)!s:.60} is no file's name ({error.strerror})") from error
    config = experiment.config.parse(parsed)
    limit = experiment.inputs.max_megabytes * 2**20
    if not is_file:
        raise ConfigError(f"there is no file {str(source)!r}")
    if source.stat().st_size > limit:
        raise ConfigError(f"{source.name!r} is larger than {limit // 2**20} MB, the limit")
    if into_folder:
        raise ConfigError(f"--out names the folder {str(destination)!r}; give it a file's name too")
    if destination == source.resolve():
        raise ConfigError(
            f"--out names your own file {destination.name!r}, which it would replace; choose another name"
        )
    if not destination.parent.is_dir() or not os.access(destination.parent, os.W_OK):
        raise ConfigError(f"cannot write to {destination.parent}: it is no folder, or one you may not write to")
    from lab.files import FileError

    try:
        inputs = experiment.inputs.read(source, name=source.name)
        result = experiment(config, inputs, progress=_report)
    except (FileError, ValueError) as error:
        raise ConfigError(str(error)) from error
    try:
        _write(experiment, result, destination)
    except OSError as error:
        raise ConfigError(f"cannot write {destination} ({error.strerror or error})") from error
    print(f"{CLEAR if sys.stderr.isatty() else ''}wrote {destination}", file=sys.stderr)


def _destination(card: Card, source: Path, target: str) -> Path:
    """Where the result goes: --out, links followed, or a name beside the file that is not taken yet."""
    if target:
        return Path(target).resolve()
    names = (
        f"{source.stem}-{card.slug}{f'-{number}' if number else ''}.csv"
        for number in itertools.chain([0], itertools.count(2))
    )
    return next(path for name in names if not (path := source.absolute().with_name(name)).exists())


def _write(experiment: Experiment, result: Any, destination: Path) -> None:
    """Whole or not at all; into devices and pipes as they are."""
    assert experiment.write is not None
    if destination.exists() and not destination.is_file():
        experiment.write(result, destination)
        return
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".lab-") as folder:
        part = Path(folder) / "part"
        experiment.write(result, part)
        os.replace(part, destination)


def _own_file_experiment(card: Card) -> Experiment:
    for experiment in rooms.experiments(card).values():
        if experiment.inputs is not None and experiment.inputs.accept and experiment.write is not None:
            return experiment
    raise rooms.NotReady(f"{card.short} has no method that takes a file")


def _parser(card: Card, experiment: Experiment) -> argparse.ArgumentParser:
    suffixes = ", ".join(experiment.inputs.accept)
    parser = argparse.ArgumentParser(
        prog=f"lab run {card.slug}",
        description=f"{experiment.title}. {card.idea}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("file", help=f"your file: {suffixes}")
    beside = "where to write the result; beside the file when left out"
    parser.add_argument("--out", default=argparse.SUPPRESS, help=beside)
    for control in controls(experiment.config):
        parser.add_argument(f"--{control.name.replace('_', '-')}", **_option(control, experiment.config))
    return parser


def _option(control: Control, config: type[Config]) -> dict[str, Any]:
    text = control.help + (f" [{control.unit}]" if control.unit else "")
    common: dict[str, Any] = {"dest": control.name, "default": control.default, "help": text.replace("%", "%%")}
    if control.kind == "toggle":
        return common | {"action": argparse.BooleanOptionalAction}
    if control.kind == "choice":
        return common | {"choices": control.options, "type": type(control.options[0])}
    if control.kind == "text":
        return common
    low, high = f"{control.low:g}", f"{control.high:g}"
    kind = config.model_fields[control.name].annotation
    return common | {"type": kind, "metavar": f"{low}..{high}"}


def _report(fraction: float, note: str = "", partial: Any | None = None) -> None:
    if sys.stderr.isatty():
        print(f"{CLEAR}{fraction:4.0%} {note}", end="", file=sys.stderr, flush=True)
