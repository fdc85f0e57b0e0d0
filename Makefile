# `make demo` and `make test` are all that a newcomer needs; each creates .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto
DEMO := adahessian mala stablemax_perpgrad

.PHONY: demo test lint format bench bench-attention bench-optim tables picture clean

demo: $(VENV)/.train
	$(BIN)/papyrax reproduce $(DEMO) --out build/demo
	$(BIN)/papyrax report --results build/demo --out report.html

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/typecheck.py

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tables: $(VENV)/.train
	$(BIN)/papyrax tables

# README's picture, from the recorded results.
picture: $(VENV)/.train
	$(BIN)/python docs/draw_picture.py docs/three_papers.png $(DEMO)

bench: $(VENV)/.bench
	for script in benchmarks/*.py; do echo "== $$script" && $(BIN)/python $$script || exit 1; done

bench-attention: $(VENV)/.bench
	$(BIN)/papyrax bench attention --causal

bench-optim: $(VENV)/.bench
	$(BIN)/python benchmarks/optimizers.py

clean:
	rm -rf build $(VENV) report.html

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("papyrax needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# A stamp a set of extras: installed again only when what is to be installed has changed.
$(VENV)/.%: $(BIN)/python pyproject.toml setup.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@
