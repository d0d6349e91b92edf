# `make demo`: from nothing to a trained, scored, evaluated model. `make test`: everything the tests
# need, then all of them. Both need only Python 3.11 or 3.12, make and the package registry.
.POSIX:
.SUFFIXES:
.PHONY: demo dev test test-needs coverage lint format faults bench-quick lock system-packages clean-root-packages clean

VENV = .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode
SUITABLE = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
# Three test processes on two cores, as they wait for servers and clocks a quarter of their time. OpenMP
# threads of theirs would wait for each other in loops.
ONE_THREAD = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
SUITE = $(BIN)/pytest -n 3 --dist loadfile -m "not faults"
# Tests of a module or two, whose coverage is reported: to trace each line of the others takes
# minutes.
NEAR = tests/unit
# As root from Debian; else it says what to install.
install = if [ "$$(id -u)" = 0 ]; then apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null; \
	else echo "please install: sudo apt-get install $(1)" >&2; exit 1; fi
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate

demo: $(VENV)/.installed-run
	@$(BIN)/python -m lodestar.samples.demo

# Every extra, for DEV: then `lodestar infra up`.
dev: $(VENV)/.installed-dev

test: test-needs
	$(ONE_THREAD) $(SUITE) $(NEAR) --cov --cov-report=term $(PYTEST)
	$(ONE_THREAD) $(SUITE) $(NEAR:%=--ignore=%) --durations=15 $(PYTEST)

test-needs: $(VENV)/.installed-dev $(VENV)/.installed-azurite system-packages

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The coverage of all tests and of the commands that they start.
coverage: test-needs
	COVERAGE_PATCH=subprocess $(ONE_THREAD) $(SUITE) --cov --cov-report=term $(PYTEST)

# The long runs: kills, full disks, tampering with every file, three times the examples.
faults: test-needs clean-root-packages
	THOROUGH=1 $(ONE_THREAD) $(BIN)/pytest -m faults $(PYTEST)
	THOROUGH=1 $(ONE_THREAD) $(BIN)/pytest tests/property $(PYTEST)

bench-quick: $(VENV)/.installed-dev
	for script in cli train_overhead batch; do $(BIN)/python benchmarks/$$script.py --quick || exit 1; done

# The newest releases that resolve together, with their hashes and without a registry's address.
lock: $(VENV)/.installed-uv
	$(LOCK) --upgrade requirements/uv.in -o requirements/uv.txt
	$(LOCK) --upgrade pyproject.toml -o requirements/run.txt
	$(LOCK) --upgrade pyproject.toml --all-extras --group test --group lint \
		-o requirements/dev.txt

# What the tests need of the system: a browser for the report, OpenMP for the boosters, Node.js for
# Azurite, Prometheus's own tool for the alert rules.
system-packages:
	@if command -v chromium >/dev/null || command -v chromium-browser >/dev/null; then :; \
	else $(call install,chromium fonts-liberation libgomp1); fi
	@if command -v npm >/dev/null; then :; else $(call install,nodejs npm); fi
	@if command -v promtool >/dev/null; then :; else $(call install,prometheus); fi

# What the image's proof needs; without it, or without root, that proof is skipped and says so.
clean-root-packages:
	@if command -v debootstrap >/dev/null || [ "$$(id -u)" != 0 ]; then :; \
	else $(call install,debootstrap); fi

clean:
	rm -rf $(VENV) mlruns outputs data build dist .coverage* .hypothesis .*_cache

$(VENV)/.made:
	@for python in $(PYTHON) python3 python3.12 python3.11; do \
		if $$python -c '$(SUITABLE)' 2>/dev/null; then $$python -m venv $(VENV); break; fi; done
	@test -x $(BIN)/python || { echo "no Python 3.11 or 3.12 found; try: make PYTHON=…" >&2; exit 1; }
	@touch $@

$(VENV)/.installed-uv: $(VENV)/.made requirements/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.installed-run: $(VENV)/.installed-uv requirements/run.txt pyproject.toml
	@echo "installing from the lock into $(VENV) …"
	@$(INSTALL) --require-hashes -r requirements/run.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q src
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-uv requirements/dev.txt pyproject.toml
	@echo "installing everything that the tests need into $(VENV) …"
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q src
	@touch $@ $(VENV)/.installed-run

# Azurite, which stands for Azure Blob Storage in the tests; its lock names no registry.
$(VENV)/.installed-azurite: $(VENV)/.made tests/emulators/azurite/package-lock.json | system-packages
	@echo "installing Azurite into $(VENV) …"
	@mkdir -p $(VENV)/azurite
	@cp tests/emulators/azurite/package.json tests/emulators/azurite/package-lock.json $(VENV)/azurite
	@cd $(VENV)/azurite && npm ci --omit-lockfile-registry-resolved=true --ignore-scripts --no-audit \
		--no-fund --loglevel=error
	@touch $@
