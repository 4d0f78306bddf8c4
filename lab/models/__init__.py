"""Backbones that two papers or more share."""
