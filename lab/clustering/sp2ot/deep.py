"""Training on one's own labels: the pseudo-labels as a module (`PseudoLabeler`), and the loop that learns them.

One training step (arXiv 2404.03446, after the published training loop; equations of this file)::

    (1)  C = -log softmax(L)                  the cost of the logits L (n, K), of one view
    (2)  lambda_1 = w n (1 - rho(t))          the semantic weight fades as the mass grows
    (3)  q = n Q                              the labels: the SP2OT plan Q of C, times the number of samples
    (4)  loss = CE(L1, q2) + CE(L2, q1)       each view learns the other view's labels
    (5)  CE(L, q) = -(1/B) sum_ik q_ik log softmax(L_i)_k

The labels' rows sum to less than 1 where the plan moves only a part of a sample: it then counts for less.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn import functional

from lab.clustering.sp2ot.schedule import RhoSchedule
from lab.clustering.sp2ot.semantic import relative_weight, sp2ot_plan
from lab.clustering.sp2ot.similarity import as_csr
from lab.clustering.sp2ot.transport import partial_uot

TOL, MAX_ITER = 1e-5, 300
MAX_MM, MM_TOL = 10, 1e-5  # the published 100 and 1e-6 change no label in our runs and cost three times as much

GROWING = RhoSchedule()

Views = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]


class PseudoLabeler(nn.Module):
    r"""Logits in, soft labels out: the SP2OT plan of a memory of logits, its mass growing from step to step.

    It solves

    .. math:: \min_Q \langle Q,-\log P\rangle - \lambda_1\langle S,QQ^T\rangle + \gamma\,KL(Q^T1\,\|\,\rho/K)
              + \text{entropy}\quad\text{s.t.}\quad Q1\le 1/N,\ 1^TQ1=\rho

    with :math:`\rho=\rho(t)` and :math:`\lambda_1=w\,N(1-\rho)`, and returns N Q for the batch's rows, without gradient.
    Call it with logits, ``labeler(logits, idx)``; see :meth:`forward`.

    Parameters
    ----------
    n_clusters : int >= 1
        K.
    steps : int >= 1
        How often :meth:`advance` will be called: the schedule's length.
    schedule : RhoSchedule
        The mass. ``RhoSchedule(kind="fixed")`` with ``reg_m`` finite is UOT, with ``reg_m=inf`` SeLa.
    reg, reg_m : float
        Entropy and size penalty, as in :func:`partial_uot`.
    semantic_weight : float >= 0
        w, relative to the number of samples; 0 (no semantic term) is P2OT. Needs ``similarity``.
    semantic_weight_absolute : float, optional
        :math:`\lambda` of the published code, 1000 there; then :math:`\lambda_1=\lambda(1-\rho)`.
    similarity : CSR matrix (n_samples, n_samples), optional
        S, for instance from :func:`knn_similarity` on features that do not change.
    memory : int
        How many samples' latest logits are remembered, so that small batches are labelled among many samples (published:
        10 batches). 0: the batch alone. A sample seen again replaces its old logits, so with two views per step the
        first view is labelled among first views, then the second takes its place.

    Raises
    ------
    ValueError
        For an argument out of range; for a semantic weight without similarity; on call, for logits or an idx that do not
        fit.

    References
    ----------
    Zhang, Ren, He: SP2OT (arXiv 2404.03446); the memory is the published code's buffer.

    Examples
    --------
    >>> labeler = PseudoLabeler(3, steps=10)
    >>> labeler(torch.eye(3) * 9).sum().item() / 3  # doctest: +ELLIPSIS
    0.106...
    """

    logits: Tensor
    ids: Tensor
    age: Tensor
    potentials: Tensor
    step: Tensor

    def __init__(
        self,
        n_clusters: int,
        steps: int,
        *,
        schedule: RhoSchedule = GROWING,
        reg: float = 0.1,
        reg_m: float = 1.0,
        semantic_weight: float = 0.0,
        semantic_weight_absolute: float | None = None,
        similarity: Any = None,
        memory: int = 0,
    ) -> None:
        super().__init__()
        if n_clusters < 1:
            raise ValueError(f"n_clusters={n_clusters!r} must be at least 1")
        if steps < 1:
            raise ValueError(f"steps={steps!r} must be at least 1")
        if memory < 0:
            raise ValueError(f"memory={memory!r} must be a number of samples >= 0")
        weight = semantic_weight if semantic_weight_absolute is None else semantic_weight_absolute
        if not weight >= 0:
            raise ValueError(f"semantic_weight={weight!r} must be >= 0")
        if weight > 0 and similarity is None:
            raise ValueError("similarity is missing: a semantic weight needs the similarity of the samples")
        self.n_clusters, self.steps, self.schedule = n_clusters, steps, schedule
        self.reg, self.reg_m = reg, reg_m
        self.semantic_weight, self.semantic_weight_absolute = semantic_weight, semantic_weight_absolute
        self.similarity = as_csr(similarity, _rows(similarity)) if weight > 0 else None
        self.register_buffer("logits", torch.zeros(memory, n_clusters))
        self.register_buffer("ids", torch.full((memory,), -1, dtype=torch.long))
        self.register_buffer("age", torch.full((memory,), -1, dtype=torch.long))
        self.register_buffer("potentials", torch.zeros(n_clusters + 1, dtype=torch.float64))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @property
    def rho(self) -> float:
        """The mass of the present step."""
        return self.schedule(min(1.0, int(self.step) / max(1, self.steps - 1)))

    def advance(self) -> None:
        """Go on to the next step of the schedule; call it once per optimiser step, as with a learning-rate scheduler."""
        self.step += 1

    @torch.no_grad()
    def forward(self, logits: Float[Tensor, "b k"], idx: Int[Tensor, " b"] | None = None) -> Float[Tensor, "b k"]:
        """Soft labels (b, K), rows summing to at most 1, for logits (b, K) of the samples ``idx`` (b,).

        ``idx`` defaults to 0 .. b-1. Raises ValueError for logits of another width, without rows or not finite, and for
        an ``idx`` that does not name each row's sample once.
        """
        if logits.ndim != 2 or logits.shape[1] != self.n_clusters or not len(logits):
            raise ValueError(f"logits has shape {tuple(logits.shape)}: it must be (b, {self.n_clusters}) with b >= 1")
        if not logits.is_floating_point() or not torch.isfinite(logits).all():
            raise ValueError("logits must be finite floating-point numbers")
        idx = torch.arange(len(logits), device=logits.device) if idx is None else idx.long()
        most = self.similarity.shape[0] if self.similarity is not None else None
        if (
            idx.shape != (len(logits),)
            or len(idx.unique()) < len(idx)
            or idx.min() < 0
            or idx.max() >= (most or np.inf)
        ):
            allowed = f"below {most}" if most else ">= 0"
            raise ValueError(
                f"idx must name the sample of each of the {len(logits)} rows: integers {allowed}, each once"
            )
        remembered, ids, rows = self._remember(logits.detach(), idx)  # (n, K), (n,), and where the batch is in them
        cost: Any = -functional.log_softmax(remembered, dim=1)  # (1)
        n, rho = len(cost), self.rho
        if cost.device.type == "cpu":
            cost = cost.double().numpy()  # NumPy's small products start faster than torch's: half the time at N = 700
        weight = self._weight(n, rho)
        options: dict[str, Any] = {
            "reg": self.reg,
            "reg_m": self.reg_m,
            "tol": TOL,
            "max_iter": MAX_ITER,
            "log": True,
            "warm_start": self.potentials.cpu().numpy(),
        }
        if weight > 0 and self.similarity is not None:
            near = self._among(ids)
            with warnings.catch_warnings():  # stopping early is meant
                warnings.simplefilter("ignore", ConvergenceWarning)
                plan, solution = sp2ot_plan(cost, near, rho, weight, max_mm=MAX_MM, mm_tol=MM_TOL, **options)
        else:
            plan, solution = partial_uot(cost, rho, **options)
        self.potentials = torch.as_tensor(np.nan_to_num(solution["g"], neginf=0.0), device=self.potentials.device)
        # (3)
        return (n * torch.as_tensor(plan, device=logits.device)[rows]).to(logits.dtype)

    def _weight(self, n: int, rho: float) -> float:
        """(2), or the published absolute weight times 1 - rho."""
        if self.semantic_weight_absolute is not None:
            return self.semantic_weight_absolute * (1.0 - rho)
        return relative_weight(self.semantic_weight, n, rho)

    def _among(self, ids: Tensor) -> Any:
        """The similarity of the samples ``ids`` (n,), CSR (n, n)."""
        assert self.similarity is not None
        n = self.similarity.shape[0]
        chosen = ids.cpu().numpy()
        if len(chosen) == n and np.array_equal(chosen, np.arange(n)):
            return self.similarity
        return self.similarity[chosen][:, chosen]

    def _remember(self, logits: Tensor, idx: Tensor) -> tuple[Tensor, Tensor, Tensor | slice]:
        """Put a batch into the memory; returns all logits to label, their ids, and which rows are the batch."""
        memory = len(self.ids)
        if memory <= len(logits):
            return logits, idx, slice(None)
        held = torch.isin(self.ids, idx)
        order = torch.argsort(self.ids[held])
        old = held.nonzero().squeeze(1)[order]  # slots that hold a sample of this batch, by id
        slots = torch.empty_like(idx)
        seen = torch.isin(idx, self.ids)
        slots[seen] = old[torch.searchsorted(self.ids[old], idx[seen])]
        age = self.age.clone()
        age[old] = torch.iinfo(torch.long).max
        slots[~seen] = torch.argsort(age, stable=True)[: int((~seen).sum())]
        self.logits[slots] = logits.to(self.logits.dtype)
        self.ids[slots] = idx
        self.age[slots] = self.step
        filled = (self.ids >= 0).nonzero().squeeze(1)
        return self.logits[filled], self.ids[filled], torch.searchsorted(filled, slots)


def _rows(similarity: Any) -> int:
    shape = getattr(similarity, "shape", None)
    if not shape:
        raise ValueError(f"similarity is a {type(similarity).__name__}: it must be a matrix (n_samples, n_samples)")
    return int(shape[0])


@dataclass(frozen=True)
class Step:
    """One training step: index, mass, mean loss; the first view's logits (b, K) of the rows (b,) and the labels they got."""

    index: int
    rho: float
    loss: float
    rows: Tensor
    logits: Tensor
    targets: Tensor


