"""The cards: identity, idea, claims and tour of each paper, read without loading a method.

The lab's own 24 stand in `lab/papers/*.toml`. Another package's paper joins by an entry point of the group `paperlab.papers`,
slug = "the.package"; in that package's folder lie `card.toml` and all else that belongs to the paper.
"""

from __future__ import annotations

import difflib
import functools
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab import paths
from lab.experiment import Replication

THEMES: dict[str, str] = {
    "circuits": "Circuits",
    "generation": "Generation",
    "clustering": "Clustering",
    "quantization": "Quantization",
    "finetuning": "Fine-tuning",
    "architectures": "Architectures",
    "augmentation": "Augmentation",
    "language": "Language",
    "tables": "Tables",
    "sparse": "Sparse matrices",
}
Status = Literal["ready", "planned"]
Verdict = Literal["shown", "direction only", "not shown", "opposite", "out of reach", "not measured"]


class UnknownPaper(ValueError):
    """No card has this slug; the text names the nearest one."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Exceeds(_Strict):
    """method - baseline (in the better direction) lies above `margin`, by its 95 % interval."""

    name: Literal["exceeds"]
    margin: float = Field(ge=0)

    def __str__(self) -> str:
        return f"exceeds by > {self.margin:g}"


class NotWorse(_Strict):
    """method - baseline (in the better direction) lies above -`margin`, by its 95 % interval."""

    name: Literal["not_worse"]
    margin: float = Field(ge=0)

    def __str__(self) -> str:
        return f"not worse by > {self.margin:g}"


class Ordered(_Strict):
    """Each column of `levels` is better than the one before it, by its 95 % interval."""

    name: Literal["ordered"]
    levels: tuple[str, ...] = Field(min_length=2)

    def __str__(self) -> str:
        return "ordered: " + " < ".join(self.levels)


class Holds(_Strict):
    """An exact statement: the measured violation is at most `tolerance`; no seeds."""

    name: Literal["holds"]
    tolerance: float = Field(ge=0)

    def __str__(self) -> str:
        return f"holds to {self.tolerance:g}"


class RaceRule(_Strict):
    """The method is at least `ratio` times faster than `peer` in every row of `lab bench` that `rows` names."""

    name: Literal["race"]
    ratio: float = Field(gt=0)
    peer: str
    rows: tuple[str, ...] = Field(min_length=1)

    def __str__(self) -> str:
        return f"≥ {self.ratio:g}× {self.peer}"


class OutOfReach(_Strict):
    """Not measurable here (human raters, billions of parameters); says why.

    yours   the rule for what a reader measures all the same, as a rater; the lab's own verdict stays "out of reach"
    """

    name: Literal["out_of_reach"]
    why: str
    yours: Annotated[Exceeds | NotWorse, Field(discriminator="name")] | None = None

    def __str__(self) -> str:
        return f"out of reach: {self.why}" + (f"; yours: {self.yours}" if self.yours else "")


Rule = Annotated[Exceeds | NotWorse | Ordered | Holds | RaceRule | OutOfReach, Field(discriminator="name")]


class Claim(_Strict):
    """What a paper claims and the rule by which the lab judges it.

    study, method, baseline   the room's study and the two columns compared (holds: `method` is the violation);
                              for race rules `study` is the race
    replication               what must be made anew for the claim; a study that replicates less gives "direction only"
    scale                     "log": compare ratios, not differences
    """

    key: str = Field(pattern=r"^[a-z0-9-]+$")
    paper: str
    figure: str
    where: str
    metric: str
    unit: str
    better: Literal["higher", "lower"] = "higher"
    method: str = ""
    baseline: str = ""
    study: str = ""
    rule: Rule
    replication: Replication | None = None
    scale: Literal["linear", "log"] = "linear"
    why: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Claim:
        rule = (self.rule.yours or self.rule) if self.rule.name == "out_of_reach" else self.rule
        if rule.name in ("exceeds", "not_worse") and not (self.study and self.method and self.baseline):
            raise ValueError(f"claim {self.key}: {rule.name} needs study, method and baseline")
        if rule.name in ("exceeds", "not_worse", "ordered") and self.replication is None:
            raise ValueError(f"claim {self.key}: {rule.name} needs its unit of replication")
        if self.rule.name in ("holds", "race", "ordered") and not self.study:
            raise ValueError(f"claim {self.key}: {self.rule.name} needs a study")
        return self


class Step(_Strict):
    """One step of a tour: a sentence, and the knobs to set in one of the room's experiments."""

    text: str
    experiment: str
    config: dict[str, Any] = {}


