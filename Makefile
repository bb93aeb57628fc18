# make quickstart: set up and train a first GCP network, end to end.   make test: set up and run the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help quickstart setup test unit slow fmt lint types contracts check docs bench clean

help:
	@echo "make quickstart   set up, then train digits_resnet_isqrt on a cluster on this machine"
	@echo "make test         set up, then lint, types and every test"
	@echo "make unit         the fast tests only (no cluster)"
	@echo "make slow         integration and fault tests (start a cluster of their own)"
	@echo "make bench        benchmarks; print ratios against a peer run side by side"
	@echo "make fmt lint types docs clean"

quickstart: setup
	./gcpctl submit train digits_resnet_isqrt --follow

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "gcpctl needs Python 3.11 or newer, but %s is %d.%d. Try: make PYTHON=python3.11" % (sys.executable, v[0], v[1]))'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the tested set into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

test: lint types unit slow

unit: setup
	$(BIN)/python -m pytest -q tests -m "not integration and not faults"

slow: setup
	$(BIN)/python -m pytest -q tests -m "integration or faults"

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m tests.architecture.cli_docs
	$(BIN)/python -m tests.architecture.recipe_docs

check: lint types unit

bench: setup
	$(BIN)/python -m tests.benchmarks.isqrt
	$(BIN)/python -m tests.benchmarks.gcp_tax
	$(BIN)/python -m tests.benchmarks.dropcov
	$(BIN)/python -m tests.benchmarks.loader
	$(BIN)/python -m tests.benchmarks.checkpoint_stall
	$(BIN)/python -m tests.benchmarks.throughput
	$(BIN)/python -m tests.benchmarks.cli_start
	$(BIN)/python -m tests.benchmarks.status_at_scale
	$(BIN)/python -m tests.benchmarks.tune_overhead
	$(BIN)/python -m tests.benchmarks.first_step

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
