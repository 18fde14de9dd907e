# Each target sets up what it needs: `make demo` and `make test` work on a machine with Python 3.11+ and pip alone.

PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(if $(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo ok),$(p))))
VENV := .venv
BIN := $(VENV)/bin
# Prints the TPU compiler that the installed jax asks for.
LIBTPU := import importlib.metadata as m; print(*[r.split(";")[0] for r in m.requires("jax") if r.startswith("libtpu")])
GPU_PYTHON ?= python3

OLDEST := .venv-oldest
# Sampling, porting, fine-tuning, resuming, and the notebook.
OLDEST_TESTS := tests/models/test_torch_parity.py tests/convert/test_convert_script.py tests/sampling/test_pipeline.py \
  tests/training/test_fine_tuning.py tests/training/test_restore.py tests/notebooks/test_colab_install.py \
  tests/notebooks/test_notebook_prompts.py tests/notebooks/test_colab_notebook.py

# Of glibc, for programs on CPUs: they ask for their scratch memory anew at each step. It is kept, in large pages, in the place
# of being given back and cleared (benchmarks/README.md).
KEEP_MEMORY := glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=4294967296

STUDY := $(BIN)/python -m experiments.study --config=configs/study_digits.py:flow --workdir=runs/digits_flow

.PHONY: help demo test test-oldest lint digits digits-compare glyphs study scenes bench bench-gpu clean

demo digits digits-compare glyphs study scenes bench: export GLIBC_TUNABLES := $(KEEP_MEMORY)

help:  ## Lists the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(VENV)/.run  ## Trains the shipped model of printed digits on, stops, resumes, draws beyond its training size, measures.
	$(BIN)/python -m experiments.demo --workdir=runs/demo

test: $(VENV)/.dev lint  ## Lint, format and the whole test suite.
	$(BIN)/python -m pytest -n 2 --dist=worksteal

test-oldest: $(OLDEST)/.dev  ## Part of the tests on the oldest versions that are known to do, in .venv-oldest.
	$(OLDEST)/bin/python -m pytest -W default::DeprecationWarning $(OLDEST_TESTS)  # of ipywidgets 7, about itself

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

digits: $(VENV)/.run  ## The shipped model of handwritten digits from scratch, its figures and its export; resumes where it was stopped.
	$(STUDY) --config.methods=ledit
	$(BIN)/python -m experiments.ship --checkpoint=runs/digits_flow/weights/ledit/seed-0 --out=runs/export/digits

digits-compare: $(VENV)/.run  ## The same for DiT with sin/cos positions and with none, and the tables of the three.
	$(STUDY) --config.methods=ledit,dit,nope

study: $(VENV)/.run  ## All methods on digits by flow, in the same folder: tables, charts and images (about an hour).
	$(STUDY)

glyphs: $(VENV)/.run  ## The demo's checkpoint from scratch, its figures and its export (50 minutes of one core); resumes.
	$(BIN)/python -m experiments.study --config=configs/study_glyphs.py --workdir=runs/study_glyphs \
	  --config.methods=ledit-xavier-norm
	$(BIN)/python -m experiments.ship --checkpoint=runs/study_glyphs/weights/ledit-xavier-norm/seed-0 --out=runs/export/glyphs

scenes: $(VENV)/.run  ## The shipped model of scenes with captions from scratch, and its export (70 minutes); resumes.
	$(BIN)/python -m experiments.study --config=configs/study_scenes.py --workdir=runs/study_scenes \
	  --config.methods=ledit-post-norm
	$(BIN)/python -m experiments.ship --checkpoint=runs/study_scenes/weights/ledit-post-norm/seed-0 --out=runs/export/scenes

bench: $(VENV)/.dev  ## Timings against PyTorch on this machine.
	$(BIN)/python benchmarks/train_step.py

bench-gpu:  ## What waits for an NVIDIA GPU, in pieces, under GPU_PYTHON, which has jax[cuda12] and torch (docs/gpu.md).
	$(GPU_PYTHON) benchmarks/gpu.py

clean:  ## Removes the virtual environment and the caches, not the runs.
	rm -rf $(VENV) $(OLDEST) .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed, and none was found on the PATH"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.run: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --progress-bar=on -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt requirements-oracles.txt requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --progress-bar=on -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-oracles.txt
	# Apart: where libtpu can be imported, jax looks for a TPU.
	$(BIN)/python -m pip install --quiet --progress-bar=on --no-deps --upgrade --target=$(VENV)/tpu \
	  "$$($(BIN)/python -c '$(LIBTPU)')" || echo "no libtpu for this platform: tests that compile for TPUs are skipped"
	touch $@ $(VENV)/.run

$(OLDEST)/.dev: requirements-oldest.txt requirements.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed, and none was found on the PATH"; exit 2; }
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --progress-bar=on -r requirements-oldest.txt
	touch $@
