# Two commands do everything on a fresh machine: `make demo` and `make test`. Each sets up .venv itself.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check bench bench-conformance claims clean help

help:
	@echo "make demo    run the quickstart study on real images and write results/quickstart.html"
	@echo "make test    run every test"
	@echo "make check   ruff and mypy"
	@echo "make bench   benchmarks that fit a CPU"
	@echo "make bench-conformance   which guarantees this package and its peers keep"
	@echo "make claims  run the studies of the paper that fit a CPU and judge its claims"
	@echo "make clean   remove .venv, caches and results"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: $(READY)
	$(BIN)/revstudy run quickstart
	$(BIN)/revstudy report quickstart

# Two halves at once, on two cores: what starts Ray or takes long, and the rest, whose output follows when both
# have ended.
REST := tests/revmodels tests/study tests/analysis tests/browser
test: $(READY)
	@log=$$(mktemp); $(BIN)/python -m pytest $(ARGS) $(REST) >$$log 2>&1 & other=$$!; \
	$(BIN)/python -m pytest $(ARGS) $(addprefix --ignore=,$(REST)); code=$$?; \
	wait $$other; rest=$$?; cat $$log; rm -f $$log; exit $$((code ? code : rest))

bench-conformance: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.conformance

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In order of value; a trial that is in the store already is not run again. CIFAR-10 is taken where it is at hand
# (data/cifar-10-batches-py or data/cifar10/*.parquet, or under REVSTUDY_DATA); without it, digits.
claims: $(READY)
	for study in paper-memory paper-cost; do $(BIN)/revstudy run $$study || exit $$?; done
	$(BIN)/revstudy run paper-cifar --scale tiny || \
		{ test $$? -eq 2 && $(BIN)/revstudy run paper-cifar --scale digits; }
	$(BIN)/revstudy run paper-numerics
	$(BIN)/revstudy claims

bench: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/speed.py --rounds 15
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/largest.py
	$(BIN)/python benchmarks/prediction.py

clean:
	rm -rf $(VENV) results build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
