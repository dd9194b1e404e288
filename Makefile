# Everything a developer runs. Needs make and Python 3.11 or newer; `make setup` fetches the rest into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-faults test-schema test-slow test-random lint format claims catalogue client lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(STAMP)  ## create .venv and install the locked dependencies (quick when nothing changed)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Espalier needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
	  echo "Name another one: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Could not create $(VENV): on Debian and Ubuntu, apt-get install python3-venv." >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[worker,demo,dev]'
	@# A job's process may write nothing: it would compile these anew each time.
	@$(BIN)/python -m compileall -q app espalier models_store worker
	@touch $@

demo: setup  ## the whole service on a real model: train, upload, prune, finetune, compare
	$(BIN)/espalier demo

test: setup  ## every test but those of the targets below, on all cores
	tools/install_browser.sh
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" --ignore tests/worker/faults

test-faults: setup  ## jobs whose workers, disks, databases or brokers fail under them
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" tests/worker/faults

test-schema: setup  ## the running service against its OpenAPI document, by schemathesis, in short
	$(BIN)/python -m pytest -m slow tests/api/test_schema_conformance.py -k "not at_length"

test-slow: setup  ## what takes longer still, such as 200 jobs under kills
	$(BIN)/python -m pytest -m slow

GRAPHS ?= 20000
test-random: setup  ## cut new random networks, GRAPHS=20000 of them, in search of one whose cut is not exact
	ESPALIER_RANDOM_GRAPHS=$(GRAPHS) $(BIN)/python -m pytest -n auto tests/engine/graph/test_random_graphs.py

lint: setup  ## ruff, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## rewrite the files as `make lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

claims: setup  ## the measured claims of benchmarks/results, with their goals
	@$(BIN)/python -m benchmarks.claims

catalogue: setup  ## write models_store/catalogue.json anew, after a method was added or changed
	@$(BIN)/python -m worker.engine.catalogue > models_store/catalogue.json.new
	@mv models_store/catalogue.json.new models_store/catalogue.json

client: setup  ## write the plain Python client anew, after the one to be awaited was changed
	@$(BIN)/python tools/make_client.py

lock: setup  ## resolve constraints.txt anew for Python 3.11 and later
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate --upgrade \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
	  --output-file constraints.txt pyproject.toml

clean:  ## remove .venv and every cache
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
