"""The shape checker of the test run: beartype, with Python's numeric tower (an int is a float)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
