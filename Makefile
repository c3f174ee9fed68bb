# Every target makes .venv by itself when it is missing.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: test lint types unit demo bench page screenshots clean

test: lint types unit

$(VENV)/.ready: pyproject.toml scripts/setup.sh
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

demo: $(VENV)/.ready
	$(BIN)/flowtracer demo

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/trace_cost.py
	$(BIN)/python benchmarks/flow_solve.py
	$(BIN)/python benchmarks/cpu_panels.py
	$(BIN)/python benchmarks/length.py
	$(BIN)/python benchmarks/step_share.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/credit_cost.py
	scripts/browser.sh
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/report.py

# The bundle of the page, from web/; needs node. Only whoever changes web/ runs this.
page:
	npm ci --prefix web --no-audit --no-fund
	npm run build --prefix web

screenshots: $(VENV)/.ready
	scripts/browser.sh
	$(BIN)/python scripts/screenshots.py

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
