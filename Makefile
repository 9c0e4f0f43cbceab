# Everything runs in .venv, which is made when it is missing or when what it is made from changes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# Where pip gets torch from, such as: --index-url URL-of-the-CPU-builds
PIP_TORCH ?=

.PHONY: demo test lint bench clean
demo: $(INSTALLED)
	$(BIN)/toolchain demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python benchmarks/run.py

# torch comes first and by itself: where a CPU build is on offer (see README), it is kept.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt $(PIP_TORCH) torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
