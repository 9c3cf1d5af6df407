# What there is to do, said by `make` alone. ARGS goes to the program that a target runs: make test ARGS="-k stream".

PYTHON ?= python3
ARGS   ?=
BIN    := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install run test test-container check fuzz format bench bench-curves bench-profiles bench-peers prove prove-replicas soak faults schema clean anew

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .installed ## everything into .venv

run: .installed ## the service with sample data, on a PostgreSQL of its own
	@$(BIN)/journal serve --sample $(ARGS)

test: .installed ## every test, on a real PostgreSQL
	@$(BIN)/pytest $(ARGS)

test-container: .installed ## the image and compose.yaml, in containers made from Debian's packages
	@tests/image/build.sh && tests/image/build.sh --python
	@JOURNAL_TEST_IMAGE=journal-test-postgres:15 JOURNAL_TEST_PYTHON_IMAGE=journal-test-python:3.11 \
	  $(BIN)/pytest tests/acceptance/test_container.py $(ARGS)

check: .installed ## style, types, layers, and that the tests reach all of the core
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@said=$$($(BIN)/lint-imports 2>&1) || { echo "$$said"; exit 1; }; echo "$$said" | grep '^Contracts:'
	@$(BIN)/coverage run -m pytest tests/unit
	@$(BIN)/coverage report --skip-covered

fuzz: .installed ## every parser, then all calls, on what nobody foresaw: 10 minutes each, or ARGS="cursors --seconds 60"
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install -q --disable-pip-version-check -e '.[fuzz]' \
	  || echo 'atheris is not to be had here: the inputs are made blindly'
	@$(BIN)/python -m tests.fuzz $(ARGS)

format: .installed ## the sources as `check` wants them, where a program can do it
	@$(BIN)/ruff check --fix --show-fixes
	@$(BIN)/ruff format

bench: .installed ## the figures of docs, measured on this machine
	@$(BIN)/python -m bench $(ARGS)

bench-curves: .installed ## how each cost grows, drawn beside how it should
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/pip install -q --disable-pip-version-check -e '.[bench]'
	@$(BIN)/python -m bench.curves $(ARGS)

bench-profiles: .installed ## where the time of each load goes, in the service and in PostgreSQL
	@$(BIN)/py-spy --version >/dev/null 2>&1 || $(BIN)/pip install -q --disable-pip-version-check -e '.[bench]'
	@$(BIN)/python -m bench.profiles $(ARGS)

bench-peers: .installed .peers/installed ## the same work for Kinto and for a table with updated_at, in one run
	@$(BIN)/python -m bench.peers $(ARGS)

prove: .installed .peers/installed ## what those lose and do twice, and that this service does not
	@$(BIN)/python -m bench.peers prove $(ARGS)

prove-replicas: .installed ## 5,000 examples of replicas and a server through all that can go wrong: an hour or less
	@JOURNAL_TEST_REPLICAS=$${JOURNAL_TEST_REPLICAS:-5000} $(BIN)/pytest tests/property/test_replicas.py --hypothesis-seed=1 $(ARGS)

soak: .installed ## an hour of mixed load: does anything get lost, fail or grow?
	@$(BIN)/python -m bench.soak $(ARGS)

faults: .installed ## a quarter of an hour of faults under load: is anything lost, doubled or left behind?
	@$(BIN)/python -m bench.faults $(ARGS)

schema: .installed ## sql/schema.sql: what the migrations add up to
	@$(BIN)/python -m tests.dump_schema > .schema.sql && mv .schema.sql sql/schema.sql || { rm -f .schema.sql; exit 1; }

clean: ## remove what the other targets made, but for your data
	@rm -rf .venv .installed .peers .coverage .fuzz .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made again when pyproject.toml changes, and when somebody removed .venv but not the stamp.
.installed: pyproject.toml $(if $(wildcard $(BIN)/pip),,anew)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Python 3.11 or later is needed: name one with make PYTHON=...'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo '$(PYTHON) cannot make a venv: on Debian and Ubuntu, apt-get install python3-venv'; exit 1; }
	@echo 'installing into .venv'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[embedded,dev]'
	@touch $@

# Kinto in an environment of its own: nothing here needs it but for being measured beside it.
.peers/installed: bench/peers/kinto.txt
	@echo 'installing Kinto into .peers'
	@$(PYTHON) -m venv --clear .peers
	@.peers/bin/pip install -q --disable-pip-version-check -r $<
	@touch $@
