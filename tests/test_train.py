"""The training loop: a run is a function of its recipe, whatever interrupts it, and whoever shares the work."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import recipes
import torch
from recipes import NOISY, PLAIN
from torch import nn
from torch.utils.data import TensorDataset

from lab.engine import one_thread
from lab.experiment import Stopped
from lab.state import StateError, load_state, save_state
from lab.train import STATE, Recipe, Training, TrainingError, train

HERE = Path(__file__).parent
PROCESSES = multiprocessing.get_context("forkserver")  # a fresh process each, but torch is loaded once for all
PROCESSES.set_forkserver_preload(["lab.train"])


@pytest.fixture(scope="module")
def whole() -> Iterator[Training]:
    """NOISY without a break."""
    with one_thread():
        yield train(NOISY)


def child(folder: Path, **options: Any) -> BaseProcess:
    """A process that trains NOISY in a folder."""
    process = PROCESSES.Process(target=recipes.trains, args=(folder,), kwargs=options)
    process.start()
    return process


def ends(process: BaseProcess) -> int | None:
    """Its exit code, once it is there."""
    process.join(120)
    return process.exitcode


def same(end: Any, whole: Training) -> bool:
    weights = whole.model.state_dict()
    equal = all(torch.equal(end["weights"][name], weights[name]) for name in weights)
    return equal and end["curve"] == whole.curve and end["evaluations"] == whole.evaluations


def test_it_learns_and_tells(whole: Training) -> None:
    assert whole.finished and whole.step == NOISY.steps
    assert whole.evaluations[-1][1]["error"] < 0.8 * whole.evaluations[0][1]["error"]
    assert [step for step, _ in whole.evaluations] == [70, 140, 210, 280, 300]
    assert [step for step, _ in whole.curve] == list(range(1, 301))
    notes: list[tuple[float, str]] = []
    train(
        dataclasses.replace(NOISY, steps=5),
        progress=lambda fraction, note="", partial=None: notes.append((fraction, note)),
    )
    assert notes[-1][0] == 1.0 and "step 5 of 5 · loss " in notes[-1][1] and "left" in notes[-1][1]


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(dataclasses.replace(NOISY, steps=3))
    assert torch.equal(torch.rand(3), expected)


def test_two_threads_do_not_disturb_each_other(whole: Training) -> None:
    with one_thread(), ThreadPoolExecutor(2) as threads:
        runs = list(threads.map(train, [NOISY, NOISY]))
    assert [run.curve for run in runs] == [whole.curve] * 2


def test_another_seed_is_another_run(whole: Training) -> None:
    with one_thread():
        again, other = train(NOISY), train(dataclasses.replace(NOISY, seed=4))
    assert again.curve == whole.curve and other.curve != whole.curve


def test_examples_that_mix_themselves_come_in_their_order(tmp_path: Path) -> None:
    class Numbers:
        def __len__(self) -> int:
            return 2**40

        def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
            seen.extend(index.tolist())
            return index[:, None].float()

    seen: list[int] = []
    line = Recipe(
        "line",
        lambda: torch.nn.Linear(1, 1),
        Numbers,
        lambda model, x: model(0 * x).square().mean(),
        lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        steps=6,
        batch=4,
        ordered=True,
    )
    first = train(line, folder=tmp_path, minutes=1e-9)
    train(line, folder=tmp_path, resume=True)
    assert 0 < first.step < 6 and seen == list(range(24))
    assert line.fingerprint() != dataclasses.replace(line, ordered=False).fingerprint()


def test_each_epoch_is_a_new_order_of_all_examples() -> None:
    seen: list[list[int]] = [[], []]

    class Watched(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            seen[len(seen[0]) >= 80].extend(index.tolist())
            return super().__getitem__(index)

    points = recipes.POINTS
    watched = dataclasses.replace(
        PLAIN, examples=lambda: Watched(points, points.square().sum(1, keepdim=True)), steps=20, batch=8
    )
    train(watched)
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(80))
    assert seen[0] != seen[1] != list(range(80))


@pytest.mark.parametrize("number", range(3))
def test_killed_at_a_random_step_it_ends_in_the_same_bits(number: int, whole: Training, tmp_path: Path) -> None:
    moment = random.Random(number).uniform(0, 0.15)  # seconds after the first states are there
    process = child(tmp_path)
    while not (tmp_path / STATE).exists():
        assert process.is_alive()
        time.sleep(0.001)
    time.sleep(moment)
    process.kill()
    assert ends(process) == -signal.SIGKILL
    step = load_state(tmp_path / STATE)["step"]
    assert 0 < step < NOISY.steps
    assert ends(child(tmp_path, resume=True)) == 0
    assert same(load_state(tmp_path / "end"), whole)


def test_legs_of_minutes_in_fresh_processes_end_in_the_same_bits(whole: Training, tmp_path: Path) -> None:
    assert ends(child(tmp_path, minutes=0.3 / 60)) == 0
    first = load_state(tmp_path / "end")["step"]
    assert 0 < first < NOISY.steps
    assert ends(child(tmp_path, resume=True)) == 0
    assert same(load_state(tmp_path / "end"), whole)


def test_stop_saves_and_goes_on(whole: Training, tmp_path: Path) -> None:
    def stop(fraction: float, note: str = "", partial: Any = None) -> None:
        raise Stopped

    with one_thread():
        with pytest.raises(Stopped):
            train(NOISY, folder=tmp_path, progress=stop)
        assert load_state(tmp_path / STATE)["step"] < NOISY.steps
        with pytest.raises(TrainingError, match=r"noisy has been begun .* --resume, or start over with --fresh"):
            train(NOISY, folder=tmp_path)
        done = train(NOISY, folder=tmp_path, resume=True)
        assert done.curve == whole.curve
        begun = train(NOISY, folder=tmp_path, fresh=True, minutes=1e-9)
    assert begun.step == 1 and not begun.finished


def test_a_second_training_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    def second(fraction: float, note: str = "", partial: Any = None) -> None:
        with pytest.raises(TrainingError, match="another process is training in"):
            train(NOISY, folder=tmp_path, resume=True)
        raise Stopped

    with pytest.raises(Stopped):
        train(NOISY, folder=tmp_path, progress=second)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The state of a training that has done a step."""
    train(NOISY, folder=tmp_path, minutes=1e-9)
    return tmp_path / STATE


