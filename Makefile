# Every target makes .venv by itself when it is missing.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: test test-newest verl-test audit lock lint types unit demo bench gpu docs page screenshots clean

test: lint types unit

$(VENV)/.ready: requirements.lock scripts/setup.sh
	scripts/setup.sh $(VENV)
	@touch $@

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

# Two processes of one thread each: the models of tests are too small for more. A file's tests share its fixtures.
unit: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

# What a release of a library that came out since the lock was made would break. Its deprecations only warn here.
test-newest:
	NEWEST=1 scripts/setup.sh .venv-newest
	.venv-newest/bin/pip freeze --exclude-editable > .venv-newest/versions.txt
	OMP_NUM_THREADS=1 .venv-newest/bin/pytest --numprocesses 2 --dist loadfile -W default

# Training with verl, on a CPU: whole steps on Ray, in an environment of its own.
verl-test: .venv-verl/.ready
	OMP_NUM_THREADS=1 .venv-verl/bin/pytest -W default tests/with_verl

.venv-verl/.ready: pyproject.toml scripts/setup.sh
	EXTRA=verl scripts/setup.sh .venv-verl
	@touch $@

# Known faults and licences of what is locked, and a bill of materials in build/; needs a network.
audit: $(VENV)/.ready
	scripts/audit.sh $(VENV)

# Take the newest releases that pyproject.toml allows; commit the lock when `make test` passes with it.
lock:
	test -x $(BIN)/python || python3 -m venv $(VENV)
	scripts/lock.sh $(VENV)

demo: $(VENV)/.ready
	$(BIN)/flowtracer demo

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/trace_cost.py
	$(BIN)/python benchmarks/whole_trace.py
	$(BIN)/python benchmarks/capacity_cost.py
	$(BIN)/python benchmarks/flow_solve.py
	$(BIN)/python benchmarks/cpu_panels.py
	$(BIN)/python benchmarks/length.py
	$(BIN)/python benchmarks/step_share.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/credit_cost.py
	$(BIN)/python benchmarks/stored_rollouts.py
	scripts/browser.sh
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/report.py

# Right, fast, long and cheap on an NVIDIA GPU of 80 GB, in nine minutes; nothing is downloaded.
gpu: $(VENV)/.ready
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/python benchmarks/report.py

# The documentation as a site: open site/docs/index.html. A link that does not resolve is an error.
docs: $(VENV)/.ready
	$(BIN)/python -m sphinx -W --keep-going -q -c docs . site

# The bundle of the page, from web/; needs node. Only whoever changes web/ runs this.
page:
	npm ci --prefix web --no-audit --no-fund
	npm run build --prefix web

screenshots: $(VENV)/.ready
	scripts/browser.sh
	$(BIN)/python scripts/screenshots.py

clean:
	rm -rf $(VENV) .venv-newest .venv-verl .venv-audit .nox build runs site .mypy_cache .pytest_cache .ruff_cache .hypothesis
