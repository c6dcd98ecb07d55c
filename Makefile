# make demo and make test are all that a fresh clone needs; both set up .venv first.
VENV ?= .venv
PYTHON ?= python3.11
BIN := $(VENV)/bin
# A package index of your own for torch, if pip's default would bring a CUDA build: make demo TORCH_INDEX=...
TORCH_INDEX ?=
# The release that `make lock` and `make next` leave in place.
TORCH := 2.13.0
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo pictures browser test lint bench stacks organism architectures docs install lock next test-fast clean

help: ## Show this list.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 20

install: $(STAMP) ## Create .venv and install the package with its test tools.

# Just what the lock lists, which is whole: nothing is resolved, so that nothing newer can come in, and pip checks that
# nothing is missing.
$(STAMP): pyproject.toml requirements.lock
	@echo "installing into $(VENV): the first time about 1 GB is downloaded, which takes minutes in which nothing is said"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(PIP) install --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $$(grep ^torch== requirements.lock)
	$(PIP) install --no-deps -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check || { echo "if it is torch that lacks libraries, pip took a CUDA build: give an index with the CPU build," \
		"make install TORCH_INDEX=..." >&2; exit 1; }
	touch $(STAMP)

demo: install ## Find, bake, prove and measure on the embedded model.
	$(BIN)/weight-edit demo --out demo-run --overwrite

# One process per core, a file of tests at a time, each with one thread: models here are too small to gain from more.
test: install ## Run all tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

test-fast: install ## Run the first case of each quick test: two minutes on two processors.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --fast

lint: install ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Debian's chromium and nothing of playwright's own: apt-get install chromium. The extra is no part of the lock.
browser: install ## Open the pages in Chromium and check them; needs Debian's chromium.
	$(PIP) install -c requirements.lock -e '.[browser]' --no-build-isolation
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m browser tests

bench: install ## Measure speed, as ratios within one run.
	$(BIN)/python benchmarks/bench_bake.py

# Heavier than what CI runs: llama.cpp is built, which takes about nine minutes, and each other stack gets an environment of
# up to 1.6 GB. One at a time: make stacks STACKS="mlx ctranslate2". Any other server: make stacks LLAMA_SERVER=...
LLAMA_SERVER ?= .stacks/bin/llama-server
STACKS ?= llama-cpp ctranslate2 onnxruntime openvino mlx mistralrs
# Folders of published models that are asked, too.
STACK_MODELS ?=
stacks: install ## Install other inference stacks in .stacks, and check models and edits through them; STACKS="mlx" for one.
	TORCH_INDEX="$(TORCH_INDEX)" PYTHONPATH=tools $(BIN)/python -m stacks $(STACKS)
	WEIGHT_EDIT_LLAMA_SERVER="$(abspath $(LLAMA_SERVER))" WEIGHT_EDIT_STACK_MODELS="$(STACK_MODELS)" OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -q -m stacks tests/evaluation tests/stacks

organism: install ## Train the embedded model again from nothing, and its three variants from it.
	$(BIN)/python -m weight_edit.organism_training.train
	$(BIN)/python -m weight_edit.organism_training.variants
	$(BIN)/python -m weight_edit.organism_training.decoys

pictures: install ## Draw the pictures of README and documents from runs of the embedded model: minutes.
	$(BIN)/python tools/pictures.py

lock: ## Renew requirements.lock: the newest releases within pyproject's ranges.
	$(PYTHON) tools/lock.py torch==$(TORCH)

next: install ## Try the newest releases of everything, in .next, and say what would break.
	$(BIN)/python tools/next.py torch==$(TORCH)

architectures: install ## Try every family of transformers; write docs/architectures.md and its data.
	$(BIN)/weight-edit inspect --all --page docs/architectures.md

# What builds the site is no part of the lock: the extra pins it, and nothing that is locked changes with it.
docs: install ## Build the site of the documents, in site/.
	$(PIP) install -c requirements.lock --no-build-isolation -e '.[docs]'
	$(BIN)/python tools/pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean: ## Remove outputs, caches and .next, not .venv.
	rm -rf .next demo-run runs site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
