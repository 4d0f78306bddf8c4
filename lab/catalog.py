"""The 24 cards: identity, idea, claims and tour of each paper, read from `lab/papers/*.toml` without loading a method."""

from __future__ import annotations

import difflib
import functools
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    """One paper. `claims`, `tour` and `headline` come with its room."""

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
    def module(self) -> str:
        """The method's dotted name, e.g. `lab.clustering.sp2ot`."""
        return f"lab.{self.theme}.{self.room}"

    @property
    def folder(self) -> Path:
        """The room's folder, whether it exists or not."""
        return paths.cards_folder().parent / self.theme / self.room

    @property
    def has_room(self) -> bool:
        """The room has its three doors: its code can be run."""
        return all((self.folder / door).exists() for door in ("__init__.py", "experiment.py", "figures.py"))

    @property
    def status(self) -> Status:
        """`ready` when the room, its page, its notebook and its ledger record all exist, else `planned`."""
        parts = (
            paths.shared("apps") / self.page,
            paths.shared("notebooks") / self.notebook,
            paths.shared("data") / "ledger" / f"{self.slug}.json",
        )
        return "ready" if self.has_room and all(part.exists() for part in parts) else "planned"

    @property
    def link(self) -> str:
        """The paper's address, empty where no arXiv id is verified."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    @property
    def notebook(self) -> str:
        """The notebook's path below `notebooks/`."""
        return f"{self.theme}/{self.slug}.ipynb"

    @property
    def page(self) -> str:
        """The page's path below `apps/`."""
        return f"{self.theme}/{self.room}.py"


@functools.cache
def cards() -> tuple[Card, ...]:
    """All cards, by theme (in THEMES' order) and then by year and short name.

    >>> len(cards())
    24
    """
    found = [_read(path) for path in sorted(paths.cards_folder().glob("*.toml"))]
    themes = list(THEMES)
    return tuple(sorted(found, key=lambda card: (themes.index(card.theme), card.year, card.short.lower())))


def _read(path: Path) -> Card:
    card = Card.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    if card.slug != path.stem:
        raise ValueError(f"{path.name} holds the slug {card.slug!r}")
    return card


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
