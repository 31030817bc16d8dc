# make demo   sets up and runs the main job on real data
# make test   sets up and passes the tests
# make core   compiles what has changed in the C++ core
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What compiles the core, kept in the environment so that only what has changed compiles again.
TOOLS := scikit-build-core nanobind cmake ninja
BUILD := build/editable
TABLE := demo/tumours.csv

.PHONY: demo core test check lint bench judge sanitize faults guide clean

$(BIN)/layerwise: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TOOLS) -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".[dev]" -c constraints.txt
	touch $(BIN)/layerwise

# The installation has built it once, beside the Python files; ninja knows what has changed since.
core: $(BIN)/layerwise
	@if [ -e $(BUILD)/build.ninja ]; then PATH="$(abspath $(BIN)):$$PATH" cmake --build $(BUILD); else \
	echo "No C++ compiler was found: layerwise has no native core here and trains with torch." \
	"Install g++ 12 or newer, or clang, then: touch pyproject.toml && make core"; fi

demo: core
	rm -rf demo && mkdir demo
	$(BIN)/python examples/write_table.py demo
	$(BIN)/layerwise schema $(TABLE) --target diagnosis
	$(BIN)/layerwise train $(TABLE) --target diagnosis --out demo/run
	$(BIN)/layerwise inspect demo/run
	$(BIN)/layerwise predict demo/run demo/new_patients.csv --keep patient -p -o demo/answers.csv
	@head -4 demo/answers.csv
	@echo
	@echo "The table is $(TABLE), the run demo/run, the answers demo/answers.csv."

test: core
	$(BIN)/python -m pytest -n auto

lint: $(BIN)/layerwise
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

bench: core
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/command.py
	$(BIN)/python benchmarks/engine.py

# The doctor's table by rule: faulty and healthy trainings, found, located, false alarms, cost.
judge: core
	$(BIN)/python benchmarks/doctor.py --cost --verbose

# The core's tests with AddressSanitizer, UBSan and ThreadSanitizer watching; needs g++.
sanitize: core
	$(BIN)/python tests/sanitize.py

# Small faults in the core, one at a time: at most three may slip through its tests. Half an hour.
faults: core
	$(BIN)/python tests/faults.py

guide: $(BIN)/layerwise
	$(BIN)/python docs/guide/draw.py

clean:
	rm -rf $(VENV) demo build dist src/layerwise/engine/_core*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
