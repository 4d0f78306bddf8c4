r"""Training coders: the official recipe on the lab's loop, several coders on one stream of activations if wanted.

Decoder rows have unit norm: after backward the part of the gradient along each row is removed, then Adam steps, then rows
are renormalised (the official code does that just before the next forward pass, which is the same moment).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lab.circuits.transcoders.coders.buffer import ActivationBuffer, Pool, Repeats
from lab.circuits.transcoders.coders.coder import CODERS, Activation, CoderConfig, Kind, Transcoder
from lab.circuits.transcoders.coders.loss import DeadFeatureLoss, Error, TranscoderLoss, official_lambda
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.hooked import HookedGPT
from lab.experiment import Progress, no_progress
from lab.train import Recipe, train


@dataclass(frozen=True)
class CoderTraining:
    """How coders are trained together: what they share, by the official names where they have some.

    steps, batch    optimizer steps; pairs a step
    lr, warm_up     Adam's rate, and over how many steps it rises to it linearly (then constant, but see `decay`)
    decay           the last share of the steps, over which the rate falls linearly to 0; the official schedule has none
    buffer          pairs the activation buffer holds
    pool            instead of fresh pairs without end, so many that are computed once and gone through in random order:
                    cheaper, for trainings that somebody waits for; 0 is the official way
    skip_bos        leave each text's first position out of training
    dead_after      a feature is dead once it was silent for so many steps
    """

    steps: int = 3000
    batch: int = 1024
    lr: float = 2e-3
    warm_up: int = 100
    decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.999)
    buffer: int = 2**14
    pool: int = 0
    skip_bos: bool = False
    dead_after: int = 200

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "lr", "dead_after"):
            if not getattr(self, name) > 0:
                raise CircuitError(f"{name} must be positive, got {getattr(self, name)}")
        if self.pool and self.pool < self.batch:
            raise CircuitError(f"pool must hold a batch of {self.batch} pairs or be 0, got {self.pool}")
        if not 0 <= self.decay <= 1 or self.warm_up < 0:
            raise CircuitError(
                f"decay must lie in 0 ... 1 and warm_up at 0 or above, got {self.decay} and {self.warm_up}"
            )

    def schedule(self, step: int) -> float:
        """The factor of the rate at a step."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, (step + 1) / max(1, self.warm_up), left)


@dataclass(frozen=True)
class Site:
    """One coder to be trained: where, what kind, how wide, how sparse.

    >>> Site(layer=2).names
    ('blocks.2.ln2.hook_normalized', 'blocks.2.hook_mlp_out')
    """

    layer: int
    kind: Kind = "transcoder"
    d_sae: int = 1024
    lam: float = 1e-3
    activation: Activation = "relu"
    k: int | None = None
    skip: bool = False
    mse: Error = "normed"
    dead: DeadFeatureLoss = "auxk"
    sae_hook: str = "hook_mlp_out"  # what an autoencoder copies: this, or "ln2.hook_normalized"

    @property
    def names(self) -> tuple[str, str]:
        """The hooks it reads and imitates."""
        out = f"blocks.{self.layer}.{self.sae_hook}"
        return (f"blocks.{self.layer}.ln2.hook_normalized" if self.kind == "transcoder" else out), out

    @property
    def loss(self) -> TranscoderLoss:
        """What it is trained down; a topk coder needs no sparsity coefficient."""
        return TranscoderLoss(0.0 if self.activation == "topk" else self.lam, self.mse, self.dead)


