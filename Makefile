# Every target sets up what it needs (scripts/bootstrap.sh: .venv and, on Debian as root, a few
# system packages); a newcomer needs python3 and make. `make help` lists the targets.

BIN := .venv/bin
PYTEST_FLAGS ?=
# Tests of real processes wait more than they compute: one worker more than there are cores.
TEST_WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)))
DEMO_FLAGS ?=
FUZZ_FLAGS ?=
SIMULATE_FLAGS ?=
SOAK_FLAGS ?=
KILLS_FLAGS ?=
BENCH_FLAGS ?=

# The real folders; the links kowalski/{protocol,mesh,node} lead to the first three.
SOURCES := protocol mesh node kowalski simulations tests benchmarks scripts

# Where it is set, each of the thousand processes of a test run compiles what it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help test demo pytest static lint format types mypy basedpyright imports wheel bench compare fuzz soak kills reading \
        pip-install-check pin reference setup clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

test: setup ## everything CI checks: lint, types, imports, then the tests
	@$(MAKE) --no-print-directory --keep-going -j2 static; static=$$?; \
	$(MAKE) --no-print-directory pytest || exit; \
	[ $$static = 0 ] || { echo "make test: lint, types or imports failed: see above"; exit 1; }

demo: setup ## three nodes on this machine share one task, and lose one of them
	@$(BIN)/kowalski-node demo $(DEMO_FLAGS)

pytest: setup ## the tests alone; PYTEST_FLAGS='-k sandbox -x' picks, TEST_WORKERS=0 runs one by one
	@mkdir -p build
	@$(BIN)/pytest --numprocesses=$(TEST_WORKERS) --dist=loadscope --no-loadscope-reorder \
	    --junitxml=build/tests.xml $(PYTEST_FLAGS)

static: lint mypy basedpyright imports ## lint, types and imports, without the tests

lint: setup ## ruff: rules and format
	@$(BIN)/ruff check --quiet && $(BIN)/ruff format --check --quiet && echo "lint: ok"

format: setup ## ruff rewrites what it can
	@$(BIN)/ruff check --fix --quiet; $(BIN)/ruff format --quiet

types: mypy basedpyright ## mypy and basedpyright

mypy: setup
	@$(BIN)/mypy --no-error-summary && echo "mypy: ok"

basedpyright: setup
	@$(BIN)/basedpyright --level error

imports: setup ## the layers of the house: import-linter
	@$(BIN)/lint-imports --no-logo

wheel: setup ## dist/kowalski_node-*.whl and the sdist it is made from
	@rm -rf dist && mkdir -p build
	@$(BIN)/python -m build --no-isolation --outdir dist . >build/wheel.log 2>&1 || \
	    { cat build/wheel.log; exit 1; }
	@ls -1 dist

install: wheel ## kowalski-node for this user, in an environment of its own (uv tool)
	@$(BIN)/python scripts/overrides.py >build/overrides.txt
	@$(BIN)/uv tool install --quiet --python $(BIN)/python --force --constraints constraints.txt \
	    --overrides build/overrides.txt dist/*.whl

bench: setup ## measures all there is; BENCH_FLAGS='http --quick' less; results under build/benchmarks
	@$(BIN)/python -m benchmarks run $(BENCH_FLAGS)

compare: setup ## the same beside others, installed for it; BENCH_FLAGS='gateways --quick --peers nats'
	@$(BIN)/python -m benchmarks compare $(BENCH_FLAGS)

fuzz: setup ## a million bad frames; FUZZ_FLAGS='--seed 7 --frames 10000' repeats a run
	@$(BIN)/python -m tests.fuzz.frames $(FUZZ_FLAGS)

soak: setup ## ten thousand cells, hostile ones among them: nothing grows; SOAK_FLAGS='--cells 1000'
	@$(BIN)/python -m tests.soak.cells $(SOAK_FLAGS)

kills: setup ## eight real nodes, thirty kills: every task ends as if nothing had been; KILLS_FLAGS='--kills 5'
	@$(BIN)/python -m tests.soak.kills $(KILLS_FLAGS)

reading: setup ## a reader without weights answers exactly over 10 and 100 MB; READING_FLAGS='--megabytes 1'
	@$(BIN)/python -m tests.soak.reading --megabytes 10 100 $(READING_FLAGS)

simulate: setup ## 10,000 bad days, some hours; SIMULATE_FLAGS='--seeds 200 --seed 5' tells fewer
	@$(BIN)/python -m simulations campaign $(SIMULATE_FLAGS)

simulate-scale: setup ## 50 real nodes and 1,000 as cores, ten virtual minutes each, with the cost
	@$(BIN)/python -m simulations bench --nodes 50 --minutes 10
	@$(BIN)/python -m simulations scale --nodes 1000 --minutes 10 $(SIMULATE_FLAGS)

conformance: setup ## seven scripts in the simulator and in real processes: what is seen is the same
	@CONFORMANCE=all $(BIN)/pytest -q -n0 tests/integration/test_conformance.py

same-story: setup ## 20 seeds by every Python of ours that is here, and other hash seeds: one trace each
	@scripts/same_story.sh $(SIMULATE_FLAGS)

mutants: setup ## known bugs, put into the code one at a time: some story must find each
	@$(BIN)/python -m simulations mutants $(SIMULATE_FLAGS)

pip-install-check: setup ## what plain pip, without uv, needs and installs
	@sh scripts/pip_install_check.sh

reference: setup ## rewrites docs/reference/ and deploy/ from the code
	@$(BIN)/python scripts/reference.py; $(BIN)/python scripts/deploy_files.py

pin: setup ## rewrites constraints.txt from .venv
	@sh scripts/pin.sh

setup:
	@sh scripts/bootstrap.sh

clean: ## removes .venv and everything built
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	    .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
