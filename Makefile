# Two commands need nothing but Python >= 3.10, make and a package index:
#
#   make run     build, share, pack and store the venvs of config/venvflow.yaml, and show what it did
#   make test    lint, type checks and tests
#
# Both set up what they need in .make/venv, once: what requirements/ names, by version and hash, and nothing else.
# With another Python (make test PYTHON=python3.14), they do it beside that, in .make/3.14.

ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell .ci/find-python)
VENV ?= .make/venv
else
VENV ?= .make/$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
PYTHONS := 3.10 3.11 3.12 3.13 3.14 3.15
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
LOCKED := $(PIP) --require-hashes --only-binary :all:
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --upgrade --generate-hashes \
	--custom-compile-command "make relock" --output-file
# A shell may forbid Python to write bytecode; then nothing here would ever be compiled.
unexport PYTHONDONTWRITEBYTECODE
# One more than there are processors: there is always one that waits, for a disk, a server or another process.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST = $(BIN)/pytest -q -n $(WORKERS) --dist worksteal
# Where nothing that passed is kept, there is room for all.
IN_MEMORY = $(PYTEST) --in-memory -o tmp_path_retention_policy=failed
QUICK = $(IN_MEMORY) -m "not slow" --hypothesis-profile quick

.PHONY: run test disk quick plain pythons newest network long faults lint relock docs dist shape recording screenshot bench bench-quick bench-remote bench-remote-quick clean help
.DEFAULT_GOAL := help

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*##/\1:/p' $(MAKEFILE_LIST) | column -t -s:

run: $(VENV)/run  ## build, share, pack and store the example venvs; show what was saved
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/doit
	@$(BIN)/venvflow status
	@$(BIN)/sqlite-utils rows .store/index.db savings --fmt simple

test: lint  ## lint, type checks and all tests that need neither network nor minutes
	$(IN_MEMORY) --ignore tests/scenarios
	$(PYTEST) tests/scenarios

disk: $(VENV)/test  ## the tests of "make test" with all their files on a disk, where that puts only scenarios
	$(PYTEST)

quick: $(VENV)/test  ## the tests that take seconds
	$(QUICK)

plain: $(VENV)/test  ## the same without Linux's extras: what other systems have instead. As root, /proc is empty, too
	PLAIN=1 $(QUICK)

pythons:  ## the tests that take seconds, on each Python that is here; says which are not
	@failed=; for version in $(PYTHONS); do \
		python=$$(.ci/find-python $$version); \
		if test -z "$$python"; then echo "Python $$version: not here"; continue; fi; \
		echo "Python $$version: $$python"; \
		$(MAKE) --no-print-directory quick PYTHON="$$python" || failed="$$failed $$version"; \
	done; test -z "$$failed" || { echo "Python$$failed: tests failed" >&2; exit 1; }

newest: VENV := .make/newest
newest:  ## the tests that take seconds, with the newest release of everything that is installed
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --editable '.[uv,remote,report]' --group test --group lint --group docs --group tools --group browser
	$(BIN)/mypy
	$(QUICK)

network: $(VENV)/test  ## the tests that need a package index
	$(BIN)/pytest -q -m network --run-network

long: $(VENV)/test  ## the tests that take a minute each, with files of gigabytes; and properties with thousands of examples
	$(PYTEST) -m "long or hypothesis" --run-long --hypothesis-profile long --timeout 1800

faults: $(VENV)/test  ## a fault at every call of every action: kills, failing disks, power cuts, layers, modes, links; an hour
	$(BIN)/pytest -q -p no:xdist --timeout 3600 --all-faults --run-long tests/faults

lint: $(VENV)/test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

relock: $(VENV)/run  ## lock the newest of what is installed here, for every Python from 3.10 on, in requirements/
	$(LOCK) requirements/test.txt --group setup --group test --group docs --group tools --group browser --group lint pyproject.toml --extra uv --extra remote --extra report
	$(LOCK) requirements/run.txt --group setup --constraints requirements/test.txt pyproject.toml --extra uv
	$(LOCK) requirements/action.txt --group setup --constraints requirements/test.txt pyproject.toml --extra uv --extra remote
	$(LOCK) requirements/setup.txt --group setup --constraints requirements/test.txt

docs: $(VENV)/test  ## what is generated in the documents: reference pages, and what sessions print
	PYTHONPATH=tests $(BIN)/python -m tools reference
	PYTHONPATH=tests $(BIN)/python -m tools sessions

dist: $(VENV)/setup  ## the sdist, and the wheel that is made of it, in dist/; the same bytes from the same commit
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) && export SOURCE_DATE_EPOCH && \
	$(BIN)/python -c 'from flit_core import buildapi; buildapi.build_sdist("dist")' && \
	$(BIN)/python -m pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz

shape: $(VENV)/test  ## how large the code is, and how far runs walk in it
	PYTHONPATH=tests $(BIN)/python -m tools shape

recording: $(VENV)/test  ## the terminal session of the README, recorded anew
	PYTHONPATH=tests $(BIN)/python -m tools recording

screenshot: $(VENV)/test  ## the pictures of the report in the documents; needs chromium and chromium-driver
	PYTHONPATH=tests $(BIN)/python -m tools screenshot

bench: $(VENV)/test  ## all benchmark rows, on large inputs: more than an hour; goes on where it was stopped
	$(BIN)/python -m bench --resume

bench-quick: $(VENV)/test  ## the benchmark on small inputs: some three minutes
	$(BIN)/python -m bench --quick

bench-remote: $(VENV)/test  ## a venv from a bucket over a slow link, against others: some four minutes (INPUT=data: more)
	$(BIN)/python -m bench --row 16 --pairs 3 --markdown --input $(or $(INPUT),web)

bench-remote-quick: $(VENV)/test  ## the same with a small venv, each once: less than two minutes
	$(BIN)/python -m bench --quick --row 16

$(VENV)/setup: .ci/find-python requirements/setup.txt
	@test -n "$(PYTHON)" || { echo "No Python >= 3.10 with venv was found. Install one, or: make PYTHON=/path/to/python3" >&2; exit 3; }
	$(PYTHON) -m venv --clear $(VENV)
	$(LOCKED) -r requirements/setup.txt
	@touch $@

$(VENV)/run: $(VENV)/setup requirements/run.txt pyproject.toml
	$(LOCKED) -r requirements/run.txt
	$(PIP) --no-index --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/test: $(VENV)/run requirements/test.txt
	$(LOCKED) -r requirements/test.txt
	@touch $@

clean:  ## remove everything that the commands above made, caches of uv and pip apart
	rm -rf .make .venvs .venvflow .store dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
