"""`lab run SLUG FILE`: a paper's method on the reader's own file, its options drawn from the experiment's Config."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from lab import paths, rooms
from lab.catalog import Card
from lab.experiment import Config, ConfigError, Experiment
from lab.knobs import Control, controls


def run(card: Card, arguments: list[str]) -> None:
    """Read the file, run the method, write the result beside it (or to --out); every error is one sentence.

    Raises ConfigError, rooms.NotReady or paths.FolderError, which the command line turns into exit code 2.
    """
    experiment = _own_file_experiment(card)
    parsed = vars(_parser(card, experiment).parse_args(arguments))
    source, target = Path(parsed.pop("file")), parsed.pop("out", "")
    config = experiment.config.parse(parsed)
    limit = experiment.inputs.max_megabytes * 2**20
    if not source.is_file():
        raise ConfigError(f"there is no file {str(source)!r}")
    if source.stat().st_size > limit:
        raise ConfigError(f"{source.name!r} is larger than {limit // 2**20} MB, the limit")
    destination = Path(target) if target else source.with_name(f"{source.stem}-{card.slug}.csv")
    if destination.is_dir():
        raise ConfigError(f"--out names the folder {str(destination)!r}; give it a file's name too")
    if destination.exists() and destination.samefile(source):
        raise ConfigError(
            f"--out names your own file {destination.name!r}, which it would replace; choose another name"
        )
    paths.writable(destination.resolve().parent)
    from lab.files import FileError

    try:
        inputs = experiment.inputs.read(source, name=source.name)
        result = experiment(config, inputs, progress=_report)
    except (FileError, ValueError) as error:
        raise ConfigError(str(error)) from error
    part = destination.with_name(f".{destination.name}.part")
    try:
        experiment.write(result, part)  # type: ignore[misc]
        os.replace(part, destination)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {destination} ({error.strerror or error})") from error
    print(f"\r\033[Kwrote {destination}", file=sys.stderr)


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
        print(f"\r\033[K{fraction:4.0%} {note}", end="", file=sys.stderr, flush=True)
