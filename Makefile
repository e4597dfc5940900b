# Everything a newcomer needs is here and in the README: `make quickstart` and `make test`.
# Both create .venv themselves; the only things they expect are Python >= 3.10, make and a package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2

# One BLAS/OpenMP thread per test worker: two workers on two cores would otherwise fight over both.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.PHONY: quickstart test test-slow test-hub test-corpus test-corpus-full test-peer test-wheel test-torchcodec test-all matrix lint format clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed -e ".[dev]"
	touch $(STAMP)

install: $(STAMP)

quickstart: $(STAMP)  ## make motion clips, train, evaluate, stage, verify, classify, report
	HF_HUB_OFFLINE=1 $(BIN)/python examples/quickstart.py

test: $(STAMP)  ## the default tests: CPU, offline, a few minutes on two cores
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: $(STAMP)  ## kill-and-resume, two processes, long videos, full-size parity
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "slow and not gpu and not real_data"

test-hub: $(STAMP)  ## publish and load back through a Hub server on localhost
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "hub and not gpu and not real_data"

test-corpus: $(STAMP)  ## 1,500 awkward videos
	$(TEST_ENV) $(BIN)/python -m pytest -m corpus_ci

test-corpus-full: $(STAMP)  ## every awkward video
	$(TEST_ENV) $(BIN)/python -m pytest -m corpus_full

test-peer: $(STAMP)  ## transformers' own common tests, taken from its source distribution
	$(TEST_ENV) $(BIN)/python tests/peer/run.py

test-torchcodec: $(STAMP)  ## the same pixels from PyAV and torchcodec; skipped, with the reason, where FFmpeg is not installed
	$(BIN)/python -m pip install --quiet torchcodec
	$(TEST_ENV) $(BIN)/python -m pytest -rs tests/models/test_video_reader_backends.py

test-wheel: $(STAMP)  ## build the wheel, install it in a clean environment, use it there
	$(BIN)/python tests/wheel/run.py

test-all: test test-slow test-hub test-corpus test-peer test-wheel test-torchcodec

matrix: $(STAMP)  ## default tests on the Pythons and transformers versions at hand (see tests/matrix/run.py --help)
	$(BIN)/python tests/matrix/run.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis quickstart_report quickstart_work
