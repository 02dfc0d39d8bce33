# The farm's everyday commands; `make` alone lists them.

# Debian's own first: that is what most users have, and another user can read it, too.
PYTHON ?= $(or $(wildcard /usr/bin/python3.11),$(shell command -v python3.11 || command -v python3))
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
PYTEST_OPTIONS ?=
DEBIAN ?= yes

.DEFAULT_GOAL := help
.PHONY: help setup demo faults matrix new-distribution test test-unit test-vm conformance test-xen test-farm test-slow test-chaos torment fuzz check audit lock clean

help: ## List these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | column -t -s @
	@echo
	@echo "  make demo KEEP=1       leave the farm running until Ctrl-C"
	@echo "  make demo BREAK=FAULT  commit a fault instead; good only if the build is red at the right stage"
	@echo "  make demo PORT=8020    the web page's port (8010)"
	@echo "  make faults ONLY=a,b   only these faults; RESUME=1: skip those that have a verdict; MARKDOWN=FILE: the table as text"
	@echo "  make matrix ONLY=a,b   only these cells; RESUME=1, AT_ONCE=N; RUNS=DIR,DIR: new runs into the first, the table from all;"
	@echo "  make matrix RUN=no MARKDOWN=docs/matrix.md   the table from the runs that there are"
	@echo "  make test-xen SUITE=TestXenHVM ONLY=suite CPU=Nehalem,model=8,+svm,+npt MINUTES=90 RESULTS=hvm.jsonl"
	@echo "  make conformance MERGE=xen.jsonl MARKDOWN=docs/hypervisors-proof.md   with the results of a Xen host, into the document"

setup: $(VENV)/.installed ## Install what is needed: Debian packages, then a virtual environment from the lock file
	@:

demo: setup ## A whole farm on this machine: commit, build, mail. KEEP=1, BREAK=FAULT, PORT=N
	@$(BIN)/python -m demo $(if $(KEEP),--keep) $(if $(BREAK),--break '$(BREAK)') $(if $(PORT),--port '$(PORT)')

faults: setup ## Every fault of the stand-in OSCAR, run for real. ONLY=NAME,..., RUNS=DIR, RESUME=1, AT_ONCE=N, MARKDOWN=FILE
	@$(BIN)/python -m demo.fault_table $(if $(ONLY),--only '$(ONLY)') $(if $(RUNS),--runs '$(RUNS)') $(if $(RESUME),--resume) \
	    $(if $(AT_ONCE),--at-once '$(AT_ONCE)') $(if $(MARKDOWN),--markdown '$(MARKDOWN)')

matrix: setup ## Every cell of profiles/matrix.toml, run for real (hours). ONLY=CELL,..., RUNS=DIR,..., RESUME=1, AT_ONCE=N, MARKDOWN=FILE
	@$(BIN)/python -m demo.matrix_table $(if $(ONLY),--only '$(ONLY)') $(if $(RUNS),--runs '$(RUNS)') $(if $(RESUME),--resume) \
	    $(if $(AT_ONCE),--at-once '$(AT_ONCE)') $(if $(MARKDOWN),--markdown '$(MARKDOWN)') $(if $(filter no,$(RUN)),--no-run)

new-distribution: setup ## Is a new distribution data alone? Takes Debian 13 out of a copy, and puts it in again. RUNS=DIR: installs it
	@$(BIN)/python -m demo.new_distribution $(if $(RUNS),--runs '$(RUNS)') $(if $(CELL),--cell '$(CELL)')

# Two workers: tests/parallel.py says who does what. The longest come first.
test: setup ## All tests of unit, vm and farm, except those marked slow
	@$(PYTEST) -n 2 -m 'not slow' tests/vm tests/farm tests/unit $(PYTEST_OPTIONS)

test-unit: setup ## Minutes; no virtual machine
	@$(PYTEST) -n 2 tests/unit $(PYTEST_OPTIONS)

