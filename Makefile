# Needs make, a POSIX shell and a Python of 3.11 or newer with venv; everything else goes into $(VENV).

VENV ?= .venv
# The interpreter that $(VENV) is made with; empty: tools/make_env.sh looks for one.
PYTHON ?=
# More arguments for the program behind demo, test and bench:  make test ARGS="-k election -x"
ARGS ?=

# The commit that bench-compare compares with.
BASE ?=

STAMP := $(VENV)/.installed
PLOTS := $(VENV)/.plots-installed
VENV_PY := $(VENV)/bin/python
VENV_PY_ABS := $(if $(filter /%,$(VENV)),$(VENV_PY),$(CURDIR)/$(VENV_PY))

.DEFAULT_GOAL := help
.PHONY: help demo test test-tcp check lint types layers proto-check wheel-check simulate-some simulate night mutants planted interop format proto bench bench-peers bench-all bench-compare env clean
.SUFFIXES:

help:
	@echo 'make demo         run three servers, stop the leader, and watch the others go on'
	@echo 'make test         run all tests           (ARGS="-k election -x" goes to pytest)'
	@echo 'make test-tcp     the tests of whole clusters once more, over TCP (two minutes)'
	@echo 'make check        everything else that must hold: the six checks below'
	@echo '  make lint         formatting and lint'
	@echo '  make types        mypy --strict'
	@echo '  make layers       who may import whom'
	@echo '  make proto-check  the generated code is what protos/ gives'
	@echo '  make wheel-check  the built package works without this folder'
	@echo '  make simulate-some   a few seeds of the simulator, half a minute'
	@echo 'make simulate     300 seeds of the simulator, or as many as fit into 8 minutes'
	@echo 'make night        seeds until stopped; goes on where it stopped: simulation-results/'
	@echo 'make mutants      plant bugs in copies of the library: does the simulator find them? (two hours)'
	@echo 'make planted      the same for the store, recovery and wake-ups, and the tests of those (half an hour)'
	@echo 'make interop      clusters of Python and Go servers, at length; needs Go (eight minutes)'
	@echo 'make format       format the code, and fix what lint can fix'
	@echo 'make proto        generate the protobuf code again'
	@echo 'make bench        measure this library, 2 minutes     (ARGS goes to the benchmarks)'
	@echo 'make bench-peers  measure it beside others, up to 40 minutes; wants Go for hashicorp/raft'
	@echo 'make bench-all    measure everything, hours; goes on where it stopped'
	@echo 'make bench-compare BASE=<commit>   is this checkout faster or slower than that one?'
	@echo 'make env          only make $(VENV), which every other target does by itself'
	@echo 'make clean        remove what builds and tests left behind; $(VENV) stays'
	@echo
	@echo 'PYTHON=python3.13 chooses the interpreter when $(VENV) is made;'
	@echo 'VENV=.venv-3.13 puts the environment elsewhere, next to one that is there.'

# Safe with -j and with several makes at once: the script takes a lock.
$(STAMP): setup.cfg pyproject.toml tools/make_env.sh tools/make_env.py
	@sh tools/make_env.sh "$(VENV)" "$(PYTHON)"

env: $(STAMP)

demo: $(STAMP)
	@$(VENV_PY) examples/failover_demo/main.py $(ARGS)

test: $(STAMP)
	$(VENV_PY) -m pytest $(ARGS)

# What clusters of several servers do, with TCP between them instead of memory.
test-tcp: $(STAMP)
	CLUSTERS_OVER=tcp $(VENV_PY) -m pytest -q tests/integration $(ARGS)

check: lint types layers proto-check wheel-check simulate-some

lint: $(STAMP)
	$(VENV_PY) -m ruff format --check
	$(VENV_PY) -m ruff check

types: $(STAMP)
	$(VENV_PY) -m mypy

layers: $(STAMP)
	$(VENV_PY) -m pytest -q tests/test_import_layers.py

proto-check: $(STAMP)
	PYTHON="$(VENV_PY_ABS)" protos/generate.sh --check

wheel-check: $(STAMP)
	$(VENV_PY) tools/check_wheel.py

# Other seeds than those of simulate.
simulate-some: $(STAMP)
	$(VENV_PY) -m pyraft.testing run --seeds 1000:1100 --seconds 10 --budget 30 --at-least 8 $(ARGS)

simulate: $(STAMP)
	$(VENV_PY) -m pyraft.testing run --seeds 0:300 --seconds 30 --budget 480 --at-least 150 \
	    --check-determinism 10 --keep simulation-results/failed $(ARGS)

night: $(STAMP)
	$(VENV_PY) -m pyraft.testing run --seeds 100000: --forever --seconds 60 --check-determinism 50 \
	    --keep simulation-results/failed --resume simulation-results/night.json $(ARGS)

mutants: $(STAMP)
	$(VENV_PY) -m tests.sim.mutants $(ARGS)

# Bugs in what no simulator runs, found by the tests of single parts; half an hour.
planted: $(STAMP)
	$(VENV_PY) -m tests.planted $(ARGS)

# What make test runs of it, and more; fails where there is no Go instead of skipping.
interop: $(STAMP)
	INTEROP_AT_LENGTH=1 $(VENV_PY) -m pytest tests/interop $(ARGS)

format: $(STAMP)
	$(VENV_PY) -m ruff format
	$(VENV_PY) -m ruff check --fix

proto: $(STAMP)
	PYTHON="$(VENV_PY_ABS)" protos/generate.sh

bench: $(STAMP)
	$(VENV_PY) -m benchmarks $(ARGS)

# For the pictures; nothing else needs it.
$(PLOTS): $(STAMP) setup.cfg
	$(VENV_PY) -m pip install --quiet -e '.[bench]'
	@touch $@

bench-peers: $(PLOTS)
	$(VENV_PY) -m benchmarks peers $(ARGS)

bench-all: $(PLOTS)
	$(VENV_PY) -m benchmarks all $(ARGS)

bench-compare: $(STAMP)
	$(VENV_PY) -m benchmarks compare "$(BASE)" $(ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name '.venv*' -prune -o -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
