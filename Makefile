# On a machine with git, make and Python >= 3.11, `make demo` and `make test` do everything.
.DEFAULT_GOAL := help
.PHONY: help demo test coverage unit check lock debian clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
UV ?= uv
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile
COMPILE := $(BIN)/python -m compileall -q -j0
# What is tested fast: no library of the stack does anything in these.
UNIT := tests/unit tests/architecture
# A file's tests stay together: they share a turned wheel, which takes longer to make than most of them. Files come in
# the order of their folders, so that those of unit tests, which are short, are what the last worker waits for.
SPREAD := --numprocesses=auto --dist=loadfile --no-loadscope-reorder

help: ## say what there is to make
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 8

demo: $(VENV)/run ## install, simulate a small product, turn its wheel, and draw what came of it
	$(BIN)/flywheel demo

test: debian check ## install what it takes, and run every check and every test
	$(BIN)/python -m pytest $(SPREAD)

# Apart from `test`: the commands and servers that tests start are traced too, and the suite takes 1.7 times as long.
coverage: debian $(VENV)/dev ## run every test and say which lines none of them reaches
	$(BIN)/python -m pytest $(SPREAD) --cov --cov-report=term:skip-covered

unit: $(VENV)/dev ## run the tests that need neither a server nor a database, in less than a minute
	$(BIN)/python -m pytest -q $(UNIT)

check: $(VENV)/dev ## format, lint and types
	$(BIN)/ruff format --check --diff
	$(BIN)/ruff check
	$(BIN)/mypy

# PYTHONDONTWRITEBYTECODE is set in many images; without .pyc files each command compiles its imports again, which
# takes longer than the command. pip compiles one file after the other; compileall uses every core.
$(VENV)/run: requirements.txt pyproject.toml | $(BIN)/python
	$(INSTALL) --require-hashes -r requirements.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	$(COMPILE) $(VENV)/lib src flows || true
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/run
	$(INSTALL) --require-hashes -r requirements-dev.txt
	$(COMPILE) $(VENV)/lib || true
	@touch $@

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    && echo "$$python -m venv $(VENV)" && exec $$python -m venv $(VENV); \
	done; \
	echo "Flywheel needs Python 3.11 or newer with venv and pip; none was found." >&2; \
	echo "On Debian: apt-get install python3 python3-venv. Elsewhere: make PYTHON=/path/to/python3.11 demo" >&2; \
	exit 1

# What the browser and PostgreSQL tests drive. Without it they are skipped, and say so.
debian:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  command -v chromium >/dev/null && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
	    || { apt-get update -qq \
	         && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium postgresql; } \
	    || echo "Debian's packages cannot be had: the tests that drive them are skipped."; \
	fi

# With their extras: in hash mode pip looks at the newest of a package that is asked for with extras, and stops if that
# has no pin, unless the pin names the extras too.
lock: ## pin all versions anew, with their hashes and without the address of an index
	$(UV) pip compile -q pyproject.toml --group build $(LOCKED) -o requirements.txt
	{ echo "-r requirements.txt"; $(UV) pip compile -q pyproject.toml --group build --group dev $(LOCKED) \
	  -c requirements.txt $$(sed -n 's/^\([a-z0-9._-]*\)\(\[[^]]*\]\)*==.*/--no-emit-package \1/p' requirements.txt); } \
	  > requirements-dev.txt

LOCKED := --upgrade --no-strip-extras --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

clean: ## remove what can be made again
	rm -rf build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis $(VENV)
