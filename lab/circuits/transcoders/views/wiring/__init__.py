"""View: how one unit is wired."""
