"""View: the greater-than study."""
