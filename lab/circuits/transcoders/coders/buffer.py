"""A resumable activation buffer: refill one half from fresh texts, shuffle, serve, repeat.

The official buffer keeps a running state. This one is a function of the position alone, so that a training that was
killed goes on with the same batches: what the buffer holds at a position follows from the seed, by replaying which
pairs (as numbers) were held back, and the activations of those still held are computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.circuits.transcoders.errors import HookedError
from lab.circuits.transcoders.hooked import HookedGPT

Repeats = Callable[[Tensor], Tensor]  # tokens [n, t] -> how often each position enters the buffer [n, t]
FORWARD = 32  # texts a forward pass
ENDLESS = 2**40


class ActivationBuffer:
    """An endless, mixed stream of activations at some hooks of a model: ``buffer[index]`` is [b, width of all hooks].

    Positions are meant to be asked for in ascending order; going back starts over.

    Parameters
    ----------
    model : HookedGPT
        The language model; only read.
    windows : any
        Texts as tokens: anything with a length and ``windows[numbers] -> [n, t]``.
    names : sequence of str
        The hooks whose activations stand side by side in a row, see `columns`.
    size : int
        Pairs held; half of them are served, then refilled from fresh texts and mixed anew.
    seed : int
        Of the draw of the texts and of the mixing.
    repeats : callable, optional
        tokens [n, t] -> how often each position enters; once if left out.
    skip_bos : bool
        Leave each text's first position out.

    Raises
    ------
    HookedError
        For a hook that the model lacks, no windows, fewer than two pairs held, and texts none of whose positions enter.

    Examples
    --------
    >>> texts = torch.randint(0, 5, (20, 6))
    >>> buffer = ActivationBuffer(HookedGPT.tiny(), texts, ["blocks.0.hook_mlp_out"], size=64)
    >>> buffer[torch.arange(10)].shape
    torch.Size([10, 8])
    """

    def __init__(
        self,
        model: HookedGPT,
        windows: Any,
        names: Sequence[str],
        *,
        size: int = 2**14,
        seed: int = 0,
        repeats: Repeats | None = None,
        skip_bos: bool = False,
    ) -> None:
        if size < 2:
            raise HookedError(f"size must be at least 2 pairs, got {size}")
        if len(windows) < 1:
            raise HookedError("windows: there are no texts to run the model on")
        if unknown := sorted(set(names) - set(model.hook_names())):
            raise HookedError(f"the model has no hook {unknown[0]!r}; it has {model.cfg.n_layers} layers, from 0")
        self.model, self.windows, self.names, self.half, self.seed = model, windows, tuple(names), size // 2, seed
        self._repeats, self._skip_bos = repeats, skip_bos
        layers = [int(name.split(".")[1]) for name in names if name.startswith("blocks.")]
        self._stop = max(layers) + 1 if len(layers) == len(names) else None
        self._round = -1
        # Numbers of the pairs held back: half * (which half) + offset.
        self._remaining: Tensor = torch.empty(0, dtype=torch.int64)
        self._held: Tensor | None = None
        self._serving: Tensor | None = None

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: Int[Tensor, " b"]) -> Float[Tensor, "b w"]:
        rounds = index // self.half
        rows = []
        for number in rounds.unique().tolist():
            serving = self._at(number)
            rows.append(serving[index[rounds == number] % self.half])
        return torch.cat(rows)

    def columns(self, name: str) -> slice:
        """Where a place's activations stand in a row."""
        start = 0
        for other in self.names:
            width = self._width(other)
            if other == name:
                return slice(start, start + width)
            start += width
        raise HookedError(f"the buffer does not hold {name!r}; it holds {', '.join(self.names)}")

    def _width(self, name: str) -> int:
        wide = {"mlp.hook_pre", "mlp.hook_post"}
        return self.model.cfg.d_mlp if name.split(".", 2)[-1] in wide else self.model.cfg.d_model

    def _at(self, number: int) -> Tensor:
        """The served half of a round."""
        if number < self._round:
            self._round, self._remaining, self._held = -1, torch.empty(0, dtype=torch.int64), None
        while self._round < number - 1:  # a jump: only the numbers are followed
            self._round += 1
            self._remaining, self._held = self._mix(self._round)[1], None
        if self._round < number:
            self._refill(number)
        assert self._serving is not None
        return self._serving

    def _mix(self, number: int) -> tuple[Tensor, Tensor]:
        """Numbers of the pairs that a round serves and keeps, from those kept before; round 0 fills the whole buffer."""
        first = number + 1  # of fresh halves: round 0 took 0 and 1, each later round one more
        fresh = torch.arange(2 * self.half) if number == 0 else torch.arange(self.half) + first * self.half
        held = torch.cat([self._remaining, fresh])
        held = held[torch.randperm(len(held), generator=self._generator(2 * number))]
        return held[: self.half], held[self.half :]

    def _refill(self, number: int) -> None:
        before, known_rows = self._remaining, self._held
        served, remaining = self._mix(number)
        self._round, self._remaining = number, remaining
        rows = torch.cat([served, remaining])
        fresh_half, offsets = rows // self.half, rows % self.half
        activations = torch.empty(len(rows), sum(self._width(name) for name in self.names), dtype=self.model.W_E.dtype)
        if known_rows is not None:  # what was kept is still here
            order = before.argsort()
            old = torch.isin(rows, before)
            activations[old] = known_rows[order[torch.searchsorted(before[order], rows[old])]]
            fresh_half = torch.where(old, -1, fresh_half)
        for half in fresh_half.unique().tolist():
            if half >= 0:
                chosen = fresh_half == half
                activations[chosen] = self._fresh(half)[offsets[chosen]]
        self._serving, self._held = activations[: self.half], activations[self.half :]

    @torch.no_grad()
    def _fresh(self, half: int) -> Tensor:
        """Activations of a numbered half buffer: texts drawn at random, and of their positions as many as needed."""
        generator = self._generator(2 * half + 1)
        rows: list[Tensor] = []
        count = 0
        while count < self.half:
            texts = torch.randint(len(self.windows), (FORWARD,), generator=generator)
            tokens = self.windows[texts]
            cache = self.model.run_with_cache(tokens, names=frozenset(self.names), stop_at=self._stop)[1]
            joined = torch.cat([cache[name] for name in self.names], dim=-1)
            times = torch.ones_like(tokens) if self._repeats is None else self._repeats(tokens)
            if self._skip_bos:
                times = times.clone()
                times[:, 0] = 0
            rows.append(joined.flatten(0, 1).repeat_interleave(times.flatten(), dim=0))
            if len(rows[-1]) == 0:
                raise HookedError("no position of these texts enters the buffer; look at repeats and skip_bos")
            count += len(rows[-1])
        everything = torch.cat(rows)
        return everything[torch.randperm(len(everything), generator=generator)[: self.half]]

    def _generator(self, stream: int) -> torch.Generator:
        mixed = (self.seed * 0x9E3779B97F4A7C15 + stream * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
        return torch.Generator().manual_seed(mixed)


@dataclass(frozen=True)
class Pool:
    """Rows of activations that are held once and for all, by number."""

    rows: Float[Tensor, "n w"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Int[Tensor, " b"]) -> Float[Tensor, "b w"]:
        return self.rows[index]
