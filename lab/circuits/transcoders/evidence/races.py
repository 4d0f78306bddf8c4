"""What `lab bench transcoders` times: coding, a training step, path search; peers in one process, equal results first.

SAELens and sparsify are raced where they are installed (`pip install 'paperlab[bench]'`); a race without them says so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lab.circuits.transcoders.attribution.contributions import attribute_run
from lab.circuits.transcoders.attribution.frozen_run import FrozenRun, LogitDiff
from lab.circuits.transcoders.attribution.greedy_paths import greedy_paths
from lab.circuits.transcoders.attribution.published_paths import published_paths
from lab.circuits.transcoders.coders.coder import CoderConfig, Kind, Transcoder, sparse_decode
from lab.circuits.transcoders.coders.training import CoderAdam, CoderTrainer, CoderTraining, Site
from lab.circuits.transcoders.models.stdlib import StdlibTexts, hooked
from lab.circuits.transcoders.models.stdlib_assets import WIDTH, stdlib_coders
from lab.experiment import Progress, no_progress, race
from lab.racing import answer, paired, row, threads

THREADS = 2
BATCH, D, F = 1024, 256, WIDTH
REPEATS, QUICK = 15, 3
LENGTHS = (16, 32, 64, 128)
ACTIVE = 40  # features a token in the race of decoders, about 2 % of them


@race("coding", "Encoding and decoding", rows=("encode-decode", "decode-sparse", "decode-share"))
@torch.no_grad()
def coding(*, quick: bool = False, progress: Progress = no_progress) -> dict[str, Any]:
    """Encoding and decoding against the bare products of the same sizes, and decoding from active features alone."""
    with threads(THREADS):
        repeats = QUICK if quick else REPEATS
        torch.manual_seed(0)
        coder, x = Transcoder(CoderConfig(D, F, D)), torch.randn(BATCH, D)
        weight, other, bias = coder.W_enc.detach(), coder.W_dec.detach(), torch.zeros(F)

        def bare() -> Tensor:
            return torch.mm(torch.addmm(bias, x, weight), other)

        rows = [row("encode-decode", "the coder", "two bare products", 0.8, paired(lambda: coder(x), bare, repeats))]
        progress(0.5, "decoding")
        topk = Transcoder(CoderConfig(D, F, D, activation="topk", k=ACTIVE))
        values, places = topk.active(topk.pre(x))
        z = topk.encode(x)
        apart = float((sparse_decode(values, places, other) - z @ other).abs().max())
        timed = paired(lambda: sparse_decode(values, places, other), lambda: z @ other, repeats)
        rows.append(
            row("decode-sparse", "active rows alone", "the dense product", 1.0, timed, largest_difference=apart)
        )
        share = paired(lambda: sparse_decode(values, places, other), lambda: torch.addmm(bias, x, weight), repeats)
        rows.append(row("decode-share", "active rows alone", "the bare encoder", 10.0, share))
        return answer(rows, threads=THREADS, shape=[BATCH, D, F])


@race("step", "A training step", rows=("step", "step-saelens", "step-sparsify"))
def training_step(*, quick: bool = False, progress: Progress = no_progress) -> dict[str, Any]:
    """A training step (forward, backward, projection, Adam, renormalising) against its five bare products, and against
    SAELens' and sparsify's step on the same shapes where they are installed."""
    with threads(THREADS):
        repeats = QUICK if quick else REPEATS
        torch.manual_seed(0)
        x, y = torch.randn(BATCH, D), torch.randn(BATCH, D)
        rows = [
            row("step", "our step", "its five bare products", 1 / 1.5, paired(our_step(x, y), _bare_step(x), repeats))
        ]
        missing = []
        for place, (name, peer) in enumerate((("SAELens", saelens_step), ("sparsify", sparsify_step))):
            progress((1 + place) / 3, name)
            try:
                step = peer(x, y)
            except ImportError:
                missing.append(name)
                continue
            ours = our_step(x, y, topk=True) if name == "sparsify" else our_step(x, x, kind="sae")
            rows.append(row(f"step-{name.lower()}", "our step", f"{name}'s step", 1.0, paired(ours, step, repeats)))
        return answer(rows, threads=THREADS, shape=[BATCH, D, F], not_installed=missing)


def our_step(x: Tensor, y: Tensor, *, kind: Kind = "transcoder", topk: bool = False) -> Callable[[], None]:
    """One training step of a fresh coder, to be called again and again."""
    site = Site(
        0, kind, d_sae=F, lam=1e-3, activation="topk" if topk else "relu", k=ACTIVE if topk else None, dead="none"
    )
    cfg = CoderConfig(D, F, D, site.activation, site.k)
    parts = nn.ModuleDict({"coder": CoderTrainer(site, cfg, x.mean(0), y.mean(0), 200)})
    adam = CoderAdam(parts, CoderTraining())

    def step() -> None:
        adam.zero_grad()
        parts["coder"](x, y).backward()
        adam.step()

    return step


def _bare_step(x: Tensor) -> Callable[[], None]:
    weight, other = torch.randn(D, F), torch.randn(F, D)
    wide, narrow = torch.empty(BATCH, F), torch.empty(BATCH, D)
    into, out = torch.empty(D, F), torch.empty(F, D)

    def products() -> None:
        torch.mm(x, weight, out=wide)
        torch.mm(wide, other, out=narrow)
        torch.mm(wide.T, narrow, out=out)
        torch.mm(narrow, other.T, out=wide)
        torch.mm(x.T, wide, out=into)

    return products


def saelens_step(x: Tensor, y: Tensor) -> Callable[[], None]:
    """SAELens' step of its standard autoencoder of ``x`` (it trains no transcoders); ImportError without it."""
    from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    model = StandardTrainingSAE(StandardTrainingSAEConfig(d_in=D, d_sae=F))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    read = TrainStepInput(x, {"l1": 1.0}, None, 0, False)

    def step() -> None:
        adam.zero_grad()
        model.training_forward_pass(read).loss.backward()
        adam.step()

    return step


