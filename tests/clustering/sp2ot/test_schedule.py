"""The mass schedule: its formula, its ends, its direction."""

import numpy as np
import pytest

from lab.clustering.sp2ot.schedule import RhoSchedule


def test_sigmoid_follows_the_published_ramp() -> None:
    rho = RhoSchedule()
    assert rho(0.0) == pytest.approx(0.10606, abs=5e-6)
    assert rho(0.5) == pytest.approx(0.1 + 0.9 * np.exp(-1.25))
    assert rho(1.0) == 1.0


@pytest.mark.parametrize("kind", ["sigmoid", "linear", "fixed"])
def test_mass_grows_to_its_end(kind: str) -> None:
    values = [RhoSchedule(0.2, 0.8, kind)(t) for t in np.linspace(0, 1, 11)]
    assert values == sorted(values) and values[-1] == pytest.approx(0.8)
    assert min(values) >= 0.2


def test_linear_and_fixed() -> None:
    assert RhoSchedule(0.2, 0.8, "linear")(0.5) == pytest.approx(0.5)
    assert RhoSchedule(0.2, 0.8, "fixed")(0.0) == 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho0": 0.0}, "rho0=0.0"),
        ({"rho1": 1.5}, "rho1=1.5"),
        ({"rho0": np.nan}, "rho0=nan"),
        ({"kind": "cosine"}, "kind='cosine'"),
        ({"rho0": 0.9, "rho1": 0.5}, "rho0=0.9 exceeds"),
    ],
)
def test_bad_schedule_names_the_argument(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RhoSchedule(**arguments)


@pytest.mark.parametrize("t", [-0.1, 1.1, np.nan])
def test_progress_outside_the_run(t: float) -> None:
    with pytest.raises(ValueError, match="t="):
        RhoSchedule()(t)
