# Two commands: `make lab` opens the lab, `make test` runs everything. Both need Python >= 3.11 and make.
# `make fuzz` is the longer hunt for files that break a reader; `make test WORKERS=1` leaves a core to you.
PYTHON ?= python3
PORT ?= 8501
WORKERS ?= 2
BIN := .venv/bin
# What is compiled is kept: the tests start some fifty processes.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: lab test fuzz

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "paperlab needs Python >= 3.11; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "python -m venv failed (Debian/Ubuntu: apt install python3-venv)"; exit 1; }
	@$(BIN)/python -m pip install -q --upgrade pip

.venv/.lab: pyproject.toml | .venv/bin/python
	@echo "Installing the lab: about 0.6 GB to download, 3 GB on disk, 2 to 5 minutes ..."
	@$(BIN)/python -m pip install -q -e . && touch $@

.venv/.test: pyproject.toml | .venv/bin/python
	@echo "Installing the lab and its tests: about 0.7 GB to download, 3 GB on disk, 2 to 5 minutes ..."
	@$(BIN)/python -m pip install -q -e '.[test]' && touch $@ .venv/.lab

lab: .venv/.lab
	@echo "The notebooks open in JupyterLab with: .venv/bin/lab notebook"
	@$(BIN)/lab open --port $(PORT) $(OPEN)

test: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n $(WORKERS)

fuzz: .venv/.test
	LAB_FUZZ=1000 $(BIN)/python -m pytest -n $(WORKERS) -k mutants tests/test_files*.py
