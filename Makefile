# Needs Python 3.11 or later and make; everything else is installed into .venv.
PYTHON ?= python3
# What is installed beside the package; "dev,crosscheck" adds the packages metrics are compared with.
EXTRAS ?= dev
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install train test lint types check clean

help:
	@echo "make train   install, train the aggregate VAE on the embedded digits, make figures"
	@echo "make test    install, run the whole test suite"
	@echo "make check   what CI does: lint, types, tests"

# Installed again whenever a file that names a dependency is newer.
$(VENV)/.installed: requirements.txt setup.cfg pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
	  || { echo "Python 3.11 or later is needed: make PYTHON=python3.12 ..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	touch $@

install: $(VENV)/.installed

train: install
	$(BIN)/avae train digits

# One worker a core, as far as the memory goes: conftest.py chooses, and what each is given.
test: install
	$(BIN)/python -m pytest --numprocesses auto

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/pyright

check: lint types test

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
