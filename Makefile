# Everything below needs python3 (3.11 or newer), git and make; the rest is installed here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NAME ?=
# Most tests wait for servers: three processes, each with servers of its own, keep two cores busy.
# The files with few and long tests, which are first, are not put off to the end, where one waits.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder
# Hundreds of processes are started: each would compile all of Velro anew where this is set.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help demo test test-containers lint format lock bench schemas clean

help: ## what can be run
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.installed: locks/all.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Velro needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.13 demo")'
	@echo "installing the pinned packages into $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r locks/all.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.installed ## the main job on the embedded stack: an outage, and nothing lost
	@$(BIN)/velro demo

test: $(VENV)/.installed ## every test that needs no Docker, on real embedded servers
	$(BIN)/pytest $(SIDE_BY_SIDE) --ignore=tests/containers

test-containers: $(VENV)/.installed ## what of the integration suite needs servers, and compose, under Docker
	$(BIN)/pytest $(SIDE_BY_SIDE) --servers=containers tests/integration tests/containers

lint: $(VENV)/.installed ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

format: $(VENV)/.installed ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schemas: $(VENV)/.installed ## write the JSON Schemas of the events again
	$(BIN)/python -m shared.contracts.schemas

bench: $(VENV)/.installed ## every benchmark, or one: make bench NAME=append
	$(BIN)/python -m benchmarks $(NAME)

lock: $(VENV)/.installed ## resolve the dependencies again, hashes and no host
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --no-emit-package velro --output-file locks/all.txt
	$(BIN)/uv pip compile --quiet pyproject.toml --constraint locks/all.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --output-file locks/services.txt

clean: ## remove the virtual environment and every cache (the data under .velro stays)
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
