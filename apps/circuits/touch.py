"""Taps on charts: `ui.picture` makes them count on every figure whose points are clicked."""

from ui.taps import taps

__all__ = ["taps"]
