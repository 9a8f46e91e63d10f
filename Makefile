# The two commands are `make demo` and `make test`. Each makes the environment it needs.
#   PYTHON  interpreter that makes the environment (3.11 or newer)
#   VENV    folder of the environment
#   JOBS    test files that run at the same time

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.gnomon-installed
DEVELOPED := $(VENV)/.gnomon-developed
PIP = $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt
INSTALL_FAILED = tail -n 30 $(VENV)/install.log >&2; \
  echo "The installation failed; the whole log is $(VENV)/install.log." >&2; exit 1

.DEFAULT_GOAL := help
.PHONY: demo test lint check format docs horovod clean help

demo: $(INSTALLED) ## plan, train, profile and compare a small GPT on this machine; prints the path of report.html
	@$(BIN)/gnomon exec-pipeline

test: $(DEVELOPED) ## run the tests; fails when they cover less than 90% of src
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=90

lint: $(DEVELOPED) ## check format, style, types and who imports whom
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@report=$$($(BIN)/lint-imports --no-logo --no-cache) || { echo "$$report"; exit 1; }

check: lint test ## everything that a change must pass: lint, then test

format: $(DEVELOPED) ## rewrite the sources in the house format
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

docs: $(DEVELOPED) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Documentation: site/index.html"

horovod: $(DEVELOPED) ## build Horovod into the environment (about 5 minutes); its tests run when it is there
	@tools/install_horovod.sh $(BIN)/python

clean: ## remove the environment, caches and built documentation; keeps runs/
	@rm -rf .venv site build dist htmlcov .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "gnomon needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another interpreter: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing gnomon and its dependencies into $(VENV) (once; a minute or more, mostly PyTorch) ..."
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu it needs one more package: apt-get install python3-venv" >&2; \
	  exit 1; }
	@$(PIP) -e '.[torch]' >$(VENV)/install.log 2>&1 || { $(INSTALL_FAILED); }
	@touch $@

$(DEVELOPED): $(INSTALLED)
	@echo "Installing what the tests need: trackers, Lightning, Ray, DeepSpeed, TensorFlow (once; a few minutes) ..."
	@$(PIP) -e '.[torch,dev]' >>$(VENV)/install.log 2>&1 || { $(INSTALL_FAILED); }
	@touch $@
