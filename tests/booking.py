"""Who pays for the test run: each test's processor seconds, booked to a paper, to its theme or to the house.

What is counted is the processor time of the worker and of all processes it has started (kernels, servers, browsers),
fixtures included: unlike the clock's time, it hardly moves when two workers or other people keep the machine busy.
A paper, theme or house beyond its ration fails the run under LAB_REQUIRE_ALL=1, and its slowest tests are named.
"""

from __future__ import annotations

import functools
import glob
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pytest

HOUSE = "the house"
# Processor seconds of one core of a 2-core server, per paper and kind of test.
PAPER = {"method": 15, "experiments": 10, "page": 6, "browser": 4, "notebook": 20}
RATIONS: dict[str, dict[str, int]] = {
    HOUSE: {"all": 450},
    "a theme": {"all": 30},
    "a paper": PAPER,
    # What exists in a larger form than other papers, or in one that many rooms stand on:
    "quantization": {"all": 120},
    # Rooms from before the rations, at what they cost today: these numbers may only shrink.
    "pb-llm": {"method": 15, "experiments": 15, "page": 12, "browser": 16, "notebook": 60},
    "ptq1-61": {"method": 15, "experiments": 15, "page": 12, "browser": 16, "notebook": 50},
    "flexround": {"method": 15, "experiments": 30, "page": 30, "browser": 16, "notebook": 50},
    "sp2ot": {"method": 40, "experiments": 60, "page": 40, "browser": 40, "notebook": 40},
    "transcoders": {"method": 60, "experiments": 90, "page": 60, "browser": 20, "notebook": 60},
}
TOLERANCE = 1.25  # another processor, a cold cache, whoever of a theme's papers is the first to load what all share
EXPERIMENTS = ("experiment", "stud", "tuning", "race", "figure", "exercise")  # in the file's name
NAMED = 5

_cpu = pytest.StashKey[float]()
_shared = pytest.StashKey[float]()


class Cost(NamedTuple):
    """What one test has cost, and who pays."""

    owner: str
    kind: str
    seconds: float
    test: str


@functools.cache
def _papers() -> dict[str, tuple[str, str]]:
    """Theme and folder of every paper's room."""
    from lab import catalog

    return {card.slug: (card.theme, card.room) for card in catalog.cards()}


def booked(path: PurePosixPath, parameters: Iterable[Any] = ()) -> tuple[str, str]:
    """Who pays for a test and for what: by the paper among its parameters, else by its place.

    >>> booked(PurePosixPath("tests/quantization/pb_llm/test_method.py"))
    ('pb-llm', 'method')
    >>> booked(PurePosixPath("lab/quantization/pb_llm/model_experiment.py"))
    ('pb-llm', 'experiments')
    >>> booked(PurePosixPath("tests/browser/test_pages.py"), ["sp2ot"])
    ('sp2ot', 'browser')
    >>> booked(PurePosixPath("tests/quantization/test_gptq.py")), booked(PurePosixPath("tests/test_train.py"))
    (('quantization', 'method'), ('the house', 'method'))
    """
    kind = _kind(path)
    folders, stem = path.parts[1:-1], path.stem.removeprefix("test_")
    given = [slug for parameter in parameters if (slug := _slug(parameter)) in _papers()]
    if given:
        return given[0], kind
    for slug, (theme, room) in _papers().items():
        if (theme, room) == folders[:2] or (folders == (theme,) and (stem == slug or stem.startswith(f"{slug}-"))):
            return slug, kind
        if folders in (("apps",), ("browser",)) and stem == room:
            return slug, kind
    themes = {theme for theme, _ in _papers().values()}
    return next((name for name in (*folders[:1], stem) if name in themes), HOUSE), kind


def _kind(path: PurePosixPath) -> str:
    if path.suffix == ".ipynb":
        return "notebook"
    if "browser" in path.parts:
        return "browser"
    if "apps" in path.parts or path.stem == "test_pages":
        return "page"
    shown = "contract" in path.parts or any(word in path.stem for word in EXPERIMENTS)
    return "experiments" if shown else "method"


def _slug(parameter: Any) -> str:
    """A paper's slug, given as itself, by a card or by an experiment."""
    slug = parameter if isinstance(parameter, str) else getattr(parameter, "slug", "")
    return slug if isinstance(slug, str) else ""


def ration(owner: str) -> dict[str, int]:
    """The seconds that an owner may cost, by kind; "all" is for everything together."""
    if owner in RATIONS:
        return RATIONS[owner]
    return RATIONS["a paper" if owner in _papers() else "a theme"]


