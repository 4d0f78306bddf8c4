"""View: a blind case study."""
