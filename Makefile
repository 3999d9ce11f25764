PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Only what was given is passed on; the rest is the program's own default.
RUN_ARGS := $(if $(RUN),--run-name "$(RUN)") $(if $(DATASET),--dataset "$(DATASET)") \
            $(if $(RECIPE),--recipe "$(RECIPE)") $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help run test check lint lab docs space clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,export,space]'
	@touch $@

run: $(READY) ## run notebooks 01-06 (DATASET=, RECIPE=, RUN=, ARGS="-p epochs 5")
	$(BIN)/python -m utils run $(RUN_ARGS)

test: $(READY) ## run the whole test suite, two files at a time
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: lint ## lint, and the tests that are not slow
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2

lint: $(READY) ## check style, notebooks included, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check utils space
	$(BIN)/lint-imports

lab: $(READY) ## open the notebooks in Jupyter
	$(BIN)/jupyter lab --ServerApp.preferred_dir=notebooks

docs: $(READY) ## render the book into build/docs (RUN= shows that run's chapters)
	$(BIN)/python -m utils docs $(if $(RUN),--run "$(RUN)")

space: $(READY) ## build the Space of a run and start it (RUN=, by default quickstart)
	$(BIN)/python -m utils space build --run "$(or $(RUN),quickstart)"
	cd "outputs/$(or $(RUN),quickstart)/space" && "$(CURDIR)/$(BIN)/python" app.py

clean: ## delete the environment, unpacked and decoded pictures; runs in outputs/ stay
	rm -rf $(VENV) data/cache data/unpacked .pytest_cache .ruff_cache .import_linter_cache build *.egg-info