class CoderTrainer(nn.Module):
    """A coder while it is trained: with the official input bias, and how long each feature has been silent.

    ``z = phi((x - b_in) W_enc + b_enc)``; an autoencoder has one bias for input and output.
    """

    steps_since_fired: Tensor

    def __init__(self, site: Site, cfg: CoderConfig, x_mean: Tensor, y_mean: Tensor, dead_after: int) -> None:
        super().__init__()
        self.site, self.loss, self.dead_after = site, site.loss, dead_after
        self.coder = CODERS[site.kind](cfg, skip=site.skip)
        with torch.no_grad():
            self.coder.b_dec.copy_(y_mean)
        self.b_in = nn.Parameter(x_mean.clone()) if site.kind == "transcoder" else None
        self.register_buffer("steps_since_fired", torch.zeros(cfg.d_sae, dtype=torch.int64))

    def bias(self) -> Float[Tensor, " f"]:
        """``b_enc - b_in W_enc``: the encoder's bias with the input's folded in, which saves a product a step."""
        shared = self.coder.b_dec if self.b_in is None else self.b_in
        return self.coder.b_enc - shared @ self.coder.W_enc

    def forward(self, x: Float[Tensor, "b d_in"], y: Float[Tensor, "b d_out"]) -> Float[Tensor, ""]:
        """The loss of a batch."""
        coder, bias = self.coder, self.bias()
        if coder.cfg.activation == "relu":
            y_hat, use = _Coded.apply(x, coder.W_enc, bias, coder.W_dec, coder.b_dec)
            sparsity = self.loss.lam * use.sum() / len(x)
        else:
            z = coder.activate(torch.addmm(bias, x, coder.W_enc))
            y_hat, use = torch.addmm(coder.b_dec, z, coder.W_dec), z.sum(0)
            sparsity = self.loss.sparsity(z)
        if coder.W_skip is not None:
            y_hat = y_hat + functional.linear(x, coder.W_skip)
        total = self.loss.error(y_hat, y) + sparsity
        if self.loss.dead != "none":
            with torch.no_grad():
                self.steps_since_fired.add_(1).masked_fill_(use > 0, 0)
            dead = (self.steps_since_fired > self.dead_after).nonzero()[:, 0]
            if len(dead):
                pre = torch.addmm(bias[dead], x, coder.W_enc[:, dead])
                total = total + self.loss.dead_feature_loss(pre, y - y_hat, coder.W_dec[dead])
        return total

    @torch.no_grad()
    def project(self) -> None:
        """Remove from each decoder row's gradient its part along the row."""
        weight, gradient = self.coder.W_dec, self.coder.W_dec.grad
        if gradient is not None:
            along = (gradient * weight).sum(dim=1, keepdim=True) / weight.square().sum(dim=1, keepdim=True)
            gradient.addcmul_(along, weight, value=-1)

    @torch.no_grad()
    def renormalise(self) -> None:
        """Give each decoder row unit norm."""
        self.coder.W_dec.div_(self.coder.W_dec.norm(dim=1, keepdim=True))

    @torch.no_grad()
    def finished(self) -> Transcoder:
        """The coder in its plain form: no input bias, unit rows."""
        own = self.coder
        done = CODERS[self.site.kind](own.cfg, skip=own.W_skip is not None)
        done.load_state_dict(own.state_dict() | {"b_enc": self.bias()})
        if own.cfg.activation != "topk":
            done.fold_decoder_norm()
        return done.requires_grad_(False).eval()


class _Coded(torch.autograd.Function):
    """A ReLU coder's output, and each feature's activation summed over the batch, with no [b, f] beyond ``z`` and its
    gradient: five products a step and hardly more."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, bias: Tensor, W_dec: Tensor, b_dec: Tensor
    ) -> tuple[Tensor, Tensor]:
        z = torch.addmm(bias, x, W_enc).relu_()
        ctx.save_for_backward(x, W_enc, W_dec, z)
        return torch.addmm(b_dec, z, W_dec), z.sum(0)

    @staticmethod
    def backward(ctx: Any, at_y: Tensor, at_use: Tensor) -> tuple[Tensor | None, ...]:
        x, W_enc, W_dec, z = ctx.saved_tensors
        at_W_dec = z.T @ at_y
        at_pre = torch.mm(at_y, W_dec.T).add_(at_use)
        torch.ops.aten.threshold_backward.grad_input(at_pre, z, 0, grad_input=at_pre)
        at_x = at_pre @ W_enc.T if ctx.needs_input_grad[0] else None
        return at_x, x.T @ at_pre, at_pre.sum(0), at_W_dec, at_y.sum(0)


class CoderAdam(torch.optim.Adam):
    """Adam that keeps decoder rows at unit norm, around each step."""

    def __init__(self, trainers: nn.Module, training: CoderTraining) -> None:
        super().__init__(trainers.parameters(), lr=training.lr, betas=training.betas, fused=True)
        self._trainers = [trainer for trainer in trainers.children() if isinstance(trainer, CoderTrainer)]

    def step(self, closure: Any = None) -> Any:
        """Project, step, renormalise."""
        for trainer in self._trainers:
            trainer.project()
        answer = super().step(closure)
        for trainer in self._trainers:
            trainer.renormalise()
        return answer


@dataclass(frozen=True)
class Task:
    """Coders to be trained on one stream of activations: of which model, on which texts, at which sites.

    windows   texts as tokens, ``windows[numbers] -> [n, t]``
    repeats   how often each position enters training; once if left out
    """

    model: HookedGPT
    windows: Any
    sites: Mapping[str, Site]
    training: CoderTraining = field(default_factory=CoderTraining)
    seed: int = 0
    repeats: Repeats | None = None

    def __post_init__(self) -> None:
        if not self.sites:
            raise CircuitError("sites: there is no coder to train")
        for name, site in self.sites.items():
            if not 0 <= site.layer < self.model.cfg.n_layers:
                raise CircuitError(
                    f"{name}: layer {site.layer} does not exist; the model has {self.model.cfg.n_layers}"
                )

    def recipe(self, name: str = "coders", **more: Any) -> Recipe:
        """The recipe for the lab's loop; ``more`` are further fields of it (write, evaluate, data, ...)."""
        hook_names = list(dict.fromkeys(name for site in self.sites.values() for name in site.names))
        options = self.training
        buffer = ActivationBuffer(
            self.model,
            self.windows,
            hook_names,
            size=max(options.buffer, 2 * options.batch),
            seed=self.seed,
            repeats=self.repeats,
            skip_bos=options.skip_bos,
        )

        def columns(site: Site) -> tuple[slice, slice]:
            into, out = site.names
            return buffer.columns(into), buffer.columns(out)

        def fresh() -> nn.ModuleDict:
            mean = buffer[torch.arange(buffer.half)].mean(0)
            trainers = {}
            for key, site in self.sites.items():
                x_mean, y_mean = (mean[column] for column in columns(site))
                cfg = CoderConfig(
                    len(x_mean),
                    site.d_sae,
                    len(y_mean),
                    site.activation,
                    site.k,
                    *site.names,
                    model_name=self.model.cfg.model_name,
                    bos=not options.skip_bos,
                )
                trainers[key] = CoderTrainer(site, cfg, x_mean, y_mean, options.dead_after).to(mean.dtype)
            return nn.ModuleDict(trainers)

        def loss(trainers: nn.Module, rows: Tensor) -> Tensor:
            assert isinstance(trainers, nn.ModuleDict)
            terms = []
            for key, site in self.sites.items():
                into, out = columns(site)
                terms.append(trainers[key](rows[:, into], rows[:, out]))
            return torch.stack(terms).sum()

        return Recipe(
            name=name,
            model=fresh,
            examples=lambda: Pool(buffer[torch.arange(options.pool)]) if options.pool else buffer,
            loss=loss,
            **_shared(options, self.seed, self.sites),
            **more,
        )


