"""The greater-than study: scores by closed form, curves against the model itself with units edited one by one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from lab.circuits.transcoders.coders.coder import CoderConfig, SparseAutoencoder, Transcoder
from lab.circuits.transcoders.coders.evaluation import replace_mlps
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.hooked import HookedConfig, HookedGPT, replaced_mlps
from lab.circuits.transcoders.models import greater_than as gt
from lab.datasets import spans
from lab.datasets.spans import Mode, SpansError

YEARS = torch.arange(1, 99)
MODES: tuple[Mode, Mode] = ("greater", "less")


def model(layers: int = 1) -> HookedGPT:
    with torch.random.fork_rng():
        torch.manual_seed(layers)
        made = HookedGPT(HookedConfig(layers, 16, 2, 6, 24, 12, len(spans.VOCABULARY))).double()
        for weight in made.parameters():
            torch.nn.init.normal_(weight, std=0.5)
    return made.requires_grad_(False)


def coder(kind: type[Transcoder] = Transcoder, **more: bool) -> Transcoder:
    generator = torch.Generator().manual_seed(3)
    made = kind(CoderConfig(16, 40, 16), generator=generator, **more).double()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.4, generator=generator)
    return made.requires_grad_(False)


def test_prompts_differ_in_their_year_alone() -> None:
    for mode, verb in zip(MODES, spans.VERBS, strict=True):
        given = gt.prompts(mode, event="siege", century=12)
        for year in (0, 7, 99):
            assert spans.decode(given.tokens[year]) == f"the siege {verb} from 12{year:02d} to 12"
        assert given.tokens.shape[0] == 100 and bool(spans.is_end(given.tokens)[:, -1].all())
        assert [spans.VOCABULARY[token] for token in given.years[[0, 99]].tolist()] == ["##00", "##99"]


@pytest.mark.parametrize("mode", MODES)
def test_pd_of_the_truth_is_one_and_kl_zero(mode: Mode) -> None:
    truth = torch.stack([spans.truth(mode, year) for year in YEARS.tolist()]).log()
    assert torch.allclose(gt.probability_difference(truth, YEARS, mode), torch.ones(98))
    assert torch.allclose(gt.kl_to_truth(truth, YEARS, mode), torch.zeros(98), atol=1e-6)


def test_pd_of_knowing_nothing() -> None:
    """Uniform over all: (99 - YY - (YY + 1)) / 100, -0.01 on average, and KL log 100 less the truth's entropy."""
    flat = torch.zeros(98, 100)
    greater, less = (gt.probability_difference(flat, YEARS, mode) for mode in MODES)
    assert torch.allclose(greater, (98 - 2 * YEARS) / 100, atol=1e-6) and greater.mean().item() == pytest.approx(
        -0.01, abs=1e-6
    )
    assert torch.allclose(less, greater.flip(0), atol=1e-6), "the mirror"
    expected = [math.log(100) - spans.entropy("greater", year) for year in YEARS.tolist()]
    assert torch.allclose(gt.kl_to_truth(flat, YEARS), torch.tensor(expected), atol=1e-5)


def test_pd_rewards_what_kl_does_not() -> None:
    sure = torch.full((98, 100), -20.0)
    sure[:, 99] = 20.0
    assert gt.probability_difference(sure, YEARS).mean() > 0.999
    assert gt.kl_to_truth(sure, YEARS).mean() > 10


def test_measure_is_the_mean_over_98_years() -> None:
    it, given = model(), gt.prompts("less")
    logits = it(given.tokens)[:, -1, spans.FIRST_YEAR : spans.FIRST_YEAR + 100]
    found, p = gt.measure(it, given), logits.softmax(-1)
    brute = sum(float(p[year, :year].sum() - p[year, year:].sum()) for year in range(1, 99)) / 98
    assert found.pd == pytest.approx(brute, abs=1e-9)
    cross = [-float(spans.truth("less", year).double() @ logits[year].log_softmax(-1)) for year in range(1, 99)]
    kl = sum(cross) / 98 - sum(math.log(year) for year in range(1, 99)) / 98
    assert found.kl == pytest.approx(kl, abs=1e-5)


