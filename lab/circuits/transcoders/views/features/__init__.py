"""View: one unit's dashboard."""
