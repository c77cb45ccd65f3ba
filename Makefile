# `make` or `make help` lists the targets.

BIN := .venv/bin
# On Linux the tests get a screen of their own; elsewhere they use the real one.
ifeq ($(shell uname -s),Linux)
SCREEN := xvfb-run -a -s "-screen 0 1920x1080x24"
endif
PYTEST := NAPARI_STRICT_QT=raise QT_API=$${QT_API:-pyqt6} $(SCREEN) $(BIN)/python -m pytest
# More options for pytest: make test ARGS="-k geometry -x"
ARGS ?=

.PHONY: help setup demo test test-slow bench-model bench-data bench-prediction bench-gui lint format clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: ## set up .venv/ with every extra (instant when nothing has changed)
	@tools/setup.sh

demo: setup ## make a slide, train on it and segment it, into demo/
	$(BIN)/napari-muvit demo --out demo

test: lint ## linters, type checker, import rules, and all tests that are not slow
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: setup ## the slow tests, and property tests with new examples
	$(PYTEST) -m "slow or hypothesis" --hypothesis-profile=explore $(ARGS)

bench-model: setup ## speed of the model against the authors' package, and its page
	$(BIN)/python benchmarks/model_speed.py $(ARGS)

bench-data: setup ## speed of reading slides against plain libraries, and its page
	$(BIN)/python benchmarks/data_speed.py $(ARGS)

bench-prediction: setup ## speed and memory of prediction against MONAI, and its page
	@test -d build/peers/monai || $(BIN)/pip install --quiet --no-deps \
	    --target build/peers monai==1.6.1
	$(BIN)/python benchmarks/prediction_speed.py --monai build/peers $(ARGS)
	$(BIN)/python benchmarks/prediction_scale.py
	$(BIN)/python benchmarks/prediction_memory.py --again
	$(BIN)/python benchmarks/prediction_report.py

bench-gui: setup ## stalls of the window while it trains and predicts, and its page
	$(SCREEN) $(BIN)/python benchmarks/gui_stalls.py $(ARGS)

lint: setup ## ruff, mypy and import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

clean: ## remove outputs and caches (.venv/ stays)
	rm -rf build demo dist htmlcov site .coverage
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
