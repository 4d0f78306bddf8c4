"""What is raised when something does not fit: one sentence that says what does not, and what would."""

from __future__ import annotations


class CircuitError(ValueError):
    """A coder, a circuit or a question does not fit what it is used on."""


class HookedError(CircuitError):
    """A model or a prompt cannot be read."""
