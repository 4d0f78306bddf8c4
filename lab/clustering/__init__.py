"""Clustering: pseudo-labels from optimal transport."""
