# Two commands matter: `make run` starts the dashboard, `make test` runs every check. Both work on a fresh machine.
#
#   make run PORT=8600          another port
#   make run PYTHON=python3.12  another interpreter (3.11 or newer); only matters when .venv is made
#   make test ARGS="-k trace"   arguments for pytest
#   make test JOBS=0            tests one after the other in one process (for a debugger)
#   make run TORCH_INDEX=https://download.pytorch.org/whl/cpu   torch without CUDA: gigabytes less on Linux

PYTHON ?= python3
VENV ?= .venv
PORT ?=
TORCH_INDEX ?=
ARGS ?=
JOBS ?= logical
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test lint format bench conformance clean

help:
	@echo "make run          start the dashboard"
	@echo "make test         lint, types and all tests"
	@echo "make format       format the code"
	@echo "make bench        time the causal trace against its peers (docs/benchmarks.md)"
	@echo "make conformance  only the comparison with transformer-lens"

run: $(VENV)/.stamp-run
	@$(BIN)/streamlit run app.py $(if $(PORT),--server.port $(PORT))

# All three run, so that one look shows everything; the command fails if any of them does.
test: $(VENV)/.stamp-test
	@failed=""; \
	$(BIN)/ruff check . || failed="$$failed ruff"; \
	$(BIN)/pyright --pythonpath $(BIN)/python || failed="$$failed pyright"; \
	if [ -n "$$failed" ]; then echo "make test: failed so far:$$failed (see above); the tests follow."; fi; \
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses=4 --dist loadgroup $(ARGS) || failed="$$failed pytest"; \
	if [ -n "$$failed" ]; then echo "make test: failed:$$failed" >&2; exit 1; fi

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.stamp-test
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.stamp-test
	$(BIN)/python -m benchmarks.causal_trace $(ARGS)

conformance: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -m conformance $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)

# Stamps: pip runs again only when its requirements file has changed.
$(VENV)/.stamp-run: requirements.txt | $(VENV)/.stamp-venv
	@echo "Installing what Lantern needs into $(VENV) (the first time takes minutes; torch is large) ..."
	@$(if $(TORCH_INDEX),$(PIP) $(TORCH) --index-url $(TORCH_INDEX))
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.stamp-test: requirements.txt requirements-test.txt requirements-conformance.txt | $(VENV)/.stamp-venv
	@echo "Installing what the tests need into $(VENV) ..."
	@$(if $(TORCH_INDEX),$(PIP) $(TORCH) --index-url $(TORCH_INDEX))
	@$(PIP) -r requirements-test.txt
	@$(PIP) -r requirements-conformance.txt || \
	  echo "make test: transformer-lens could not be installed; the tests that compare with it will be skipped."
	@touch $@ $(VENV)/.stamp-run

# A half-made environment (Debian without python3-venv) is removed, so that the next try starts clean.
$(VENV)/.stamp-venv:
	@command -v $(PYTHON) >/dev/null 2>&1 || \
	  { echo "Lantern needs Python 3.11 or newer, and '$(PYTHON)' was not found. Try: make PYTHON=/path/to/python3.11 run" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Lantern needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 run" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) && $(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  { rm -rf $(VENV); echo "Could not make $(VENV). On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@
