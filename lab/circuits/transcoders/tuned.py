"""Adam's rates that searches on other seeds and texts chose, see `evidence.stdlib_tuning` and `evidence.spans_tuning`."""

from __future__ import annotations

STDLIB: dict[str, float] = {"transcoder": 8e-3, "sae": 8e-3}
SPANS: dict[str, float] = {"language_model": 5e-3, "transcoder": 4e-3, "sae": 2e-3}
