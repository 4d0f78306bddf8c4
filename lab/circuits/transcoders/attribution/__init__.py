"""Circuits: contributions, paths and graphs read off one frozen prompt, cut, and written for others."""
