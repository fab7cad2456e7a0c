# `make demo` and `make test` work as the first command after a clone: Python >= 3.11 (with venv) and make are enough.
#
#   make demo        real handwritten digits, eight ways of training, a verdict
#   make test        the test suite, and its numerical part again with the sums of an older processor
#   make test-sums   that part alone
#   make test-long   the tests that take more than a few seconds each
#   make check       the gate: format, lint, types, documentation, tests
#   make docs        the documentation, in docs/_build/html
#   make bench       the cost of a step and of an import, beside TorchJD, in an environment of its own
#   make gpu         tests and measurements on one CUDA GPU, under 8 minutes; needs torch alone
#   make check-versions  tests with the lowest and the newest versions of every dependency, and an audit of the newest; 20 GB of disk
#   make examples    the programs in examples/ and the tests of frameworks, in an environment of their own
#   make format      puts the code into shape
#   make install     all that the above need
#
# PYTHON=python3.12 chooses the interpreter, VENV=DIR the environment, JOBS=4 the test processes.

PYTHON ?= python3
VENV ?= .venv
BENCH ?= .venv-bench
EXAMPLES ?= .venv-examples
JOBS ?= 2
BIN := $(VENV)/bin

# Stamps: an install is repeated when pyproject.toml has changed, and only then. What the tests need includes what the demo needs.
STUDIES := $(VENV)/.installed-studies
DEV := $(VENV)/.installed-dev
BENCHED := $(BENCH)/.installed
SHOWN := $(EXAMPLES)/.installed

# One thread for each process: JOBS of them share the cores, and sums do not depend on how many cores there are.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
CODE := src tests benchmarks docs examples

# What rounding may decide. Sums differ between processors: these files run again with the kernels of an older one.
NUMERICAL := $(filter-out %_ranks.py %_distributed.py %_training.py,$(wildcard $(patsubst %,tests/test_%*.py,\
	balancer evidence fork linesearch methods optim pareto precision samples solvers)))
OLDER := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE

.PHONY: demo test test-sums test-long check install docs bench gpu check-versions examples format

demo: $(STUDIES)
	$(BIN)/paretorch study quickstart

test: $(DEV)
	$(PYTEST) -m "not long"
	$(OLDER) $(PYTEST) -m "not long" $(NUMERICAL)

test-sums: $(DEV)
	$(OLDER) $(PYTEST) -m "not long" $(NUMERICAL)

test-long: $(DEV)
	$(PYTEST) -m long

check: $(DEV)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy --strict
	$(MAKE) --no-print-directory docs
	$(MAKE) --no-print-directory test

docs: $(DEV)
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build/html
	@echo "The documentation is in docs/_build/html/index.html"

bench: $(BENCHED)
	$(BENCH)/bin/python benchmarks/step.py --memory
	$(BENCH)/bin/python benchmarks/import_time.py

gpu:
	PYTHONPATH=src $(PYTHON) benchmarks/gpu/run.py

check-versions: $(DEV)
	$(BIN)/python tests/check_versions.py

examples: $(SHOWN)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(EXAMPLES)/bin/python -m pytest -n $(JOBS) tests/test_examples.py tests/test_integrations*.py \
		tests/test_studies_ray.py tests/test_training_tracking_packages.py tests/test_workloads_loader_stream.py

format: $(DEV)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

install: $(DEV)

# torch and torchvision come from one pip command, so that pip resolves a pair that fits.
$(DEV): pyproject.toml
	$(call environment,$(VENV))
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[studies,fronts,data,export,dev]'
	@touch $(STUDIES) $@

$(STUDIES): pyproject.toml
	$(call environment,$(VENV))
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[studies]'
	@touch $@

$(BENCHED): pyproject.toml benchmarks/requirements.txt
	$(call environment,$(BENCH))
	$(BENCH)/bin/python -m pip install --disable-pip-version-check -e . -r benchmarks/requirements.txt
	@touch $@

$(SHOWN): pyproject.toml examples/requirements.txt
	$(call environment,$(EXAMPLES))
	$(EXAMPLES)/bin/python -m pip install --disable-pip-version-check -e '.[studies,lightning,transformers,ray,tracking,dev]' -r examples/requirements.txt
	@touch $@

define environment
@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python >= 3.11 is needed, this is %s: make PYTHON=python3.12 ..." % sys.version.split()[0])'
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
endef
