# serve: the server on the embedded demo model.  test: the test suite.  lint: formatter, linter, type checker.
# bench: speed of this machine.  Each makes the virtual environment first, from the lock file.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
PORT ?= 8000
BIN := $(VENV)/bin

.PHONY: serve test lint bench

serve: $(VENV)/ready
	$(BIN)/python -m zqserve --model demo/model --host 127.0.0.1 --port $(PORT)

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/ready
	$(BIN)/python bench/offline.py --model demo/model

$(VENV)/ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@
