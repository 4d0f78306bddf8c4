"""What the commands of `lab` do, one file per command; `lab.cli` reads their arguments."""
