"""`python -m lab` is `lab`."""

from lab.cli import app

app(prog_name="lab")