def test_a_flipped_byte_is_found_wherever_it_is(begun: Path) -> None:
    content = begun.read_bytes()
    found = 0
    for place in random.Random(0).sample(range(len(content)), 60):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        begun.write_bytes(bytes(changed))
        try:
            assert load_state(begun)["step"] == 1  # a blank in the header's padding changes nothing
        except StateError as error:
            found += 1
            assert STATE in str(error) and "--fresh" in str(error) and "\n" not in str(error)
    assert found > 50
    begun.write_bytes(bytes(changed[: len(changed) // 2]))
    with pytest.raises(StateError, match=STATE):
        train(NOISY, folder=begun.parent, resume=True)


def test_a_state_of_other_settings_is_refused(begun: Path) -> None:
    def adam(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=0.02)

    def sgd(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.01)

    changes: list[dict[str, Any]] = [
        {"steps": 301},
        {"config": {"dropout": 0.2}},
        {"clip": 2.0},
        {"optimizer": adam},
        {"optimizer": sgd},
    ]
    for change in changes:
        with pytest.raises(StateError, match="another recipe or other settings"):
            train(dataclasses.replace(NOISY, **change), folder=begun.parent, resume=True)
    with pytest.raises(StateError, match="another model or optimizer"):
        train(dataclasses.replace(NOISY, model=recipes.plain_module), folder=begun.parent, resume=True)
    save_state(begun, load_state(begun) | {"noise": None})
    with pytest.raises(StateError, match="another model or optimizer"):
        train(NOISY, folder=begun.parent, resume=True)


# Writes 20 kB at most to a file: what a full disk does, in the middle of a save. Says what train says.
FULL = """
import resource, signal, sys, dataclasses, recipes
from pathlib import Path
from lab.train import TrainingError, train
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
steps = []
def progress(fraction, note="", partial=None):
    steps.append(partial.step)
    size = (Path(sys.argv[1]) / "state.safetensors").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
try:
    train(recipes.SLOW, folder=Path(sys.argv[1]), resume=True, save_seconds=0.3, progress=progress)
except TrainingError as error:
    print(error)
"""


def test_a_disk_that_fills_in_the_middle_of_a_save_leaves_the_state_before(tmp_path: Path) -> None:
    train(recipes.SLOW, folder=tmp_path, minutes=1e-9)
    before = (tmp_path / STATE).read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], cwd=HERE, capture_output=True, text=True)
    assert "cannot be saved" in done.stdout and "the state saved before is still there" in done.stdout, done.stderr
    assert (tmp_path / STATE).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} <= {STATE, "lock"}
    assert train(recipes.SLOW, folder=tmp_path, resume=True, minutes=1e-9).step == 2


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    bad = dataclasses.replace(PLAIN, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e20), clip=None)
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) between steps \d+ and \d+; lower the learning rate"
    ):
        train(bad, folder=tmp_path, save_seconds=0)
    late = dataclasses.replace(PLAIN, schedule=lambda step: 1e30 if step == 200 else 1.0, steps=10_000, clip=None)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(late, folder=tmp_path / "late", save_seconds=0)
    weights = load_state(tmp_path / "late" / STATE)["model"]
    assert weights and all(bool(torch.isfinite(weight).all()) for weight in weights.values())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "steps must be positive, got 0"),
        ({"batch": -1}, "batch must be positive, got -1"),
        ({"batch": 81}, "80 examples are fewer than a batch of 81"),
    ],
)
def test_bad_recipes_are_one_sentence(change: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        train(dataclasses.replace(NOISY, **change))


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.nan])
def test_minutes_are_positive(minutes: float) -> None:
    with pytest.raises(ValueError, match="minutes must be positive"):
        train(NOISY, minutes=minutes)