def exceeded(costs: Iterable[Cost]) -> list[str]:
    """A sentence for each ration that is exceeded, with the tests that cost most.

    >>> exceeded([Cost("smash", "page", 5.0, "a"), Cost("smash", "page", 4.0, "b")])
    ['smash: page tests took 9.0 s of 6 s; the slowest: a (5.0 s), b (4.0 s)']
    """
    grouped: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    for cost in costs:
        grouped[cost.owner, "all" if "all" in ration(cost.owner) else cost.kind].append(cost)
    said = []
    for (owner, kind), members in sorted(grouped.items()):
        seconds, allowed = sum(cost.seconds for cost in members), ration(owner)[kind]
        if seconds > TOLERANCE * allowed:
            slowest = sorted(members, key=lambda cost: -cost.seconds)[:NAMED]
            names = ", ".join(f"{cost.test} ({cost.seconds:.1f} s)" for cost in slowest)
            said.append(f"{owner}: {kind} tests took {seconds:.1f} s of {allowed} s; the slowest: {names}")
    return said


def table(costs: Iterable[Cost]) -> list[str]:
    """Seconds by owner and kind, the most expensive first; a ration stands behind each owner's sum."""
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for cost in costs:
        sums[cost.owner][cost.kind] += cost.seconds
    lines = [f"{'processor seconds':18}" + "".join(f"{kind:>13}" for kind in PAPER) + f"{'sum':>9}{'ration':>9}"]
    for owner, by_kind in sorted(sums.items(), key=lambda item: -sum(item[1].values())):
        cells = "".join(f"{by_kind[kind]:13.1f}" if kind in by_kind else " " * 13 for kind in PAPER)
        lines.append(f"{owner:18}{cells}{sum(by_kind.values()):9.1f}{sum(ration(owner).values()):9}")
    lines.append(
        f"{'sum':18}{' ' * 13 * len(PAPER)}{sum(map(lambda by_kind: sum(by_kind.values()), sums.values())):9.1f}"
    )
    return lines


# --- processor time of this process and of all below it ----------------------------------------------------------


def spent() -> float:
    """Processor seconds so far: this process, those that it has waited for, and on Linux those that still run."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system + sum(map(_seconds, _below("self")))


def _below(process: str) -> Iterator[str]:
    """The numbers of all living processes that a process has started, and that those have started."""
    for path in glob.glob(f"/proc/{process}/task/*/children"):
        for child in _read(path).split():
            yield child
            yield from _below(child)


def _seconds(process: str) -> float:
    """Processor seconds of a living process and of those that it has waited for."""
    fields = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _read(path: str) -> str:
    """A small file; "" once its process is gone."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


# --- hooks: workers measure, the controller adds up --------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.stash[_cpu], item.session.stash[_shared] = spent(), 0.0
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """What serves all papers' tests is the house's cost, not that of the test which happens to come first."""
    if fixturedef.scope != "session" and (fixturedef.scope, request.path.parent.name) != ("module", "browser"):
        return (yield)
    start = spent()
    try:
        return (yield)
    finally:
        request.session.stash[_shared] = request.session.stash.get(_shared, 0.0) + spent() - start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
    report: pytest.TestReport = yield
    if call.when == "teardown":
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        owner, kind = booked(PurePosixPath(item.nodeid.split("::")[0]), parameters.values())
        shared = item.session.stash[_shared]
        report.user_properties.append(("cost", [owner, kind, max(0.0, spent() - item.stash[_cpu] - shared), shared]))
    return report


class Books:
    """The controller's: all costs, the summary, and the run's failure when a ration is exceeded."""

    def __init__(self) -> None:
        self.costs: list[Cost] = []
        self.began = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found: Mapping[str, Any] = dict(report.user_properties) if report.when == "teardown" else {}
        if "cost" in found:
            owner, kind, seconds, shared = found["cost"]
            self.costs.append(Cost(owner, kind, seconds, report.nodeid))
            if shared:
                self.costs.append(Cost(HOUSE, kind, shared, f"session fixtures before {report.nodeid}"))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if os.environ.get("LAB_REQUIRE_ALL") == "1" and exceeded(self.costs) and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("who pays")
        for line in table(self.costs):
            terminalreporter.write_line(line)
        for line in exceeded(self.costs):
            terminalreporter.write_line(f"over the ration: {line}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Books(), "books")
