# make demo   sets up and runs the main job on real data
# make test   sets up and passes the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TABLE := demo/tumours.csv

.PHONY: demo test check lint bench guide clean

$(BIN)/layerwise: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e ".[dev]" -c constraints.txt
	touch $(BIN)/layerwise

demo: $(BIN)/layerwise
	rm -rf demo && mkdir demo
	$(BIN)/python examples/write_table.py demo
	$(BIN)/layerwise schema $(TABLE) --target diagnosis
	$(BIN)/layerwise train $(TABLE) --target diagnosis --out demo/run
	$(BIN)/layerwise inspect demo/run
	$(BIN)/layerwise predict demo/run demo/new_patients.csv --keep patient -p -o demo/answers.csv
	@head -4 demo/answers.csv
	@echo
	@echo "The table is $(TABLE), the run demo/run, the answers demo/answers.csv."

test: $(BIN)/layerwise
	$(BIN)/python -m pytest -n auto

lint: $(BIN)/layerwise
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

bench: $(BIN)/layerwise
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/command.py

guide: $(BIN)/layerwise
	$(BIN)/python docs/guide/draw.py

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
