# Everything works from a fresh clone: the first target called makes .venv and installs into it.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO := runs/demo
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow lint types format clean

demo: $(INSTALLED)  ## train on the embedded digits, evaluate, export, verify
	rm -rf $(DEMO)
	$(BIN)/zoo train digits --model convnet --image-size 16 --epochs 20 --out $(DEMO)
	$(BIN)/zoo evaluate $(DEMO)
	$(BIN)/zoo export $(DEMO)

test: $(INSTALLED)  ## the short tests
	$(BIN)/python -m pytest -q

test-slow: $(INSTALLED)  ## the long ones
	$(BIN)/python -m pytest -q -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/pyright

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; say where with make PYTHON=..." >&2; exit 2; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@