def parts(it: HookedGPT) -> dict[str, tuple[gt.MlpParts, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]]:
    """Each kind of unit, and by hand what its activations are."""
    last, own, sae, skip = it.cfg.n_layers - 1, coder(), coder(SparseAutoencoder), coder(skip=True)
    gelu = torch.nn.GELU(approximate="tanh")
    return {
        "features": (gt.features(own), lambda x, y: torch.relu(x @ own.W_enc + own.b_enc)),
        "autoencoder": (gt.features(sae), lambda x, y: torch.relu(y @ sae.W_enc + sae.b_enc)),
        "skip": (gt.features(skip), lambda x, y: torch.relu(x @ skip.W_enc + skip.b_enc)),
        "neurons": (gt.neurons(it), lambda x, y: gelu(x @ it.W_in[last] + it.b_in[last])),
    }


@pytest.mark.parametrize(
    ("layers", "name", "variant"),
    [
        (1, "features", "zero"),
        (2, "features", "mean"),
        (1, "autoencoder", "mean"),
        (1, "skip", "mean"),
        (1, "neurons", "zero"),
        (2, "neurons", "mean"),
    ],
)
def test_the_curve_is_the_model_with_few_units_left(layers: int, name: str, variant: gt.Variant) -> None:
    """Independent of the fast sum: the last MLP is replaced by one whose dropped units stand at zero, or at their mean."""
    it, given, last = model(layers), gt.prompts("greater"), layers - 1
    units, activations = parts(it)[name]
    names = frozenset({f"blocks.{last}.ln2.hook_normalized", f"blocks.{last}.hook_mlp_out"})
    cache = it.run_with_cache(given.tokens, names=names)[1]
    x, y = (cache[place][:, -1] for place in sorted(names, reverse=True))
    z = activations(x, y)
    assert torch.allclose(gt.activations(it, units, given), z, atol=1e-9)
    ks = (0, 5)
    curve = gt.sufficiency_curve(it, units, given, ks, variant)
    order, spread = curve.order, z.var(0)[curve.order]
    assert bool((spread[1:] <= spread[:-1]).all()) and torch.equal(order.sort().values, torch.arange(len(order)))
    rest = z.mean(0) if variant == "mean" else torch.zeros_like(z[0])
    for place, k in enumerate(ks):
        kept = rest.expand_as(z).clone()
        kept[:, order[:k]] = z[:, order[:k]]
        out = units.floor(x) + kept @ units.writes

        def mlp(read: torch.Tensor, own: torch.Tensor, out: torch.Tensor = out) -> torch.Tensor:
            return torch.cat([own[:, :-1], out[:, None]], dim=1)

        with replaced_mlps(it, {last: mlp}):
            found = gt.measure(it, given)
        assert (curve.pd[place].item(), curve.kl[place].item()) == pytest.approx((found.pd, found.kl), abs=1e-5)


def test_all_units_are_the_whole() -> None:
    it, own, given = model(), coder(), gt.prompts("less")
    with replace_mlps(it, {0: own}):
        replaced = gt.measure(it, given)
    for units, whole in ((gt.neurons(it), gt.measure(it, given)), (gt.features(own), replaced)):
        for variant in ("zero", "mean"):
            curve = gt.sufficiency_curve(it, units, given, [len(units.writes)], variant)
            assert curve.kl.item() == pytest.approx(whole.kl, abs=1e-5) and curve.pd.item() == pytest.approx(
                whole.pd, abs=1e-6
            )


def test_areas_are_means_over_k() -> None:
    curve = gt.Sufficiency(torch.arange(4), torch.tensor([9.0, 1, 2, 3]), torch.tensor([9.0, 4, 5, 6]), torch.arange(4))
    assert curve.area(1, 16) == (2.0, 5.0) and curve.area(2, 2) == (2.0, 5.0)
    with pytest.raises(CircuitError, match="first, last"):
        curve.area(7, 9)


