"""The one training loop. It knows no model: a `Recipe` says what is trained, `train` does it, exactly resumably.

A run is a function of its recipe. The order of the examples follows from the seed and the position, noise (dropout) from
random bytes that are part of the state, so a run that was killed and resumed ends in the same bits as one that was not.
Devices and processes are accelerate's affair: under torchrun each process takes its share of every batch.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lab import paths
from lab.experiment import Progress, Stopped, no_progress
from lab.state import StateError, load_state, save_state

if TYPE_CHECKING:
    from accelerate import Accelerator

POINTS = 200  # of a learning curve
SAVE_SECONDS = 120.0
STATE = "state.safetensors"
_GENERATOR = threading.RLock()
_EXAMPLES, _ORDERS, _EVALUATIONS = (
    999_999,
    1_000_000,
    1_000_000_000,
)  # streams of random numbers; those below are the processes'


class Examples(Protocol):
    """What is trained on: a length, and many examples at once by their numbers (a TensorDataset is one)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Int[Tensor, " b"], /) -> Any: ...


class TrainingError(ValueError):
    """A training cannot start or go on; one sentence that says why and what to do."""


def constant(step: int) -> float:
    """The schedule that leaves the learning rate alone."""
    return 1.0


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how; everything that determines the result.

    name        of the asset, in small letters, digits and hyphens
    model       () -> a fresh module; what is not in its state_dict (non-persistent buffers) is not in a state either
    examples    () -> `Examples`
    loss        loss(model, batch) -> scalar, the mean over the batch; it calls `model(...)` (processes are wrapped there)
    optimizer   optimizer(model) -> torch optimizer; its state may hold tensors, numbers and containers of these
    steps, batch, seed   optimizer steps; examples a step, over all processes together
    schedule    schedule(step) -> factor of the learning rate at steps 0 ... steps - 1
    clip        largest norm of the gradient; None leaves it
    after_step  called with the module after each step: projections, averages
    evaluate    evaluate(model) -> named numbers, without gradients, `evaluate_every` steps and at the end
    write       write(model, folder) -> what else the card should say; writes the asset's files
    ordered     take the examples in the order of their numbers, step after step, where they mix themselves
    config, data, licence   for the card: further settings (JSON values), what it saw, under which terms

    Random numbers come from torch's global generator, which the loop seeds and gives to each of these functions.
    """

    name: str
    model: Callable[[], nn.Module]
    examples: Callable[[], Examples]
    loss: Callable[[nn.Module, Any], Tensor]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    steps: int
    batch: int
    seed: int = 0
    schedule: Callable[[int], float] = constant
    clip: float | None = None
    after_step: Callable[[nn.Module], None] | None = None
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None
    evaluate_every: int = 0
    write: Callable[[nn.Module, Path], Mapping[str, Any]] | None = None
    ordered: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    licence: str = ""

    def fingerprint(self) -> str:
        """Sixteen hex digits of the settings that a state must agree with to be continued."""
        own = ("name", "steps", "batch", "seed", "clip", "evaluate_every")
        settings = [*(getattr(self, name) for name in own), dict(self.config), *(["ordered"] if self.ordered else [])]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Training:
    """Where a training stands: its module, steps done, and what was seen on the way.

    curve is (step, mean loss since the point before), some `POINTS` of them in a whole run; evaluations are (step, numbers).
    """

    model: nn.Module
    step: int
    finished: bool
    curve: tuple[tuple[int, float], ...]
    evaluations: tuple[tuple[int, dict[str, float]], ...]
    seconds: float


def train(
    recipe: Recipe,
    *,
    folder: Path | None = None,
    resume: bool = False,
    fresh: bool = False,
    minutes: float | None = None,
    save_seconds: float = SAVE_SECONDS,
    progress: Progress = no_progress,
) -> Training:
    """Run a recipe to its end, or for `minutes`; in `folder` it leaves a state every `save_seconds` and when it stops.

    With `resume` it goes on from the state in `folder`, to the same bits as without the break; `fresh` deletes that
    state first. `progress` may raise `Stopped` (between two steps): the state is saved, and `Stopped` goes on to the
    caller. Torch's global generator is left as it was, and runs in several threads do not disturb each other.

    Raises TrainingError when another process trains in `folder`, when there is a state and neither `resume` nor `fresh`,
    when the state cannot be saved, when the loss or a weight is no number (the last good state stays), for steps, batch or
    minutes that are not positive, a negative seed, fewer examples than a batch, and a batch that the processes cannot share
    evenly; StateError when the state is damaged or another recipe's.

    >>> from torch.utils.data import TensorDataset
    >>> x = torch.linspace(-1, 1, 64)[:, None]
    >>> line = Recipe("line", lambda: nn.Linear(1, 1), lambda: TensorDataset(x, 2 * x + 1),
    ...               lambda model, pair: (model(pair[0]) - pair[1]).square().mean(),
    ...               lambda model: torch.optim.SGD(model.parameters(), lr=0.3), steps=300, batch=8)
    >>> round(train(line).model.weight.item(), 3)
    2.0
    """
    for argument, value in (("steps", recipe.steps), ("batch", recipe.batch), ("minutes", minutes)):
        if value is not None and not value > 0:
            raise TrainingError(f"{argument} must be positive, got {value}")
    if recipe.seed < 0:
        raise TrainingError(f"seed must be at least 0, got {recipe.seed}")
    if resume and fresh:
        raise TrainingError("either go on (resume) or start over (fresh), not both")
    run = _Run(recipe, None if folder is None else folder / STATE, progress)
    with _alone(folder, run.main):
        if fresh and run.main and run.state is not None:
            run.state.unlink(missing_ok=True)
        run.accelerator.wait_for_everyone()
        try:
            run.begin(resume)
            return run.go(minutes, save_seconds)
        finally:
            run.accelerator.free_memory()  # it would keep wrapped models, and their threads, for ever


@contextmanager
def _alone(folder: Path | None, main: bool) -> Iterator[None]:
    """Hold the folder's lock, which the system itself lets go of when the process dies."""
    if folder is None or not main:
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(paths.writable(folder) / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(f"another process is training in {folder}; wait for it or stop it first") from None
    try:
        yield
    finally:
        lock.release()


class _Run:
    """One training under way: module, optimizer, position, and the loss since the curve's last point."""

    def __init__(self, recipe: Recipe, state: Path | None, progress: Progress) -> None:
        from accelerate import Accelerator
        from accelerate.utils import GradientAccumulationPlugin

        # Apple's MPS is left out: nothing of the lab's was ever compared on it. The rest keeps the environment out.
        self.accelerator: Accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision="no",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        )
        self.recipe, self.state, self.progress = recipe, state, progress
        self.processes, self.main = self.accelerator.num_processes, self.accelerator.is_main_process
        if recipe.batch % self.processes:
            raise TrainingError(
                f"a batch of {recipe.batch} cannot be shared out among {self.processes} processes evenly"
            )
        self.step, self.seconds = 0, 0.0
        self.curve: list[tuple[int, float]] = []
        self.evaluations: list[tuple[int, dict[str, float]]] = []
        self.noise: Tensor | None = None
        self._order: tuple[int, Tensor] | None = None

    def begin(self, resume: bool) -> None:
        """Build everything, as at step 0 or as the state says."""
        recipe = self.recipe
        with self._own_noise():
            torch.manual_seed(_mixed(recipe.seed, _EXAMPLES))
            self.examples = recipe.examples()
            torch.manual_seed(recipe.seed)
            model = recipe.model()
            optimizer = recipe.optimizer(model)
            torch.manual_seed(_mixed(recipe.seed, self.accelerator.process_index))
        if len(self.examples) < recipe.batch:
            raise TrainingError(f"{len(self.examples)} examples are fewer than a batch of {recipe.batch}")
        model, optimizer = self.accelerator.prepare(model, optimizer)
        self.wrapped, self.model, self.optimizer = model, self.accelerator.unwrap_model(model), optimizer
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.trained = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self.loss = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        if self.state is not None and self.state.exists():
            if not resume:
                raise TrainingError(
                    f"{recipe.name} has been begun (its state is {self.state}); go on with --resume, or start over with --fresh"
                )
            self._load(load_state(self.state))

    def go(self, minutes: float | None, save_seconds: float) -> Training:
        """The loop: steps, points on the curve, evaluations, states."""
        recipe, every = self.recipe, max(1, self.recipe.steps // POINTS)
        started = saved = told = time.monotonic()
        before, first = self.seconds, self.step
        deadline = math.inf if minutes is None else started + 60 * minutes
        while self.step < recipe.steps:
            self._one_step()
            if self.step % every == 0 or self.step == recipe.steps:
                self._point()
            if recipe.evaluate_every and self.step % recipe.evaluate_every == 0 and self.step < recipe.steps:
                self._evaluate()
            now = time.monotonic()
            self.seconds = before + now - started
            stop: Stopped | None = None
            if now - told > 0.2 or self.step == recipe.steps:
                told, stop = now, self._tell((now - started) / (self.step - first))
            if self._agreed(stop is not None):
                self._save()
                raise stop or Stopped
            if self._agreed(now > deadline):
                self._save()
                return self._standing()
            if self._agreed(now - saved > save_seconds):
                self._save()
                saved = time.monotonic()
        if not self.evaluations or self.evaluations[-1][0] < self.step:
            self._evaluate()
            self.seconds = before + time.monotonic() - started
        self._check_weights()
        self._save()
        return self._standing()

    def _one_step(self) -> None:
        from accelerate.utils import send_to_device

        factor = float(self.recipe.schedule(self.step))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        with self._own_noise():
            batch = self.examples[self._indices()]
            if self.accelerator.device.type != "cpu":
                batch = send_to_device(batch, self.accelerator.device)
            loss = self.recipe.loss(self.wrapped, batch)
            self.wrapped.zero_grad()
            self.accelerator.backward(loss)
            if self.recipe.clip is not None:
                self.accelerator.clip_grad_norm_(self.trained, self.recipe.clip)
            self.optimizer.step()
            if self.recipe.after_step is not None:
                with torch.no_grad():
                    self.recipe.after_step(self.model)
        self.loss += loss.detach()
        self.step += 1

    @contextmanager
    def _own_noise(self) -> Iterator[None]:
        """The run's own random numbers in torch's global generator."""
        with self._global_generator():
            if self.noise is not None:
                _set_random_bytes(self.noise, self.accelerator.device)
            yield
            self.noise = _random_bytes(self.accelerator.device)

    @contextmanager
    def _global_generator(self) -> Iterator[None]:
        """Torch's global generator, for this thread alone; afterwards it is as it was."""
        device = self.accelerator.device
        with _GENERATOR, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield

    def _indices(self) -> Int[Tensor, " b"]:
        """This process's share of the step's examples: each epoch a new order, which follows from the seed alone."""
        share = self.recipe.batch // self.processes
        mine = self.accelerator.process_index * share
        if self.recipe.ordered:
            start = (self.step * self.recipe.batch + mine) % (len(self.examples) - self.recipe.batch + 1)
            return torch.arange(start, start + share)
        epoch, place = divmod(self.step, len(self.examples) // self.recipe.batch)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(_mixed(self.recipe.seed, _ORDERS + epoch))
            self._order = epoch, torch.randperm(len(self.examples), generator=generator)
        start = place * self.recipe.batch + mine
        return self._order[1][start : start + share]

    def _point(self) -> None:
        total = self.accelerator.reduce(self.loss, reduction="mean") if self.processes > 1 else self.loss
        since = self.curve[-1][0] if self.curve else 0
        mean = float(total) / (self.step - since)
        if not math.isfinite(mean):
            raise TrainingError(_diverged(mean, since, self.step))
        self.curve.append((self.step, mean))
        self.loss.zero_()

    def _evaluate(self) -> None:
        if self.recipe.evaluate is None:
            return
        if self.main:
            modes = [(module, module.training) for module in self.model.modules()]
            self.model.eval()
            with torch.no_grad(), self._global_generator():
                torch.manual_seed(_mixed(self.recipe.seed, _EVALUATIONS + self.step))
                numbers = {key: float(value) for key, value in self.recipe.evaluate(self.model).items()}
            self.evaluations.append((self.step, numbers))
            for module, training in modes:
                module.training = training
        self.accelerator.wait_for_everyone()

    def _tell(self, seconds_a_step: float) -> Stopped | None:
        steps = self.recipe.steps
        loss = f"loss {self.curve[-1][1]:.3f} · " if self.curve else ""
        left = _duration((steps - self.step) * seconds_a_step)
        try:
            self.progress(self.step / steps, f"step {self.step:,} of {steps:,} · {loss}{left} left", self._standing())
        except Stopped as stopped:
            return stopped
        return None

    def _agreed(self, wish: bool) -> bool:
        """What the first process wants: clocks differ, but all must leave the loop at the same step."""
        if self.processes == 1:
            return wish
        flag = torch.tensor([wish and self.main], dtype=torch.int64, device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)

    def _save(self) -> None:
        if self.state is None:
            return
        assert self.noise is not None
        noise = self.accelerator.gather(self.noise[None])
        loss = self.accelerator.gather(self.loss[None])
        if not bool(torch.isfinite(loss).all()):
            raise TrainingError(_diverged(float("nan"), self.curve[-1][0] if self.curve else 0, self.step))
        self._check_weights()
        if self.main:
            tree = {
                "recipe": self._fingerprint(),
                "processes": self.processes,
                "step": self.step,
                "seconds": self.seconds,
                "curve": self.curve,
                "evaluations": self.evaluations,
                "loss": loss,
                "noise": noise,
                "model": dict(self.model.state_dict()),
                "optimizer": self.optimizer.state_dict(),
            }
            try:
                save_state(self.state, tree)
            except OSError as error:
                raise TrainingError(
                    f"the state of step {self.step} cannot be saved in {self.state.parent} ({error.strerror or error}); "
                    "the state saved before is still there: make room, then go on with --resume"
                ) from error

    def _fingerprint(self) -> str:
        """The recipe's, with what it made: the optimizer's kind and rates (functions cannot be compared)."""
        return f"{self.recipe.fingerprint()} {type(self.optimizer.optimizer).__name__} {self.rates}"

    def _check_weights(self) -> None:
        for name, weight in self.model.state_dict().items():
            if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
                raise TrainingError(f"{name} holds NaN or inf after step {self.step}; lower the learning rate")

    def _load(self, tree: Mapping[str, Any]) -> None:
        if tree.get("recipe") != self._fingerprint():
            raise StateError(f"the state {self.state} is of another recipe or other settings; start over with --fresh")
        if tree["processes"] != self.processes:
            raise StateError(
                f"the state {self.state} was left by {tree['processes']} processes, and this run has {self.processes}; go on "
                f"with torchrun --nproc_per_node {tree['processes']}, or start over with --fresh"
            )
        try:
            self.step, self.seconds = tree["step"], tree["seconds"]
            self.curve, self.evaluations = list(tree["curve"]), list(tree["evaluations"])
            self.model.load_state_dict(tree["model"])
            self.optimizer.load_state_dict(tree["optimizer"])
            index = self.accelerator.process_index
            self.loss.copy_(tree["loss"][index])
            self.noise = tree["noise"][index].to(self.accelerator.device)
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise StateError(
                f"the state {self.state} is of another model or optimizer; start over with --fresh"
            ) from error

    def _standing(self) -> Training:
        done = self.step == self.recipe.steps
        return Training(self.model, self.step, done, tuple(self.curve), tuple(self.evaluations), self.seconds)


def _diverged(loss: float, since: int, step: int) -> str:
    return f"the loss is {loss} between steps {since} and {step}; lower the learning rate"


def _mixed(seed: int, stream: int) -> int:
    """A seed for one of a run's independent streams of random numbers."""
    import numpy as np

    return int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0] >> 1)


def _random_bytes(device: torch.device) -> Tensor:
    """The states of torch's generators, the processor's first, as bytes on the device, where they can be gathered."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    return torch.cat(states).to(device)


def _set_random_bytes(states: Tensor, device: torch.device) -> None:
    states = states.cpu()
    ours = len(torch.get_rng_state())
    torch.set_rng_state(states[:ours].clone())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[ours:].clone(), device)


def _duration(seconds: float) -> str:
    """A time span in words.

    >>> _duration(42), _duration(600), _duration(7300)
    ('42 s', '10 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
