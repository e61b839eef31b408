# `make` or `make help` lists every target. Installation happens once: again only when its three files change.

.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXPERIMENTS := $(sort $(basename $(notdir $(wildcard experiments/*.yaml))))

# Where torch alone comes from; empty: PyPI, which has the CUDA build. https://download.pytorch.org/whl/cpu is small.
# Without dependencies, because such an index need not have the versions we pin; the next line brings them.
TORCH_INDEX ?=
TEST_WORKERS ?= 2

# Another embedded backbone than the one the experiments name: a file of experiments/backbones.
BACKBONES := $(sort $(basename $(notdir $(wildcard experiments/backbones/*.yaml))))
BACKBONE ?=
CHOSEN_BACKBONE = $(if $(BACKBONE),--config experiments/backbones/$(BACKBONE).yaml)

# A sweep is many runs from one file of experiments/sweeps, JOBS of them at a time.
SWEEPS := $(sort $(basename $(notdir $(wildcard experiments/sweeps/*.yaml))))
SWEEP ?=
JOBS ?= 2

EXP ?=
FORCE ?=
SET ?=
ARGS ?=

# One thread each: workers of a test run and kernels of a small model would only fight for the cores.
RUN_TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS)

# The names that come near a word, for a hint: $(call nearest,word,names).
nearest = $$($(PYTHON) -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))' '$(1)' $(2))

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: EXP=name of experiments/*.yaml, BACKBONE=name of experiments/backbones/*.yaml,"
	@echo "             SWEEP=name of experiments/sweeps/*.yaml, JOBS=2 (runs of a sweep at a time),"
	@echo "             FORCE=1 (start over), SET=name of a data set, ARGS='more arguments',"
	@echo "             PYTHON=python3.11, TORCH_INDEX=https://download.pytorch.org/whl/cpu, TEST_WORKERS=2"

.PHONY: install
install: $(INSTALLED) ## Set up .venv with the tested versions (again only when they changed).

$(INSTALLED): constraints.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: PYTHON: $$($(PYTHON) --version 2>&1 | head -n 1) cannot run this project"; \
	  echo "  expected: Python 3.11 or newer"; \
	  echo "  hint: name one that is installed: make install PYTHON=python3.11"; exit 2; } >&2
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || \
	  $(BIN)/python -m pip install -c constraints.txt $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: data
data: $(INSTALLED) ## Write the testbed's data (once), or fetch a real set: SET=name.
	$(BIN)/m2pt data $(if $(SET),fetch $(SET) $(ARGS),testbed)

.PHONY: backbone
backbone: $(INSTALLED) ## Rebuild an embedded backbone from its recipe: BACKBONE=name (long; all are in the repository).
	$(BIN)/m2pt backbone $(if $(BACKBONE),--name $(BACKBONE)) $(ARGS)

.PHONY: check-exp
check-exp:
	@test -n '$(EXP)' -a -f 'experiments/$(EXP).yaml' || { \
	  echo "error: EXP: there is no experiment '$(EXP)'"; \
	  echo "  expected: one of $(EXPERIMENTS)"; \
	  near=$(call nearest,$(EXP),$(EXPERIMENTS)); \
	  near=$${near:+did you mean EXP=$$near?}; \
	  echo "  hint: $${near:-make train EXP=$(firstword $(EXPERIMENTS))}"; exit 2; } >&2
	@test -z '$(BACKBONE)' -o -f 'experiments/backbones/$(BACKBONE).yaml' || { \
	  echo "error: BACKBONE: there is no backbone '$(BACKBONE)'"; \
	  echo "  expected: nothing, or one of $(BACKBONES)"; \
	  near=$(call nearest,$(BACKBONE),$(BACKBONES)); \
	  near=$${near:+did you mean BACKBONE=$$near?}; \
	  echo "  hint: $${near:-make train EXP=$(firstword $(EXPERIMENTS)) BACKBONE=$(firstword $(BACKBONES))}"; exit 2; } >&2

.PHONY: train
train: check-exp $(INSTALLED) ## Train and evaluate an experiment: EXP=name; FORCE=1 starts over.
	OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),1) $(BIN)/m2pt train --config experiments/$(EXP).yaml $(CHOSEN_BACKBONE) $(if $(FORCE),--force) $(ARGS)

.PHONY: check-sweep
check-sweep:
	@test -n '$(SWEEP)' -a -f 'experiments/sweeps/$(SWEEP).yaml' || { \
	  echo "error: SWEEP: there is no sweep '$(SWEEP)'"; \
	  echo "  expected: one of $(SWEEPS)"; \
	  near=$(call nearest,$(SWEEP),$(SWEEPS)); \
	  near=$${near:+did you mean SWEEP=$$near?}; \
	  echo "  hint: $${near:-make sweep SWEEP=$(firstword $(SWEEPS))}"; exit 2; } >&2

.PHONY: sweep
sweep: check-sweep $(INSTALLED) ## Run a sweep, or go on with it: SWEEP=name; JOBS=2 runs at a time.
	$(BIN)/m2pt sweep run $(SWEEP) --jobs $(JOBS) $(if $(BACKBONE),--backbone $(BACKBONE)) $(ARGS)

.PHONY: evaluate
evaluate: check-exp $(INSTALLED) ## Evaluate a trained experiment on its benchmarks: EXP=name.
	$(BIN)/m2pt evaluate --config experiments/$(EXP).yaml $(CHOSEN_BACKBONE) $(ARGS)

.PHONY: report
report: $(INSTALLED) ## Write outputs/report: a page, figures and tables of all that has run.
	$(BIN)/m2pt report-page $(ARGS)

.PHONY: params
params: check-exp $(INSTALLED) ## Count what an experiment trains, without weights: EXP=name.
	$(BIN)/m2pt params --config experiments/$(EXP).yaml $(CHOSEN_BACKBONE) $(ARGS)

.PHONY: bench
bench: $(INSTALLED) ## Measure training, evaluation, data and start side by side; writes docs/speed.md (long).
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.answering.speed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.training.padding
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.training.feature_cache
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.training.input_pipeline
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.training.first_step
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.training.speed $(ARGS)

.PHONY: test
test: $(INSTALLED) ## Run the fast tests.
	$(RUN_TESTS) $(ARGS)

.PHONY: test-slow
test-slow: $(INSTALLED) ## Run the slow tests (minutes).
	$(RUN_TESTS) -m "slow and not gpu" $(ARGS)

.PHONY: slurm-test
slurm-test: $(INSTALLED) ## Start a SLURM of one node, run jobs in it, stop it (minutes; needs slurm-wlm and munge).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm tests/cluster/test_real_slurm.py $(ARGS)

.PHONY: check-real
check-real:
	@cd "$${M2PT_MODELS:-models}/smollm2_dinov2" 2>/dev/null && \
	test -f vision/model.safetensors -a -f language/model.safetensors || { \
	  echo "error: $${M2PT_MODELS:-models}/smollm2_dinov2: the real pair is not there"; \
	  echo "  expected: SmolLM2-135M-Instruct and DINOv2-small as fetched; M2PT_MODELS says where models are"; \
	  echo "  hint: m2pt models fetch smollm2_dinov2"; exit 2; } >&2

# A file stays with one worker: each has models of its own.
.PHONY: test-real
test-real: check-real $(INSTALLED) ## Test on the fetched pair smollm2_dinov2 (about 8 minutes of processor time).
	$(RUN_TESTS) --dist loadfile -m real tests/real $(ARGS)

.PHONY: check
check: lint types imports ## Run every check that is not a test: style, types, import rules.

.PHONY: lint
lint: $(INSTALLED) ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: $(INSTALLED) ## Repair style and formatting where that is possible.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: $(INSTALLED) ## Check types (strictly in lightning_m2pt).
	$(BIN)/mypy

.PHONY: imports
imports: $(INSTALLED) ## Check the import rules of setup.cfg.
	$(BIN)/lint-imports --no-cache

.PHONY: clean
clean: ## Remove caches and build files; keeps .venv, data and outputs.
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