def test_with_patterns_and_scale_fixed_and_no_mlp_the_modes_differ_by_a_constant() -> None:
    """The stream is then a sum a(mode) + b(YY), so logit(lasted, YY, ZZ) - logit(rewound, YY, ZZ) is the same for all YY."""
    it = model()
    lasted, rewound = (gt.prompts(mode) for mode in MODES)
    frozen = it.run_with_cache(lasted.tokens[40:41])[1]

    def logits(given: gt.Prompts) -> torch.Tensor:
        with replaced_mlps(it, {0: lambda x, y: torch.zeros_like(y)}):
            return it(given.tokens, frozen=frozen)[:, -1, given.years]

    apart = logits(lasted) - logits(rewound)
    assert torch.allclose(apart, apart[:1].expand_as(apart), atol=1e-9)
    assert apart.abs().max() > 1e-3
    with_mlp = it(lasted.tokens, frozen=frozen)[:, -1] - it(rewound.tokens, frozen=frozen)[:, -1]
    assert with_mlp.std(0).max() > 1e-3, "the MLP alone makes them interact"


def test_such_a_sum_can_still_tell_the_truth() -> None:
    """Why no MLP is needed in principle: a tent b(YY) and a slope a(mode) cancel on one side and add up on the other."""
    steep, years = 30.0, torch.arange(100.0)
    tent = -(years - YEARS[:, None]).abs() * steep
    greater, less = years * steep + tent, -years * steep + tent
    # On the near side both are flat; the year itself ties with them, so it is shifted half a year out.
    greater, less = greater - steep * (years == YEARS[:, None]), less - steep * (years == YEARS[:, None])
    assert gt.kl_to_truth(greater, YEARS, "greater").max() < 1e-4
    assert gt.kl_to_truth(less, YEARS, "less").max() < 1e-4


def test_a_boost_is_the_logits_derivative_times_the_scale() -> None:
    it, given, units = model(), gt.prompts("greater"), gt.neurons(model())
    boost = gt.logit_boost(it, units.writes, given)
    frozen = it.run_with_cache(given.tokens[3:4])[1]

    def with_more(amount: float) -> torch.Tensor:
        edits = {"blocks.0.hook_mlp_out": lambda out: out + amount * units.writes[2]}
        return it(given.tokens[3:4], frozen=frozen, edits=edits)[0, -1, given.years]

    moved = (with_more(1.0) - with_more(0.0)) * frozen["ln_final.hook_scale"][0, -1]
    assert torch.allclose(moved, boost[2], atol=1e-9)


def test_the_best_step_is_brute_force_s() -> None:
    rows = torch.randn(6, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[5, :12], rows[5, 12:] = -1.0, 2.0
    r2, place = gt.step_fit(rows)
    for row, found, where in zip(rows, r2, place, strict=True):
        total = (row - row.mean()).square().sum()
        brute = {
            cut: 1
            - ((row[:cut] - row[:cut].mean()).square().sum() + (row[cut:] - row[cut:].mean()).square().sum()) / total
            for cut in range(1, 30)
        }
        best = max(brute, key=brute.__getitem__)
        assert where == best and found.item() == pytest.approx(brute[best].item())
    assert r2[5] == pytest.approx(1.0) and place[5] == 12
    assert gt.step_fit(torch.ones(1, 10))[0].item() == 0


def test_bad_inputs_are_named() -> None:
    it, given = model(), gt.prompts("greater")
    units = gt.neurons(it)
    for ks in ([25], [-1], []):
        with pytest.raises(CircuitError, match="ks must lie in 0 ... 24"):
            gt.sufficiency_curve(it, units, given, ks)
    with pytest.raises((TypeError, ValueError), match="variant"):
        gt.sufficiency_curve(it, units, given, [1], "median")  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError), match="logits"):
        gt.probability_difference(torch.zeros(3, 99), torch.arange(3))
    with pytest.raises((TypeError, ValueError), match="years"):
        gt.kl_to_truth(torch.zeros(3, 100), torch.arange(2))
    with pytest.raises(SpansError, match="year must lie in 0 ... 98"):
        gt.kl_to_truth(torch.zeros(1, 100), torch.tensor([99]))
    with pytest.raises(SpansError, match="no word 'party'"):
        gt.prompts("greater", event="party")