def asset_recipe(
    name: str,
    task: Callable[[], Task],
    sites: Mapping[str, Site],
    training: CoderTraining,
    *,
    seed: int = 0,
    **more: Any,
) -> Recipe:
    """The recipe of coders that are shipped: the language model and its texts are loaded when the training begins.

    task  () -> the task, with these sites, this training and this seed
    """
    begun = functools.cache(lambda: task().recipe(name))
    return Recipe(
        name=name,
        model=lambda: begun().model(),
        examples=lambda: begun().examples(),
        loss=lambda trainers, rows: begun().loss(trainers, rows),
        **_shared(training, seed, sites),
        **more,
    )


def _shared(training: CoderTraining, seed: int, sites: Mapping[str, Site]) -> dict[str, Any]:
    """What a recipe needs of the settings alone."""
    return {
        "optimizer": lambda trainers: CoderAdam(trainers, training),
        "steps": training.steps,
        "batch": training.batch,
        "schedule": training.schedule,
        "seed": seed,
        "ordered": training.pool == 0,
        "config": {
            "training": asdict(training) | {"betas": list(training.betas)},
            "sites": {key: asdict(site) for key, site in sites.items()},
        },
    }


def finished(trainers: nn.Module) -> dict[str, Transcoder]:
    """The trained coders in their plain form, by name."""
    assert isinstance(trainers, nn.ModuleDict)
    return {name: trainer.finished() for name, trainer in trainers.items() if isinstance(trainer, CoderTrainer)}


def train_coders(task: Task, *, progress: Progress = no_progress) -> dict[str, Transcoder]:
    """Train all coders of a task together; each ends as it would have alone. `progress` gets the standing as partial."""

    def report(fraction: float, note: str = "", partial: Any | None = None) -> None:
        progress(fraction, note, None)

    return finished(train(task.recipe(), progress=report).model)


def train_coder(
    model: HookedGPT,
    windows: Any,
    layer: int,
    kind: Kind = "transcoder",
    *,
    d_sae: int = 1024,
    lam: float | None = None,
    training: CoderTraining | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Transcoder:
    """Train one transcoder, or autoencoder of the MLP's output, of one layer of a model.

    windows  texts as tokens, anything with ``windows[numbers] -> [n, t]``; a tensor [n, t] is one
    lam      the sparsity coefficient; `official_lambda(d_model)` if left out

    Deterministic for a seed. Raises CircuitError or HookedError for a layer, width or text that cannot be.

    >>> from lab.circuits.transcoders.hooked import HookedConfig
    >>> model = HookedGPT(HookedConfig(1, 8, 2, 4, 16, 10, 5))
    >>> texts = torch.randint(0, 5, (50, 10))
    >>> train_coder(model, texts, 0, d_sae=24, training=CoderTraining(steps=5, batch=64)).cfg.hook_name
    'blocks.0.ln2.hook_normalized'
    """
    coefficient = official_lambda(model.cfg.d_model) if lam is None else lam
    task = Task(model, windows, {"coder": Site(layer, kind, d_sae, coefficient)}, training or CoderTraining(), seed)
    return train_coders(task, progress=progress)["coder"]
