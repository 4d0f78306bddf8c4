"""Evidence: what the claims rest on, how its knobs were tuned, and what is timed."""
