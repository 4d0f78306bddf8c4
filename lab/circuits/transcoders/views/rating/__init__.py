"""View: the blind rating."""