class Card(_Strict):
    """One paper. `claims`, `tour`, `headline`, `minutes` and `prerequisites` (of the walkthrough) come with its room."""

    slug: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: str
    short: str
    theme: str
    authors: tuple[str, ...] = Field(min_length=1)
    year: int = Field(ge=1990, le=2100)
    venue: str = ""
    arxiv: str = Field("", pattern=r"^(\d{4}\.\d{4,5})?$")
    code: str = Field("", pattern=r"^(https://\S+)?$")
    code_licence: str = ""
    idea: str
    notes: tuple[str, ...] = ()
    headline: str = ""
    minutes: int = 0
    prerequisites: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    tour: tuple[Step, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        if self.theme not in THEMES:
            raise ValueError(f"{self.slug}: theme {self.theme!r} is none of {', '.join(THEMES)}")
        keys = [claim.key for claim in self.claims]
        if len(set(keys)) != len(keys):
            raise ValueError(f"{self.slug}: two claims share a key")
        return self

    @property
    def room(self) -> str:
        """The room's folder name: the slug with `_` for `-`."""
        return self.slug.replace("-", "_")

    @property
    def package(self) -> str:
        """The package that brings this paper; empty for the lab's own."""
        return paths.external_papers().get(self.slug, "")

    @property
    def module(self) -> str:
        """The method's dotted name, e.g. `lab.clustering.sp2ot`."""
        return self.package or f"lab.{self.theme}.{self.room}"

    @property
    def folder(self) -> Path:
        """The room's folder, whether it exists or not."""
        return paths.external_folder(self.slug) or paths.cards_folder().parent / self.theme / self.room

    @property
    def page(self) -> Path:
        """The file of the paper's page, whether it exists or not."""
        return self.folder / "page.py" if self.package else paths.shared("apps") / self.theme / f"{self.room}.py"

    @property
    def notebook(self) -> Path:
        """The paper's walkthrough, whether it exists or not."""
        name = f"{self.slug}.ipynb"
        return self.folder / name if self.package else paths.shared("notebooks") / self.theme / name

    @property
    def thumbnail(self) -> Path:
        """The picture of the paper's idea, whether it exists or not."""
        if self.package:
            return self.folder / "thumbnail.svg"
        return paths.shared("apps") / "thumbnails" / f"{self.slug}.svg"

    @property
    def record(self) -> Path:
        """The paper's ledger record, whether it exists or not."""
        return paths.record_file(self.slug)

    @property
    def has_room(self) -> bool:
        """The room has its three doors: its code can be run."""
        return all((self.folder / door).exists() for door in ("__init__.py", "experiment.py", "figures.py"))

    @property
    def status(self) -> Status:
        """`ready` when the room, its page, its notebook and its ledger record all exist, else `planned`."""
        complete = self.has_room and all(path.exists() for path in (self.page, self.notebook, self.record))
        return "ready" if complete else "planned"

    @property
    def link(self) -> str:
        """The paper's address, empty where no arXiv id is verified."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    @property
    def opening(self) -> str:
        """What the walkthrough's first cell says of its length and of what its reader must know, as markdown."""
        return f"**{self.minutes} minutes.** You need: {'; '.join(self.prerequisites)}."


def cards() -> tuple[Card, ...]:
    """All cards, by theme (in THEMES' order) and then by year and short name.

    >>> len([card for card in cards() if not card.package])
    24
    """
    return _all_cards()[0]


def problems() -> tuple[str, ...]:
    """Why papers of other packages are not among the cards, one sentence each; a damaged one leaves the lab as it is."""
    return _all_cards()[1]


@functools.cache
def _all_cards() -> tuple[tuple[Card, ...], tuple[str, ...]]:
    found = [_read(path, path.stem) for path in sorted(paths.cards_folder().glob("*.toml"))]
    refused = list(paths.external_problems())
    for slug, package in paths.external_papers().items():
        folder = paths.external_folder(slug)
        assert folder is not None
        try:
            found.append(_read(folder / "card.toml", slug))
        except (OSError, ValueError) as error:
            refused.append(f"the paper {slug!r} of the package {package!r} cannot be shown: {_reason(error)}")
    themes = list(THEMES)
    ordered = sorted(found, key=lambda card: (themes.index(card.theme), card.year, card.short.lower()))
    return tuple(ordered), tuple(refused)


def _read(path: Path, slug: str) -> Card:
    card = Card.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    if card.slug != slug:
        raise ValueError(f"{path.name} holds the slug {card.slug!r}")
    return card


def _reason(error: Exception) -> str:
    """The first thing that is wrong with a card, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        return f"card.toml: {field}{': ' if field else ''}{first['msg'].removeprefix('Value error, ')}"
    if isinstance(error, OSError):
        return f"card.toml: {error.strerror or error}"
    return " ".join(str(error).split()) if "card.toml" in str(error) else f"card.toml: {' '.join(str(error).split())}"


def get(slug: str) -> Card:
    """The card of a slug; UnknownPaper names the nearest match.

    >>> get("sp2ot").module
    'lab.clustering.sp2ot'
    """
    by_slug = {card.slug: card for card in cards()}
    if slug in by_slug:
        return by_slug[slug]
    names = {card.slug: card.slug for card in cards()} | {card.short.lower(): card.slug for card in cards()}
    near = difflib.get_close_matches(slug.lower().replace("_", "-"), names, n=1, cutoff=0.4)
    hint = f"did you mean {names[near[0]]!r}?" if near else "`lab list` shows all 24."
    raise UnknownPaper(f"there is no paper {slug!r}; {hint}")


def ready() -> tuple[Card, ...]:
    """The cards whose rooms exist."""
    return tuple(card for card in cards() if card.status == "ready")
