"""Circuits: which parts of a language model carry a thought, and how they are wired."""
