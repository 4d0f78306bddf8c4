r"""Training coders: the official recipe on the lab's loop, several coders on one stream of activations if wanted.

A step of the optimizer, with $g_i$ the gradient of decoder row $d_i$ and $\lVert d_i\rVert=1$:

$$ g_i\leftarrow g_i-\frac{\langle g_i,d_i\rangle}{\lVert d_i\rVert^2}d_i \tag{1} $$
$$ d_i\leftarrow \mathrm{Adam}(d_i, g_i),\qquad d_i\leftarrow d_i/\lVert d_i\rVert \tag{2} $$

(the official code renormalises just before the next forward pass, which is the same moment). During training there is the
official input bias; it is folded away afterwards:

$$ z=\phi\big((x-b_{in})W_{enc}+b_{enc}\big)=\phi\big(xW_{enc}+(b_{enc}-b_{in}W_{enc})\big) . \tag{3} $$
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

    Parameters
    ----------
    steps, batch : int
        Optimizer steps; pairs per step.
    lr, warm_up : float, int
        Adam's rate, and over how many steps it rises to it linearly (then constant, but see `decay`).
    decay : float in 0 ... 1
        The last share of the steps, over which the rate falls linearly to 0; the official schedule has none.
    betas : (float, float)
        Adam's.
    buffer : int
        Pairs that the activation buffer holds.
    pool : int
        Instead of fresh pairs without end, so many that are computed once and gone through in random order: cheaper, for
        trainings that somebody waits for; 0 is the official way.
    skip_bos : bool
        Leave each text's first position out of training.
    dead_after : int
        A feature is dead once it has not fired for so many steps.

    Raises
    ------
    CircuitError
        For numbers that are not positive, and a pool smaller than a batch.

    Examples
    --------
    >>> CoderTraining(steps=100, warm_up=10).schedule(0)
    0.1
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

    Parameters
    ----------
    layer : int
        Whose MLP, from 0.
    kind : str
        "transcoder" or "sae".
    d_sae : int
        Features.
    lam : float
        The sparsity coefficient lambda; "topk" has none.
    activation, k, skip
        See `CoderConfig` and `Transcoder`.
    mse, dead : str
        See `TranscoderLoss`.
    sae_hook : str
        What an autoencoder copies: "hook_mlp_out", or "ln2.hook_normalized".

    Examples
    --------
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
    """A coder while it is trained: with the official input bias, and for how many steps each feature has not fired.

    ``z = phi((x - b_in) W_enc + b_enc)``, equation (3) of the module; an autoencoder has one bias for input and output.
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
        """``b_enc - b_in W_enc``, equation (3): the encoder's bias with the input's folded in, which saves a product per step."""
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
        """Equation (1): remove from each decoder row's gradient its component along the row."""
        weight, gradient = self.coder.W_dec, self.coder.W_dec.grad
        if gradient is not None:
            along = (gradient * weight).sum(dim=1, keepdim=True) / weight.square().sum(dim=1, keepdim=True)
            gradient.addcmul_(along, weight, value=-1)

    @torch.no_grad()
    def renormalise(self) -> None:
        """Equation (2): give each decoder row unit norm."""
        self.coder.W_dec.div_(self.coder.W_dec.norm(dim=1, keepdim=True))

    @torch.no_grad()
    def finished(self) -> Transcoder:
        """The coder as it is used: no input bias, unit rows."""
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
        """Equations (1) and (2): project, step, renormalise."""
        for trainer in self._trainers:
            trainer.project()
        answer = super().step(closure)
        for trainer in self._trainers:
            trainer.renormalise()
        return answer


@dataclass(frozen=True)
class Task:
    """Coders to be trained on one stream of activations: of which model, on which texts, at which sites.

    Parameters
    ----------
    model : HookedGPT
        The language model; only read.
    windows : any
        Texts as tokens, ``windows[numbers] -> [n, t]``, with a length; a tensor [n, t] is one.
    sites : mapping of str to Site
        The coders by name.
    training : CoderTraining
        What they share.
    seed : int
        Draws texts, mixing and first weights.
    repeats : callable, optional
        tokens [n, t] -> how often each position enters training; once if left out.

    Raises
    ------
    CircuitError
        When there is no site, or one of a layer that the model does not have.

    Examples
    --------
    >>> texts = torch.randint(0, 5, (50, 10))
    >>> Task(HookedGPT.tiny(), texts, {"transcoder": Site(0), "sae": Site(0, "sae")}).seed
    0
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
    """Train all coders of a task together; each ends as it would have alone.

    Parameters
    ----------
    task : Task
        Model, texts, sites and settings.
    progress : Progress
        Told the fraction of the steps and the loss.

    Returns
    -------
    dict of str to Transcoder
        By the names of the sites, without gradients, decoder rows of unit norm. Deterministic for a seed.

    Raises
    ------
    HookedError
        For texts that the model cannot read.

    Examples
    --------
    >>> texts = torch.randint(0, 5, (50, 10))
    >>> quick = CoderTraining(steps=5, batch=64)
    >>> sorted(train_coders(Task(HookedGPT.tiny(), texts, {"a": Site(0, d_sae=24), "b": Site(0, "sae", 24)}, quick)))
    ['a', 'b']
    """

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

    Parameters
    ----------
    model : HookedGPT
        The language model; only read.
    windows : any
        Texts as tokens, ``windows[numbers] -> [n, t]``, with a length; a tensor [n, t] is one.
    layer : int
        Whose MLP, from 0.
    kind : str
        "transcoder" or "sae".
    d_sae : int
        Features.
    lam : float, optional
        The sparsity coefficient; `official_lambda(d_model)` if left out.
    training : CoderTraining, optional
        Steps, rate and so on.
    seed : int
        Draws texts, mixing and first weights.
    progress : Progress
        Told the fraction of the steps and the loss.

    Returns
    -------
    Transcoder
        Deterministic for a seed.

    Raises
    ------
    CircuitError
        For a layer or a width that cannot be.
    HookedError
        For texts that the model cannot read.

    Examples
    --------
    >>> texts = torch.randint(0, 5, (50, 10))
    >>> train_coder(HookedGPT.tiny(), texts, 0, d_sae=24, training=CoderTraining(steps=5, batch=64)).cfg.hook_name
    'blocks.0.ln2.hook_normalized'
    """
    coefficient = official_lambda(model.cfg.d_model) if lam is None else lam
    task = Task(model, windows, {"coder": Site(layer, kind, d_sae, coefficient)}, training or CoderTraining(), seed)
    return train_coders(task, progress=progress)["coder"]
