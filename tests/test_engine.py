"""Where work runs makes no difference to its numbers; on a cluster, a worker that dies costs time and no result."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jobs
import pytest
from typer.testing import CliRunner

from lab import engine, ledger, provenance, rooms
from lab.cli import app
from lab.engine import EngineError, replicate
from lab.experiment import Study

HERE = Path(__file__).parent
SEEDS = tuple(range(1, 13))
SQUARES = {seed: float(seed * seed) for seed in SEEDS}
TOY = Study("sp2ot", "toy", "Squares", jobs.slow_square, replication="data", seeds=SEEDS)


@dataclass
class Cluster:
    """A scheduler and two workers on this machine, each a process of its own."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    where = tmp_path / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", "OMP_NUM_THREADS": "1"}

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], "--host", "127.0.0.1", *words[1:]]
        return subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)

    scheduler = start("scheduler", "--port", "0", "--no-dashboard", "--no-jupyter", "--scheduler-file", str(where))
    found = Cluster("", scheduler, [])
    try:
        deadline = time.monotonic() + 60
        while not where.exists() or not where.read_text().endswith("}"):
            assert scheduler.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        found.address = json.loads(where.read_text())["address"]
        worker = ("worker", found.address, "--nthreads", "1", "--no-dashboard", "--no-nanny")
        found.workers += [start(*worker), start(*worker)]
        yield found
    finally:
        for process in (*found.workers, scheduler):
            process.kill()
            process.wait()


def test_processes_and_jobs_give_the_same_numbers() -> None:
    for count in (1, 2):
        rows = list(replicate(jobs.slow_square, SEEDS[:4], count))
        assert {row.seed: row.values["square"] for row in rows} == {seed: SQUARES[seed] for seed in SEEDS[:4]}
        assert all(row.seconds >= 0.25 and row.machine == provenance.machine() for row in rows)
        assert all(row.versions == provenance.versions() for row in rows)
    with pytest.raises(ValueError, match="jobs must be at least 1"):
        list(replicate(jobs.slow_square, SEEDS, 0))


def test_a_worker_killed_in_the_middle_costs_no_result_and_doubles_none(cluster: Cluster) -> None:
    arrived: list[int] = []
    with engine.cluster(cluster.address):
        for row in ledger.measure(TOY, SEEDS):
            arrived.append(row.seed)
            assert row.values == {"square": SQUARES[row.seed]}
            if len(arrived) == 3:
                cluster.workers[0].send_signal(signal.SIGKILL)
    assert sorted(arrived) == list(SEEDS)
    assert cluster.workers[0].wait() == -signal.SIGKILL and cluster.workers[1].poll() is None
    kept = ledger.own("sp2ot")["toy"]
    assert {row["seed"]: row["values"]["square"] for row in kept.rows} == SQUARES
    assert kept.record.machine == provenance.machine()
    assert [row.seed for row in ledger.measure(TOY, SEEDS)] == list(SEEDS)  # from the store: no cluster any more


def test_a_scheduler_that_goes_away_is_a_sentence_and_what_arrived_is_kept(cluster: Cluster) -> None:
    arrived: list[int] = []
    with pytest.raises(EngineError, match="the Dask scheduler is gone; what had arrived is kept"):  # noqa: SIM117
        with engine.cluster(cluster.address):
            for row in ledger.measure(TOY, SEEDS):
                arrived.append(row.seed)
                if len(arrived) == 2:
                    cluster.scheduler.kill()
    assert 2 <= len(arrived) < len(SEEDS)
    assert {row["seed"] for row in ledger.own("sp2ot")["toy"].rows} == set(arrived)


def test_errors_and_other_code_come_back(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine.cluster(cluster.address):
        with pytest.raises(ZeroDivisionError, match="seed 7 divides by zero"):
            list(replicate(jobs.fails, [7]))
        with pytest.raises(FileNotFoundError, match="nowhere"):
            list(replicate(jobs.reads, [1]))
        monkeypatch.setattr(provenance, "lab_code", lambda: "other")
        with pytest.raises(EngineError, match="has other code of the lab; install the same paperlab there"):
            list(replicate(jobs.slow_square, [1]))


def test_the_command_measures_on_the_cluster(cluster: Cluster, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "studies", lambda card: {"toy": TOY})
    command = ["measure", "sp2ot", "--seeds", "4", "--scheduler", cluster.address]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    stored = (own_home / "ledger" / "sp2ot" / "toy").rglob("*.json")
    assert sorted(path.stem for path in stored) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "tcp://", "127.0.0.1:notaport"])
def test_no_scheduler_is_a_sentence(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_CONNECT_SECONDS", 0.5)
    result = CliRunner().invoke(app, ["measure", "sp2ot", "--scheduler", address])
    assert result.exit_code == 2 and f"no Dask scheduler answers at {address!r}" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_what_is_no_scheduler_is_a_sentence_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_CONNECT_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineError, match="no Dask scheduler answers"), engine.cluster(address):
            pass


def test_a_scheduler_without_workers_is_a_sentence(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for worker in cluster.workers:
        worker.kill()
        worker.wait()
    monkeypatch.setattr(engine, "_CONNECT_SECONDS", 2)
    time.sleep(1)
    with (
        pytest.raises(EngineError, match="has no workers; start one with `dask worker"),
        engine.cluster(cluster.address),
    ):
        pass


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = CliRunner().invoke(app, ["measure", "sp2ot", "--scheduler", "tcp://127.0.0.1:8786"])
    assert result.exit_code == 2 and "pip install 'paperlab[cluster]'" in result.stderr
