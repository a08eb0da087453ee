# `make run` and `make test` work on a clean clone of a machine that has Python ≥ 3.11 with venv and
# pip, and make. Everything else comes from uv.lock, byte for byte, into .venv.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# The first of these that is there and new enough; or `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

# uv has a folder of its own, so that .venv holds what uv.lock names and nothing else.
UV_VERSION := 0.13.9
UV := .uv/bin/uv
BIN := .venv/bin
SOURCES := common functions infra rdev

export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy
export UV_PROJECT_ENVIRONMENT := .venv
# Without bytecode every start of a function takes several times as long.
unexport PYTHONDONTWRITEBYTECODE
unexport VIRTUAL_ENV

# claude comes with the package when this machine has none.
CLAUDE := $(shell command -v claude >/dev/null 2>&1 || echo --extra claude)

.PHONY: help
help: ## Show what there is to make
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: .venv/.run ## Set everything up and run rdev in the foreground (RDEV_PORT, RDEV_HOME)
	@exec $(BIN)/rdev up

# Most tests wait for processes: three at a time on two cores. A file's tests stay together.
WORKERS ?= -n 3 --dist loadfile

.PHONY: test
test: .venv/.dev ## Run everything that has tests, and hold the coverage of each layer
	@rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest $(WORKERS) $(PYTEST)
	@$(BIN)/python -m coverage combine --quiet
	@$(MAKE) --no-print-directory gates

# Lines and branches; what a layer must have more of the closer it is to the rules of the product.
.PHONY: gates
gates:
	@failed=0; \
	gate() { \
		verdict=$$($(BIN)/python -m coverage report --include "$$1" --fail-under "$$2" 2>&1) \
			|| { failed=1; printf '%s\n' "$$verdict" | grep '%' | sort -k 6n | head -n 25; }; \
		printf '%s\n' "$$verdict" | awk -v what="$$1" -v least="$$2" \
			'/^TOTAL/ {print "coverage of " what ": " $$6 ", at least " least "%"}'; }; \
	gate 'common/domain/*' 95; \
	gate 'common/services/*' 90; \
	gate 'functions/*' 85; \
	gate 'common/adapters/*' 80; \
	gate '*' 85; \
	exit $$failed

# Side by side: most of the time goes to mypy, and to a vulnerability service that may be far away.
.PHONY: check
check: .venv/.dev ## Run what CI runs besides the tests: style, types, layers, security, generated files
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target --keep-going $(CHECKS)

CHECKS := check-dependencies check-types check-style check-layers check-bandit check-secrets \
	check-generated check-links check-manifests
.PHONY: $(CHECKS)
$(CHECKS): .venv/.dev
check-dependencies:
	$(BIN)/python -m tests.security.dependencies
check-types:
	$(BIN)/mypy
check-style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
check-layers:
	$(BIN)/lint-imports --no-cache
check-bandit: # it warns of every nosec that one of its other tests had no need of
	@log=$$($(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(SOURCES) 2>&1) \
		&& echo "bandit has nothing to say" || { printf '%s\n' "$$log"; exit 1; }
check-secrets:
	$(BIN)/python -m tests.security.scan
check-generated:
	$(BIN)/python -m infra.generate --check
check-links:
	$(BIN)/python -m tests.architecture.links
check-manifests:
	@if command -v kubectl >/dev/null; then \
		kubectl kustomize infra/base >/dev/null && echo "infra/base builds"; \
	else echo "SKIPPED: no kubectl here, infra/base was not built"; fi

.PHONY: soak
soak: .venv/.dev ## Run the long forms of storm, cold starts and webhooks (RDEV_STORM, RDEV_COLD_STARTS, RDEV_DROPPED)
	RDEV_STORM=$${RDEV_STORM:-2000x50} RDEV_COLD_STARTS=$${RDEV_COLD_STARTS:-200} \
		RDEV_DROPPED=$${RDEV_DROPPED:-200x20} $(BIN)/python -m pytest -s \
		tests/faults/test_storm.py tests/faults/test_cold_starts.py tests/faults/test_webhooks.py

.PHONY: bench
bench: .venv/.dev ## Measure: ratios of one run, with the absolute figures beside them
	$(BIN)/python -m tests.load.run $(BENCH)

.PHONY: generate
generate: .venv/.dev ## Write the YAML, OpenAPI and tables that follow from the declarations
	$(BIN)/python -m infra.generate

.PHONY: format
format: .venv/.dev ## Format all code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

IMAGE ?= rdev:0.1.0
DOCKER ?= docker
.PHONY: image
image: ## Build the one image that all functions share (IMAGE, DOCKER, BASE)
	$(DOCKER) build $(if $(BASE),--build-arg BASE=$(BASE)) --tag $(IMAGE) .

.PHONY: clean
clean: ## Remove what make made; .rdev, where your projects are, stays
	rm -rf .venv .uv .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find $(SOURCES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

.uv/bin/uv: Makefile
	@test -n "$(PYTHON)" || { echo "rdev needs Python 3.11 or later, with venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .uv || { echo "rdev needs Python's venv (Debian: python3-venv)" >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# --inexact: neither of the two takes away what the other has installed.
.venv/.run: .uv/bin/uv pyproject.toml uv.lock
	@$(UV) sync --quiet --frozen --inexact --no-dev --compile-bytecode --python $(PYTHON) $(CLAUDE)
	@$(BIN)/python -m compileall -q $(SOURCES)
	@touch $@

.venv/.dev: .uv/bin/uv pyproject.toml uv.lock
	@$(UV) sync --quiet --frozen --inexact --compile-bytecode --python $(PYTHON) --extra claude
	@$(BIN)/python -m compileall -q $(SOURCES)
	@touch $@
