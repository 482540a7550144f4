# make demo | test | robustness | check | docs | clean
#
# Each sets itself up the first time: Python 3.11 or later, make, git and a package registry are enough.
# Another Python:           make test PYTHON=python3.12
# PyTorch without CUDA:     make test PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu" TORCH=torch==2.13.0+cpu
# Only some of the tests:   make test PYTEST_FLAGS="-k fsc"

PYTHON ?= python3
VENV ?= .venv
TORCH ?= $(shell grep '^torch==' constraints.txt)
PIP_FLAGS ?=
PYTEST_FLAGS ?=
JOBS ?= 2
DEMO ?= demo

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test check docs robustness clean

help:
	@sed -n '1,6s/^# \{0,1\}//p' Makefile

setup: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "make: expected Python 3.11 or later, found %s; run make PYTHON=python3.11" % sys.version.split()[0])'
	@echo "Setting up $(VENV); the first time, PyTorch takes some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off $(PIP_FLAGS) '$(TORCH)'
	$(BIN)/python -m pip install --quiet --progress-bar off $(PIP_FLAGS) -c constraints.txt -e '.[dev,docs]'
	@touch $@

demo: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" examples/demo.sh $(DEMO)

# One thread a worker: PyTorch's pools fight when there are more of them than cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_FLAGS)

# Hostile files, large ones and faults in full; `make test` has a sample of either. CASES: of each reader. As root disks fill up too.
CASES ?= 400
robustness: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/robustness/fuzz.py --cases $(CASES) --json benchmarks/results/robustness_fuzz.json
	OMP_NUM_THREADS=1 $(BIN)/python tests/robustness/large.py --json benchmarks/results/robustness_large.json
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR) $(BIN)/python tests/robustness/faults.py

check: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf build dist *.egg-info docs/_build $(DEMO) .pytest_cache .mypy_cache .ruff_cache
	find cryorecon docs tests -name __pycache__ -type d -prune -exec rm -rf {} +
