"""How much mass to transport at which point of training (arXiv 2404.03446, "progressive" part; arXiv 2401.09266).

Early in training only the most confident mass is labelled; the total mass then grows to its final value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

KINDS = ("sigmoid", "linear", "fixed")


@dataclass(frozen=True)
class RhoSchedule:
    r"""Transported mass as a function of progress :math:`t\in[0,1]`.

    .. math::
        \rho(t) = \rho_0 + (\rho_1-\rho_0)\,e^{-5(1-t)^2}\ \text{(sigmoid)},\qquad
        \rho_0 + (\rho_1-\rho_0)\,t\ \text{(linear)},\qquad \rho_1\ \text{(fixed)}.

    Parameters
    ----------
    rho0, rho1 : float
        Mass at the start and at the end, both in (0, 1] and ``rho0 <= rho1``. Dimensionless (fraction of all samples).
        The sigmoid ramp starts slightly above ``rho0``, by ``(rho1 - rho0) * exp(-5)``: with the defaults at 0.10606.
    kind : "sigmoid", "linear" or "fixed"
        The ramp. "fixed" ignores ``rho0``.

    Raises
    ------
    ValueError
        If a mass lies outside (0, 1], if ``rho0 > rho1`` on a ramp, if ``kind`` is unknown; on call, if t is
        outside [0, 1].

    References
    ----------
    Zhang, Ren, He: P2OT (arXiv 2401.09266), progressive mass; the sigmoid ramp is the published default.

    Examples
    --------
    >>> [round(RhoSchedule()(t), 5) for t in (0.0, 0.5, 1.0)]
    [0.10606, 0.35785, 1.0]
    """

    rho0: float = 0.1
    rho1: float = 1.0
    kind: str = "sigmoid"

    def __post_init__(self) -> None:
        for name, value in (("rho0", self.rho0), ("rho1", self.rho1)):
            if not 0.0 < value <= 1.0:
                raise ValueError(f"{name}={value!r} is not a mass: it must lie in (0, 1]")
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is unknown: choose one of {', '.join(KINDS)}")
        if self.kind != "fixed" and self.rho0 > self.rho1:
            raise ValueError(f"rho0={self.rho0!r} exceeds rho1={self.rho1!r}: the mass grows, so rho0 <= rho1")

    def __call__(self, t: float) -> float:
        """Mass at progress ``t`` (0 = first step, 1 = last step)."""
        if not 0.0 <= t <= 1.0:
            raise ValueError(f"t={t!r} is not a progress: it must lie in [0, 1]")
        if self.kind == "fixed":
            return float(self.rho1)
        # rho(t) = rho0 + (rho1 - rho0) exp(-5 (1 - t)^2), or t in place of the exponential
        ramp = math.exp(-5.0 * (1.0 - t) ** 2) if self.kind == "sigmoid" else t
        return float(self.rho0 + (self.rho1 - self.rho0) * ramp)
