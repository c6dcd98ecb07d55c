# make demo and make test are all that a fresh clone needs; both set up .venv first.
VENV ?= .venv
PYTHON ?= python3.11
BIN := $(VENV)/bin
# A package index of your own for torch, if pip's default would bring a CUDA build: make demo TORCH_INDEX=...
TORCH_INDEX ?=
STAMP := $(VENV)/.installed

.PHONY: help demo test lint bench organism architectures install clean

help: ## Show this list.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 20

install: $(STAMP) ## Create .venv and install the package with its test tools.

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(STAMP)

demo: install ## Find, bake, prove and measure on the embedded model.
	$(BIN)/weight-edit demo --out demo-run --overwrite

# One process per core, a file of tests at a time, each with one thread: models here are too small to gain from more.
test: install ## Run all tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

lint: install ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install ## Measure speed, as ratios within one run.
	$(BIN)/python benchmarks/bench_bake.py

organism: install ## Train the embedded model again from nothing, and its two variants from it.
	$(BIN)/python -m weight_edit.organism.train
	$(BIN)/python -m weight_edit.organism.variants

architectures: install ## Try every family of transformers and write docs/architectures.md.
	$(BIN)/weight-edit inspect --all --page docs/architectures.md

clean: ## Remove outputs and caches, not .venv.
	rm -rf demo-run runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