test-vm: setup ## Boots virtual machines
	@$(PYTEST) -m 'not slow' tests/vm $(PYTEST_OPTIONS)

conformance: setup ## Each operation with each type of machine, and the table. MERGE=FILE, JSON=FILE, MARKDOWN=FILE
	@$(PYTEST) tests/vm/test_conformance_*.py $(if $(MERGE),--conformance-merge '$(MERGE)') \
	    $(if $(JSON),--conformance-json '$(JSON)') $(if $(MARKDOWN),--conformance-markdown '$(MARKDOWN)')

test-xen: setup ## A real Xen, emulated: one profile as Qemu and as Xen, a cluster, v2m. SUITE=all (or WORDS): the suite, too
	@$(BIN)/python -u -m tests.vm.xen.run $(if $(RESULTS),--results '$(RESULTS)') $(if $(SUITE),--select '$(SUITE)') \
	    $(if $(CPU),--cpu '$(CPU)') $(if $(ONLY),--suite-only) $(if $(MINUTES),--minutes '$(MINUTES)')

test-farm: setup ## Master, worker, Subversion, mail and whole virtual clusters
	@$(PYTEST) -m 'not slow' tests/farm $(PYTEST_OPTIONS)

test-slow: setup ## The rest of vm and farm: more faults through whole clusters, two clusters that copy at once, a new Debian
	@$(PYTEST) -m slow tests/vm tests/farm $(PYTEST_OPTIONS)

test-chaos: setup ## Kills processes and looks for what is left
	@$(PYTEST) tests/chaos $(PYTEST_OPTIONS)

torment: setup ## A farm in bad weather: is a commit, verdict or mail lost or doubled? SEED=N, MINUTES=30, COMMITS=300
	@$(BIN)/python -u -m demo.torment $(if $(SEED),--seed '$(SEED)') $(if $(MINUTES),--minutes '$(MINUTES)') \
	    $(if $(COMMITS),--commits '$(COMMITS)')

fuzz: setup ## Feed broken profiles to the loader for a minute; end at the first wrong reaction. SECONDS=N
	@$(BIN)/python -m bench.fuzz --seconds '$(or $(SECONDS),60)'

check: setup ## Style, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

audit: $(VENV)/audit/.locked ## Known vulnerabilities of the locked packages. Needs access to pypi.org
	@requirements/audit.sh $(VENV)/audit/bin/pip-audit requirements/dev.txt requirements/audit.txt

lock: setup ## Write requirements/*.txt anew from requirements/*.in
	@$(BIN)/pip install --quiet 'pip-tools>=7.4,<8'
	@for name in driver master postgresql dev audit; do \
	    echo "requirements/$$name.txt"; \
	    $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
	        --no-emit-index-url --no-emit-find-links --output-file requirements/$$name.txt requirements/$$name.in || exit 1; \
	done

clean: ## Remove what was made here: environment, demo farms, caches (not the image store)
	rm -rf $(VENV) .farm .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps inside the environment: when it is removed, everything is looked at again; when nothing changed, a second
# call costs nothing.
$(VENV)/.debian: requirements/debian-packages.txt requirements/debian-packages.sh
ifeq ($(DEBIAN),yes)
	@requirements/debian-packages.sh $(PYTHON)
endif
	@mkdir -p $(VENV)
	@touch $@

$(VENV)/.environment: $(VENV)/.debian
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "setup: '$(PYTHON)' is older than Python 3.11; choose another: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/pip || { echo "setup: making the virtual environment $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@touch $@

$(VENV)/.locked: $(VENV)/.environment requirements/dev.txt
	@echo "setup: installing the locked Python packages"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	@touch $@

# A tool of its own: what it needs is not the farm's.
$(VENV)/audit/.locked: $(VENV)/.environment requirements/audit.txt
	@test -x $(VENV)/audit/bin/pip || $(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/audit.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
