# Two commands need nothing but Python >= 3.10, make and a package index:
#
#   make run     build, share, pack and store the venvs of config/venvflow.yaml, and show what it did
#   make test    lint, type checks and tests
#
# Both set up what they need in .make/venv, once.

PYTHON ?= $(shell .ci/find-python)
VENV := .make/venv
BIN := $(VENV)/bin
# A shell may forbid Python to write bytecode; then nothing here would ever be compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test quick network long faults lint docs recording bench bench-quick clean help
.DEFAULT_GOAL := help

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*##/\1:/p' $(MAKEFILE_LIST) | column -t -s:

run: .make/run  ## build, share, pack and store the example venvs; show what was saved
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/doit
	@$(BIN)/venvflow status
	@$(BIN)/sqlite-utils rows .store/index.db savings --fmt simple

test: lint  ## lint, type checks and all tests that need neither network nor minutes
	$(BIN)/pytest -q -n 2

quick: .make/test  ## the tests that take seconds
	$(BIN)/pytest -q -n 2 -m "not slow"

network: .make/test  ## the tests that need a package index
	$(BIN)/pytest -q -m network --run-network

long: .make/test  ## the tests that take a minute each, with files of gigabytes
	$(BIN)/pytest -q -m long --run-long

faults: .make/test  ## a fault at every call of every action: kills, failing and full disks, power cuts; minutes
	$(BIN)/pytest -q -p no:xdist --timeout 3600 --all-faults tests/faults

lint: .make/test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .make/test  ## what is generated in the documents: reference pages, and what sessions print
	PYTHONPATH=tests $(BIN)/python -m tools reference
	PYTHONPATH=tests $(BIN)/python -m tools sessions

recording: .make/test  ## the terminal session of the README, recorded anew
	PYTHONPATH=tests $(BIN)/python -m tools recording

bench: .make/test  ## all benchmark rows, on large inputs: about 40 minutes; goes on where it was stopped
	$(BIN)/python -m bench --resume

bench-quick: .make/test  ## the benchmark on small inputs, under two minutes
	$(BIN)/python -m bench --quick

.make/venv: .ci/find-python
	@test -n "$(PYTHON)" || { echo "No Python >= 3.10 with venv was found. Install one, or: make PYTHON=/path/to/python3" >&2; exit 3; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@touch $(VENV)

.make/run: .make/venv pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[uv]'
	@touch $@

.make/test: .make/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group test --group lint --group docs
	@touch $@

clean:  ## remove everything that the commands above made, caches of uv and pip apart
	rm -rf .make .venvs .venvflow .store dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
