# Everything works from a fresh clone: the first target called makes .venv and installs into it.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed
JAX := .venv-jax
DEMO := runs/demo
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow test-faults test-jax lint types format docs clean

demo: $(INSTALLED)  ## train on the embedded digits, evaluate, write the report, export, verify
	rm -rf $(DEMO)
	$(BIN)/zoo train digits --model convnet --image-size 16 --epochs 20 --out $(DEMO)
	$(BIN)/zoo evaluate $(DEMO)
	$(BIN)/zoo report $(DEMO)
	$(BIN)/zoo export $(DEMO)

test: $(INSTALLED)  ## the short tests
	$(BIN)/python -m pytest -q

test-slow: $(INSTALLED)  ## the slow ones; MARKS='slow and not long' without those that are many alike
	$(BIN)/python -m pytest -q -m '$(or $(MARKS),slow)'

test-faults: $(INSTALLED)  ## kills, full disks, damaged files
	$(BIN)/python -m pytest -q -m 'slow or not slow' tests/faults

JAX_AUGMENT := $(patsubst %,tests/augment/test_%.py,every_layer draws resampling mixing colour noise blur erase)
JAX_TESTS := $(if $(LONG),tests/augment,$(JAX_AUGMENT)) tests/callbacks $(patsubst %,tests/zoo/test_%.py,batches fusing frozen_training rates anchor) \
	tests/zoo/test_importance.py::test_a_dead_block_costs_nothing_and_a_vital_one_everything \
	tests/zoo/test_explain.py::test_heat_lies_where_the_evidence_is

# XLA compiles for minutes what runs in seconds: little is optimised, and what is compiled is kept for the next time.
test-jax: $(JAX)/.installed  ## what needs no TensorFlow, in an environment without it; LONG=1 for all of it
	KERAS_BACKEND=jax JAX_DISABLE_MOST_OPTIMIZATIONS=1 JAX_COMPILATION_CACHE_DIR=$(abspath $(JAX))/compiled \
	JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_COMPILATION_CACHE_MIN_ENTRY_SIZE_BYTES=0 \
	$(JAX)/bin/python -m pytest -q $(if $(LONG),-m 'slow or not slow') tests/zoo/test_every_model.py $(JAX_TESTS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/pyright

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## the page of all models, from the catalog
	$(BIN)/python -m zoo.models.table > docs/models.md.new
	mv docs/models.md.new docs/models.md

clean:
	rm -rf .venv $(JAX)

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; say where with make PYTHON=..." >&2; exit 2; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,cluster]'
	touch $@

# The packages of the project without those that need TensorFlow, with the extra `jax` and pytest.
define JAX_REQUIREMENTS
import re, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
wanted = [*project["dependencies"], *extras["jax"], *(line for line in extras["test"] if line.startswith("pytest"))]
needs = ("tensorflow", "tensorflow-datasets", "tensorboard", "keras-tuner")
print(*(line for line in wanted if re.match(r"[\w-]+", line)[0] not in needs), sep="\n")
endef
export JAX_REQUIREMENTS

$(JAX)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; say where with make PYTHON=..." >&2; exit 2; }
	$(JAX)/bin/python -m pip --version >/dev/null 2>&1 || { rm -rf $(JAX) && $(PYTHON) -m venv $(JAX); }
	$(JAX)/bin/python -c "$$JAX_REQUIREMENTS" > $(JAX)/requirements.txt
	$(JAX)/bin/python -m pip install --quiet --disable-pip-version-check -r $(JAX)/requirements.txt
	$(JAX)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@
