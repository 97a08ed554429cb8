# Batchscope's commands. They need Python 3.11 or newer and make; everything else goes into .venv.
# Another Python: make demo PYTHON=/path/to/python3.12

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The rules of the workflow call `python`: it must be the one in .venv.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON = $(shell for python in $(CANDIDATES); do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
PIP := .venv/bin/python -m pip --disable-pip-version-check --quiet
# Every file that is installed is one of those whose hashes the lock holds.
INSTALL := $(PIP) install --no-deps --require-hashes --requirement

READY := .venv/.ready
READY_FOR_TESTS := .venv/.ready-for-tests
READY_FOR_BENCHMARKS := .venv/.ready-for-benchmarks
READY_FOR_DOCS := .venv/.ready-for-docs
READY_FOR_CHECKS := .venv/.ready-for-checks

# What `make rulegraph` adds to the demo, so that every rule has a job.
MEASURED := attention: {enabled: true}, errors: {enabled: true}, geometry: {enabled: true}, cartography: {enabled: true}
EVERY_RULE := study=every-rule keep=all 'insight={$(MEASURED)}' 'branch={at: [0], samples: 512}' 'tracking={mode: offline}'

# What `make bench` measures: `make bench CASES=small,overhead REPEATS=2`; `python -m benchmarks --help` names the cases.
CASES := all
REPEATS := 5

# What `make mutants` changes, all of it if empty: make mutants MUTANTS='"batchscope.data.*"'
MUTANTS :=

LOCKS := $(filter-out requirements-cpu.lock,$(wildcard requirements*.lock))

# Processes that share the tests, on two cores or more: one has the cluster's tests, which mostly wait, and of the others
# one often waits for a server or for a study that another one makes (tests/support/workers.py).
WORKERS := 4

# What pytest is told besides: `make test OPTIONS="--exitfirst tests/report"`.
OPTIONS :=

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

demo: $(READY) ## the whole workflow on an embedded corpus: no network, no GPU, about five minutes
	snakemake --cores 2 --configfile config/demo.yaml
	@echo
	@echo "The report: $(CURDIR)/results/demo/report/index.html"

test: $(READY_FOR_TESTS) ## every test
	python -m pytest --numprocesses $(WORKERS) $(OPTIONS)

coverage: $(READY_FOR_TESTS) ## lines of the package that the fast tests run
	python -m pytest --numprocesses $(WORKERS) -m "not slow" --cov --cov-report=term:skip-covered

soak: $(READY_FOR_TESTS) ## 300 runs in one DAG killed at random, 1,000 killed trainings, 10,000 configs: hours
	BATCHSCOPE_SOAK=1 python -m pytest tests/config/test_any_config.py tests/training/test_interruption.py
	python tests/soak.py

bench: $(READY_FOR_BENCHMARKS) ## speed and memory against the peers, into docs/benchmarks.md: about half an hour
	PYTHONPATH=src:. python -m benchmarks --cases $(CASES) --repeats $(REPEATS)

gpu-check: $(READY) ## on one NVIDIA GPU: what only a GPU shows, and the speed there: under nine minutes
	PYTHONPATH=src:. python -m benchmarks.gpu_check

mutants: $(READY_FOR_CHECKS) ## does a test fail where the pure code is changed? Into build/mutants: hours
	mkdir -p build/mutants
	cp -r src tests pyproject.toml build/mutants
	cd build/mutants && mutmut run --max-children 2 $(MUTANTS) && mutmut results

audit: $(READY_FOR_CHECKS) ## known vulnerabilities of the pinned packages; needs the package index's advisory service
	pip-audit --strict --disable-pip --require-hashes $(LOCKS:%=--requirement %)

locks: $(READY_FOR_CHECKS) ## hashes of all files of each pin into requirements*.lock, after a change of one
	python envs/hash_locks.py

lint: $(READY_FOR_TESTS) ## ruff, biome, snakefmt, mypy, snakemake --lint
	ruff check
	biome lint --error-on-warnings
	ruff format --check
	snakefmt --check Snakefile rules
	mypy
	snakemake --lint

docs: $(READY) ## regenerate the config's schema and key table
	python -m batchscope.config.reference --write

methods: $(READY) ## simulate the error rates in docs/methods.md anew: some minutes
	python -m batchscope.statistics.simulation --write

site: $(READY_FOR_DOCS) ## the documentation as a website, into build/site; a broken link is an error
	python docs/build_site.py

rulegraph: $(READY_FOR_DOCS) ## draw docs/rulegraph.svg again, after a change of the rules
	snakemake --configfile config/demo.yaml --config $(EVERY_RULE) --rulegraph dot | snakevision --skip-rules all \
		--output docs/rulegraph.svg --style minimal_width=260 label_font_color=#777777 bridge_color=none

vega: $(READY_FOR_DOCS) ## bundle the Vega runtime of the report's page again, after an upgrade of Altair
	python docs/bundle_vega.py

picture: demo ## run the demo and renew the picture of the README
	cp results/demo/figures/accuracy.png docs/demo.png

setup: $(READY) ## only what the others begin with: .venv from requirements.lock

clean: ## remove .venv and caches; results stay
	rm -rf .venv build dist .coverage .pytest_cache .ruff_cache .mypy_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(READY): requirements.lock requirements-cpu.lock requirements-cuda.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Batchscope needs Python 3.11 or newer; this machine's python3 is" \
		"$$(python3 --version 2>/dev/null || echo missing). Install one, or: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Setting up .venv with $$("$(PYTHON)" --version); the first time takes a few minutes."
	@"$(PYTHON)" -m venv .venv || { echo "python's venv module does not work; on Debian and Ubuntu:" \
		"apt-get install python3-venv" >&2; rm -rf .venv; exit 1; }
	@$(PIP) install --no-index --no-deps --require-hashes --requirement requirements-cpu.lock 2>/dev/null || \
		echo "pip has no wheel of torch for the CPU alone among its --find-links: the package index's build follows."
	$(INSTALL) requirements.lock
	@.venv/bin/python -c "import importlib.metadata as m, sys; sys.exit(any('cuda' in line for line in m.requires('torch')))" || \
		{ echo "torch is the build for NVIDIA's GPUs: installing its CUDA libraries, some gigabytes."; \
		$(INSTALL) requirements-cuda.lock; }
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(READY_FOR_TESTS): $(READY) requirements-tests.lock
	$(INSTALL) requirements-tests.lock
	@touch $@

$(READY_FOR_BENCHMARKS): $(READY_FOR_TESTS) requirements-benchmarks.lock
	$(INSTALL) requirements-benchmarks.lock
	@touch $@

$(READY_FOR_DOCS): $(READY) requirements-docs.lock
	$(INSTALL) requirements-docs.lock
	@touch $@

$(READY_FOR_CHECKS): $(READY_FOR_TESTS) requirements-checks.lock
	$(INSTALL) requirements-checks.lock
	@touch $@

.PHONY: help demo test coverage soak bench gpu-check lint docs methods site rulegraph vega \
	picture setup clean mutants audit locks