def test_a_state_keeps_types_and_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
    tied = torch.arange(6.0)
    tree = {
        0: {"a": tied, "b": tied[::2], "half": torch.ones(2, dtype=torch.bfloat16), "empty": torch.zeros(0, 3)},
        "mixed": [1, 2.5, (None, True, "word"), {"scalar": torch.tensor(7)}],
        "floats": [1e-300, 0.1, float("inf")],
    }
    save_state(tmp_path / "s", tree)
    back = load_state(tmp_path / "s")
    assert back["mixed"][:3] == tree["mixed"][:3] and back["floats"] == tree["floats"]  # type: ignore[index]
    assert torch.equal(back[0]["b"], tied[::2]) and back[0]["half"].dtype == torch.bfloat16
    assert back[0]["empty"].shape == (0, 3) and back["mixed"][3]["scalar"].item() == 7
    with pytest.raises(TypeError, match="not object"):
        save_state(tmp_path / "t", {"x": object()})
    assert not (tmp_path / "t").exists()
    with pytest.raises(StateError, match="cannot be read"):
        load_state(tmp_path / "t")


def test_weights_outside_the_optimizer_neither_move_nor_count() -> None:
    """Their gradients would otherwise pile up, and take their part of the clipped norm."""

    def half(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model[2].parameters(), lr=0.1)  # type: ignore[index]

    run = train(dataclasses.replace(PLAIN, optimizer=half, clip=0.1, steps=60))
    frozen = run.model[0].weight.detach().clone()  # type: ignore[index]
    assert torch.equal(frozen, train(dataclasses.replace(PLAIN, optimizer=half, clip=0.1, steps=1)).model[0].weight)  # type: ignore[index]
    alone = dataclasses.replace(
        PLAIN,
        optimizer=half,
        clip=0.1,
        steps=60,
        loss=lambda model, pair: recipes.loss(lambda x: model[2](model[1](model[0](x).detach())), pair),
    )
    assert run.curve == train(alone).curve


def test_random_examples_and_evaluations_are_the_run_s_own(tmp_path: Path) -> None:
    class Noisy(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            points, values = super().__getitem__(index)
            return points + 0.1 * torch.randn(points.shape), values

    noisy = dataclasses.replace(
        PLAIN,
        examples=lambda: Noisy(torch.rand(80, 4), torch.rand(80, 1)),
        evaluate=lambda model: {"x": float(torch.rand(()))},
        evaluate_every=5,
        steps=12,
    )
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = train(noisy)
    assert torch.equal(torch.rand(3), expected)
    train(noisy, folder=tmp_path, minutes=1e-9)
    second = train(noisy, folder=tmp_path, resume=True)
    assert (first.curve, first.evaluations) == (second.curve, second.evaluations)


def test_the_environment_does_not_change_the_run(whole: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with one_thread():
        assert train(NOISY).curve == whole.curve


def test_modules_keep_the_mode_that_the_recipe_gave_them() -> None:
    def model() -> nn.Module:
        made = recipes.module()
        made[2].eval()  # type: ignore[index]
        return made

    done = train(dataclasses.replace(NOISY, model=model, steps=5, evaluate_every=2))
    assert torch.equal(done.model[2].running_mean, torch.zeros(8)) and done.model[1].training  # type: ignore[index]


def test_after_step_sees_the_module() -> None:
    def unit(model: nn.Module) -> None:
        model[0].weight /= model[0].weight.norm()  # type: ignore[index,union-attr]

    done = train(dataclasses.replace(PLAIN, after_step=unit, steps=5))
    assert done.model[0].weight.norm().item() == pytest.approx(1, abs=1e-6)  # type: ignore[index]


def test_two_processes_give_the_run_of_one(tmp_path: Path) -> None:
    """torchrun on loopback: each takes half of every batch of 8, and the curve is that of one process with 8."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LAB_HOME": str(tmp_path)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "lab", "train", "recipes:PLAIN"]
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "checkpoints" / "plain" / "card.json").read_text())
    one = train(PLAIN)
    assert [step for step, _ in card["curve"]] == [step for step, _ in one.curve]
    for (_, both), (_, single) in zip(card["curve"], one.curve, strict=True):
        assert both == pytest.approx(single, rel=1e-3, abs=2e-5)
