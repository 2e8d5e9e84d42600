# `make demo` and `make test` do all the set-up on a machine with Python, make and a package index.
PYTHON ?= python3
# The index of torch's CPU build, for a laptop whose package index would bring CUDA:
#   make demo TORCH_INDEX=<address of the CPU wheel index>
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
WORKERS ?= auto

.PHONY: help demo test lint types check bench clean
.DELETE_ON_ERROR:

help:           ## tell what there is to make
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(f"byoa needs Python 3.10 or newer, this is {sys.version}" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

# torch first: with it in place, no later requirement brings another build.
$(VENV)/torch: pyproject.toml | $(BIN)/python
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	@touch $@

$(VENV)/demo: $(VENV)/torch
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/dev: $(VENV)/torch
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/demo

demo: $(VENV)/demo   ## train, deploy and evaluate on a local SageMaker, without Docker
	$(BIN)/byoa demo

test: $(VENV)/dev    ## run all tests that need no Docker
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/dev    ## ruff
	$(BIN)/ruff check .

# The folders become the package `byoa` only when installed, so an installed copy is checked.
types: $(VENV)/dev   ## mypy, strict
	rm -rf build/types
	$(PIP) --no-deps --no-build-isolation --target build/types .
	cd build/types && ../../$(BIN)/python -m mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p byoa

check: lint types test   ## everything that CI checks without Docker

bench: $(VENV)/dev   ## print every benchmark's ratios
	for each in tests/bench/*.py; do echo "== $$each"; $(BIN)/python $$each || exit 1; done

clean:          ## remove what make has made
	rm -rf $(VENV) build byoa.egg-info .pytest_cache .mypy_cache .ruff_cache
