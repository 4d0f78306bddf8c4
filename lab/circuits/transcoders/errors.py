"""What is raised when something does not fit: one sentence that says what does not, and what would."""

from __future__ import annotations


class CircuitError(ValueError):
    """A coder, a circuit or a question does not fit what it is used on; a ValueError of one sentence that says what would fit.

    Examples
    --------
    >>> issubclass(CircuitError, ValueError)
    True
    """


class HookedError(CircuitError):
    """A model or a prompt cannot be read; a CircuitError of one sentence that says what would do.

    Examples
    --------
    >>> issubclass(HookedError, CircuitError)
    True
    """
