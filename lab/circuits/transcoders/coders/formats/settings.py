"""What a coder's config file says: small JSON or YAML, read as plain values, each asked for by its name and kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.circuits.transcoders.errors import CircuitError
from lab.files import FileError, Limits
from lab.files.bounds import content, shown

CONFIG_LIMITS = Limits(max_bytes=2**20)
YAML_LIMITS = Limits(max_bytes=2**16)  # the pure Python parser takes a second for that much
YAML_DEPTH = 16
TEXT = 200  # characters that a name in a config may have


@dataclass(frozen=True)
class Settings:
    """The values of one config file; `name` is the file's, for messages.

    >>> Settings("cfg.json", {"d_in": 8}).whole("d_in")
    8
    """

    name: str
    values: Mapping[str, Any]

    def whole(self, key: str) -> int | None:
        """A whole number >= 1; None where there is none. Raises CircuitError for anything else."""
        value = self.values.get(key)
        if value is not None and (type(value) is not int or value < 1):
            raise self.wrong(key, "a whole number from 1 on")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false. Raises CircuitError for anything else."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, *keys: str) -> str:
        """The text under the first of the keys that has one, else "". Raises CircuitError for what is no short text."""
        for key in keys:
            value = self.values.get(key)
            if value is not None:
                if not isinstance(value, str) or len(value) > TEXT or not value.isprintable():
                    raise self.wrong(key, f"a text of at most {TEXT} printable characters")
                return value
        return ""

    def only(self, key: str, *allowed: Any) -> None:
        """Raise CircuitError unless the key is missing or has one of these values."""
        if key in self.values and self.values[key] not in allowed:
            raise self.wrong(key, " or ".join(map(json.dumps, allowed)))

    def inner(self, key: str) -> Settings:
        """The values under `key`, none where it is missing. Raises CircuitError for what is no object."""
        value = self.values.get(key) or {}
        if not isinstance(value, dict):
            raise self.wrong(key, "an object of names and values")
        return Settings(self.name, value)

    def wrong(self, key: str, wanted: str) -> CircuitError:
        return CircuitError(f"{self.name}: {key} is {shown(self.values.get(key))}; it must be {wanted}")


def read_json(path: Path) -> Settings:
    """The object in a JSON file of at most 1 MiB; raises FileError for anything else."""
    data, title = content(path, None, CONFIG_LIMITS)
    try:
        values = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{title}: this is no JSON text; copy the file again") from error
    return _settings(path, title, values)


def read_yaml(path: Path) -> Settings:
    """The mapping in a YAML file of at most 64 KiB, as plain values; raises FileError for anything else.

    Anchors are refused: a few lines of references to references stand for more values than fit in memory.
    """
    import yaml

    data, title = content(path, None, YAML_LIMITS)
    try:
        text, depth = data.decode("utf-8"), 0
        for token in yaml.scan(text):  # token by token: of deep nesting the parser would take minutes
            opens, closes = type(token).__name__.endswith("StartToken"), type(token).__name__.endswith("EndToken")
            depth += opens - closes
            if isinstance(token, (yaml.AliasToken, yaml.AnchorToken)) or depth > YAML_DEPTH:
                raise FileError(f"{title}: a coder's YAML has no anchors, aliases (&, *) or deep nesting; write it out")
        values = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise FileError(f"{title}: this is no YAML text of plain values; copy the file again") from error
    return _settings(path, title, values)


def _settings(path: Path, title: str, values: Any) -> Settings:
    if not isinstance(values, dict):
        raise FileError(f"{title}: there must be an object of names and values in it, not {type(values).__name__}")
    return Settings(path.name, values)
