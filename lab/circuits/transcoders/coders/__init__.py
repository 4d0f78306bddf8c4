"""Coders: what they are, how they are trained and judged, and the formats in which others keep them."""
