# Two commands do everything on a fresh machine: `make demo` and `make test`. Each sets up .venv itself.
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3 python
# The first of them that is 3.11 or newer; another is named as `make demo PYTHON=/path/to/python`.
PYTHON ?= $(shell for python in $(CANDIDATES); do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: chaos slurm demo test wide check docs bench bench-conformance soak claims clean help

help:
	@echo "make demo    run the quickstart study on real images and write results/quickstart.html"
	@echo "make test    run every test"
	@echo "make wide    run every test with every combination of its parameters"
	@echo "make check   ruff and mypy"
	@echo "make docs    build the documentation: docs/_build/html/index.html"
	@echo "make chaos   random faults against small studies; FAULTS, SEED and PLACE (folder, s3) may be set"
	@echo "make slurm   a study through a time limit of a local Slurm (root; slurmctld, slurmd, slurm-client, munge)"
	@echo "make bench   benchmarks that fit a CPU"
	@echo "make bench-conformance   which guarantees this package and its peers keep"
	@echo "make soak    an hour of generated networks and uses against their stored twins"
	@echo "make claims  run the studies of the paper that fit a CPU and judge its claims"
	@echo "make clean   remove .venv, caches and results"

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "RevStudy needs Python 3.11 or newer, and none of $(CANDIDATES) is:" \
		"install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[test]'
	@touch $@

# The quickstart in the size that is done in minutes on any processor.
demo: $(READY)
	$(BIN)/revstudy run quickstart --scale demo
	$(BIN)/revstudy report quickstart-demo --output results/quickstart.html
	@echo "Next, language models on real text: $(BIN)/revstudy run language"

# Tests wait for Ray about as long as they compute, so there are more processes than cores. Tests that share a Ray, a
# browser or another costly thing run in one process (tests/conftest.py). build/tests.xml has the time of each.
PROCESSES ?= 4
test: $(READY)
	@browser=$$($(BIN)/python -m tests.browser.chromium) || exit $$?; \
	if [ -n "$$browser" ]; then export BROWSER_PATH="$$browser"; fi; \
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadgroup --no-loadscope-reorder \
		--durations 0 --durations-min 1 --junit-xml build/tests.xml $(ARGS)

# Every combination of parameters, and tests too slow for every change.
wide: ARGS += --wide
wide: test

FAULTS ?= 100
SEED ?= 1
PLACE ?= folder
chaos: $(READY)
	$(BIN)/python benchmarks/chaos.py --faults $(FAULTS) --seed $(SEED) --place $(PLACE)

slurm: $(READY)
	$(BIN)/python -m tests.slurm.check

bench-conformance: $(READY)
	$(INSTALL) '.[bench]'
	$(BIN)/python -m benchmarks.conformance

# Generated networks and uses against their stored twins. MINUTES and SEED choose how many and which.
soak: $(READY)
	$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),60) --seed $(or $(SEED),0)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Nothing is fetched. A link that leads nowhere, or a docstring that cannot be read, ends it.
docs: $(READY)
	$(INSTALL) '.[docs]'
	$(BIN)/python -m sphinx --quiet --fail-on-warning --builder html docs docs/_build/html
	@echo docs/_build/html/index.html

# In order of value; a trial that is in the store already is not run again. CIFAR-10 is taken where it is at hand
# (data/cifar-10-batches-py or data/cifar10/*.parquet, or under REVSTUDY_DATA); without it, digits.
claims: $(READY)
	for study in paper-memory paper-cost; do $(BIN)/revstudy run $$study || exit $$?; done
	$(BIN)/revstudy run paper-cifar --scale tiny || \
		{ test $$? -eq 2 && $(BIN)/revstudy run paper-cifar --scale digits; }
	$(BIN)/revstudy run paper-numerics
	$(BIN)/revstudy claims

bench: $(READY)
	$(INSTALL) '.[bench]'
	$(BIN)/python benchmarks/speed.py --rounds 15
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/strategies.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/largest.py
	$(BIN)/python benchmarks/prediction.py

clean:
	rm -rf $(VENV) results build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis docs/_build docs/reference