def sparsify_step(x: Tensor, y: Tensor) -> Callable[[], None]:
    """sparsify's step of a topk transcoder on the same shapes, rows kept at unit norm; ImportError without it."""
    from sparsify import SparseCoder, SparseCoderConfig

    model = SparseCoder(D, SparseCoderConfig(num_latents=F, k=ACTIVE, transcode=True))
    with torch.no_grad():
        model.W_dec.normal_()  # theirs begin at zero; the work is the same
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        model.set_decoder_norm_to_unit_norm()
        adam.zero_grad()
        model(x, y).fvu.backward()
        model.remove_gradient_parallel_to_decoder_directions()
        adam.step()

    return step


@race("paths", "Path search", rows=tuple(f"paths-{length}" for length in LENGTHS))
def path_search(*, quick: bool = False, progress: Progress = no_progress) -> dict[str, Any]:
    """3 x 15 paths on `stdlib-gpt` against the published algorithm written plainly, at several prompt lengths."""
    with threads(THREADS):
        repeats = QUICK if quick else REPEATS
        root = LogitDiff((5,), (9,))
        rows, seconds = [], {}
        for place, length in enumerate(LENGTHS):
            progress(place / len(LENGTHS), f"{length} tokens")
            tokens = StdlibTexts("held_out", length).spaced(3)[1]
            run = FrozenRun(hooked(), stdlib_coders(), tokens)

            def ours(run: FrozenRun = run) -> Any:
                fresh = copy.copy(run)
                for name in ("active", "errors", "values"):  # what a search computes once is part of it
                    fresh.__dict__.pop(name, None)
                return greedy_paths(attribute_run(fresh, root), 3, 15)

            def peer(run: FrozenRun = run) -> Any:
                return published_paths(run, root, 3, 15)

            found, expected = ours(), peer()
            assert_equal = max(abs(one.value - value) for one, (_, value) in zip(found, expected, strict=True))
            timed = paired(ours, peer, repeats)
            seconds[length] = sorted(timed["seconds_method"])[len(timed["seconds_method"]) // 2]
            rows.append(
                row(
                    f"paths-{length}",
                    "our search",
                    "the published one, plainly",
                    20.0,
                    timed,
                    largest_difference=assert_equal,
                )
            )
        return answer(
            rows, threads=THREADS, seconds={str(length): round(value, 4) for length, value in seconds.items()}
        )
