# `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo study faults bench bench-quick test test-fast test-slow wheel lint lint-deps lock schema format hooks docs screenshots inspection-pictures

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed-dev ## make .venv with crackseg and everything that its development needs

# Each list of requirements/ is a step of its own; `make lock` writes the lists.
INSTALL = $(PYTHON) tools/install.py $(VENV)
LISTS = requirements/demo.txt requirements/dev.txt

$(VENV)/.installed-demo: pyproject.toml requirements/demo.txt
	$(INSTALL) demo
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(LISTS)
	$(INSTALL) demo dev
	@touch $(VENV)/.installed-demo $@

$(VENV)/.installed-%: pyproject.toml $(LISTS) requirements/%.txt
	$(INSTALL) demo dev $*
	@touch $(VENV)/.installed-demo $(VENV)/.installed-dev $@

demo: $(VENV)/.installed-demo ## the whole pipeline on the sample data, in minutes on a CPU
	$(BIN)/crackseg demo

study: setup ## test the paper's claims with small models; about half an hour of processor time (DATA=photographs, CRACK_VALUE=255)
	$(BIN)/crackseg study $(if $(DATA),--photographs '$(DATA)' --out docs $(if $(CRACK_VALUE),--crack-value $(CRACK_VALUE)))

faults: setup ## kill commands at random moments, fill disks, and look for losses (ARGS="--kills 50 --seed 1"); takes an hour
	$(BIN)/python -m tests.faults $(ARGS)

bench: $(VENV)/.installed-bench ## speed and scale against what a user would use instead (docs/performance.md)
	$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.installed-bench ## the same rows with fewer repeats
	$(BIN)/python -m benchmarks --quick

# Containers set it: then each of the many processes that tests start would compile the tests and the package anew.
test test-fast test-slow wheel: export PYTHONDONTWRITEBYTECODE :=

test: setup lint ## lint, then all tests except the slow ones
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-fast: setup ## the tests next to what you changed and did not push, and those of the rules; in a minute
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile $$($(BIN)/python tools/changed_tests.py)

test-slow: $(VENV)/.installed-spark ## the slow tests; those that need Java 17 or PostgreSQL are skipped without it, and named at the end
	$(BIN)/python -m pytest -m slow -rs

wheel: setup ## build the wheel, and try it where only it and its dependencies are installed
	$(BIN)/python -m pytest -m slow tests/pipeline/test_wheel.py

lint: setup ## ruff, ruff format, mypy, and the lock against pyproject.toml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/lock.py --check

lint-deps: $(VENV)/.installed-audit ## known vulnerabilities of the locked packages; asks pypi.org
	$(BIN)/python tools/audit.py

lock: setup ## pin every package again, at its newest version that fits (constraints.txt, requirements/)
	$(BIN)/python tools/lock.py

schema: setup ## write params.schema.json, which editors complete and check params.yaml with
	$(BIN)/python tools/params_schema.py

format: setup ## format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: setup ## ruff and mypy at each commit
	$(BIN)/pre-commit install

docs: setup ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

screenshots: setup ## make the pictures of docs/images again, with small models; needs Chromium
	$(BIN)/python tools/screenshots.py

inspection-pictures: setup ## make the pictures of the page and of docs/inspecting.md again, with the shipped model
	$(BIN)/python tools/inspection_pictures.py
