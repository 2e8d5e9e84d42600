# `make demo` and `make test` do all the set-up on a machine with Python, make and a package index.
PYTHON ?= python3
# The index of torch's CPU build, for a laptop whose package index would bring CUDA:
#   make demo TORCH_INDEX=<address of the CPU wheel index>
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Tests wait more than they compute.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(2 * min(os.cpu_count() or 1, 8))')

.PHONY: help demo test test-long sdk-v3 lint types clauses check bench clean \
        wheels image image-size test-docker lock audit
.DELETE_ON_ERROR:

help:           ## tell what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

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

# `make demo RUNNER=docker` runs the jobs in containers of the image that `make image` builds.
RUNNER ?= process
demo: $(VENV)/demo   ## train, deploy and evaluate on a local SageMaker, without Docker
	$(BIN)/byoa demo --runner $(RUNNER)

test: $(VENV)/dev    ## run all tests that need no Docker
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 20

BODIES ?= 10000
test-long: $(VENV)/dev   ## try BODIES faulty bodies for each format, in the codecs and on a server
	BYOA_TEST_BODIES=$(BODIES) $(BIN)/python -m pytest -n $(WORKERS) \
	  tests/container/formats/test_any_bytes.py tests/serve/test_any_body.py

# The SageMaker Python SDK v3, an unmodified client under test, in an environment of its own: its
# modules have the names of v2's. With it `make test` and `make test-docker` run its tests, too.
sdk-v3: build/sdk-v3/done   ## install the SDK v3 for its tests
build/sdk-v3/done: tests/clients/sdk_v3.txt
	$(PYTHON) -m venv build/sdk-v3
	build/sdk-v3/bin/python -m pip --disable-pip-version-check install --quiet --no-deps \
	  --requirement tests/clients/sdk_v3.txt
	@touch $@

lint: $(VENV)/dev    ## ruff
	$(BIN)/ruff check .

# The folders become the package `byoa` only when installed, so an installed copy is checked.
types: $(VENV)/dev   ## mypy, strict
	rm -rf build/types
	$(PIP) --no-deps --no-build-isolation --target build/types .
	cd build/types && ../../$(BIN)/python -m mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p byoa

clauses: $(VENV)/dev ## write docs/clauses.md and docs/hosting-clauses.md: what shows which clause
	$(BIN)/python tests/clauses.py

check: lint types test   ## everything that CI checks without Docker

bench: $(VENV)/dev   ## print every benchmark's ratios
	for each in tests/bench/*.py; do echo "== $$each"; $(BIN)/python $$each || exit 1; done

# --- the image -------------------------------------------------------------------------------------

DOCKER ?= docker
BASE_IMAGE ?= $(or $(BYOA_BASE_IMAGE),python:3.11-slim-bookworm)
# cpu, none, or CUDA's version as cu126 (with TORCH_INDEX, the address of that build's index).
TORCH_VARIANT ?= cpu
EXTRAS ?= script,fast
IMAGE ?= byoa:$(if $(filter cpu,$(TORCH_VARIANT)),latest,$(if $(filter none,$(TORCH_VARIANT)),no-torch,$(TORCH_VARIANT)))
# An index's address holds in a container too; a path of this machine does not.
PIP_SETTINGS := PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT
BUILD_ARGS ?=

image:          ## build byoa:latest; TORCH_VARIANT=none: byoa:no-torch, cu126: byoa:cu126
	$(DOCKER) build --tag $(IMAGE) --build-arg BASE_IMAGE=$(BASE_IMAGE) \
	  --build-arg TORCH_VARIANT=$(TORCH_VARIANT) --build-arg EXTRAS=$(EXTRAS) \
	  $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) \
	  $(foreach each,$(PIP_SETTINGS),$(if $($(each)),--build-arg $(each))) $(BUILD_ARGS) .

wheels:         ## fill wheels/, from which `make image` then builds without a network
	$(PYTHON) container/image/wheels.py $(DOCKER) $(BASE_IMAGE) $(TORCH_INDEX)

image-size:     ## print what the image adds to its base, and its largest directories
	$(PYTHON) container/image/size.py $(DOCKER) $(BASE_IMAGE) $(IMAGE)

# They wait for the engine more than they compute.
DOCKER_WORKERS ?= 4
test-docker: $(VENV)/dev   ## run the tests that need a container engine and both images
	$(BIN)/python -m pytest -m docker -n $(DOCKER_WORKERS) --dist worksteal --durations 20

UPGRADE ?=
lock:           ## lock the image's versions; UPGRADE=--upgrade takes the newest that fit
	$(PYTHON) container/image/lock.py $(UPGRADE)

build/audit: | $(BIN)/python
	$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check install --quiet pip-audit

audit: build/audit   ## ask for known vulnerabilities of the locked versions
	$</bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

clean:          ## remove what make has made
	rm -rf $(VENV) build wheels byoa.egg-info .pytest_cache .mypy_cache .ruff_cache
