# `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo study bench bench-quick test test-slow lint format hooks docs screenshots

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## make .venv and install crackseg into it

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "crackseg needs Python 3.11 or newer; name one with make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## the whole pipeline on the sample data, in minutes on a CPU
	$(BIN)/crackseg demo

study: setup ## test the paper's claims with small models; about an hour on 2 cores (DATA=photographs, CRACK_VALUE=255)
	$(BIN)/crackseg study $(if $(DATA),--photographs '$(DATA)' --out docs $(if $(CRACK_VALUE),--crack-value $(CRACK_VALUE)))

bench: setup $(VENV)/.bench-installed ## speed and scale against what a user would use instead (docs/performance.md)
	$(BIN)/python -m benchmarks

bench-quick: setup $(VENV)/.bench-installed ## the same rows with fewer repeats
	$(BIN)/python -m benchmarks --quick

$(VENV)/.bench-installed: pyproject.toml constraints.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

test: setup lint ## lint, then all tests except the slow ones
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: setup ## the slow tests; those that need Java 17 or PostgreSQL are skipped without it, and named at the end
	$(BIN)/python -c 'import pyspark' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,spark]'
	$(BIN)/python -m pytest -m slow -rs

lint: setup ## ruff, ruff format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