def soft_cross_entropy(logits: Float[Tensor, "b k"], targets: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    r"""Cross-entropy with soft labels whose rows need not sum to 1: a row counts for its sum.

    .. math:: CE(L,q) = -\tfrac1B\sum_{ik} q_{ik}\log\mathrm{softmax}(L_i)_k

    Parameters
    ----------
    logits, targets : tensor (b, K)
        L, and the labels q, for instance of a `PseudoLabeler`.

    Returns
    -------
    tensor ()
        The mean over the batch, with the gradient of ``logits``.

    Raises
    ------
    ValueError
        For targets of another shape than the logits.

    Examples
    --------
    >>> round(soft_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.5, 0.0]])).item(), 4)  # half of log 2
    0.3466
    """
    if logits.shape != targets.shape:
        raise ValueError(f"targets has shape {tuple(targets.shape)}: it must be that of logits, {tuple(logits.shape)}")
    # (5)
    return -(targets * functional.log_softmax(logits, dim=1)).sum(1).mean()


def self_label(
    model: nn.Module,
    labeler: PseudoLabeler,
    views: Views,
    n: int,
    *,
    lr: float,
    generator: torch.Generator,
    batch: int | None = None,
) -> Iterator[Step]:
    r"""Train a model on its own pseudo-labels, step by step: an iterator that makes one training step per item.

    .. math:: \ell = CE(L^1, q^2) + CE(L^2, q^1)

    where :math:`L^v` are the logits of view v of a batch and :math:`q^v` the labels that ``labeler`` gives them.

    Parameters
    ----------
    model : nn.Module
        What ``views`` gives -> logits (b, K); trained in place.
    labeler : PseudoLabeler
        Gives the labels; advanced by one per step, ``labeler.steps`` times in all.
    views : callable
        ``views(rows, generator)`` gives two random views of the samples ``rows`` (b,).
    n : int
        Number of samples.
    lr : float
        Adam's rate, falling to ``lr / 1000`` by a cosine.
    generator : torch.Generator
        Draws the batches and the views.
    batch : int, optional
        Samples per step, drawn without replacement; None takes all n at once, in their order.

    Yields
    ------
    Step
        What happened, after the optimizer's step.

    Raises
    ------
    ValueError
        From ``labeler``, for logits it cannot label.

    References
    ----------
    Zhang, Ren, He: SP2OT (arXiv 2404.03446), training loop of the published code.

    Examples
    --------
    >>> model, labeler = torch.nn.Linear(2, 2), PseudoLabeler(2, steps=3)
    >>> def views(rows, generator):
    ...     return torch.eye(2)[rows], torch.eye(2)[rows]
    >>> [round(step.rho, 2) for step in self_label(model, labeler, views, 2, lr=0.1, generator=torch.Generator())]
    [0.11, 0.36, 1.0]
    """
    size = n if batch is None else min(batch, n)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, labeler.steps, eta_min=lr * 1e-3)
    queue = torch.empty(0, dtype=torch.long)
    for index in range(labeler.steps):
        if len(queue) < size:
            queue = torch.arange(n) if size == n else torch.randperm(n, generator=generator)
        rows, queue = queue[:size], queue[size:]
        logits = [model(view) for view in views(rows, generator)]  # L1, L2: (b, K)
        rho = labeler.rho
        targets = [labeler(view, rows) for view in logits]  # q1, q2: (b, K)
        # (4)
        loss = soft_cross_entropy(logits[0], targets[1]) + soft_cross_entropy(logits[1], targets[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        labeler.advance()
        yield Step(index, rho, float(loss.detach()), rows, logits[0].detach(), targets[0])
