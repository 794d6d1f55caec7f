# Danlu: set-up, the main job, and the tests. `make help` lists the targets.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STATIC  := src/danlu/server/static
ARGS    ?=
# Processes that run the tests; two suit two cores and are what CI uses.
WORKERS ?= 2
# Where pip finds the CPU build of PyTorch on Linux, if your pip is not set up for it already (see README).
TORCH_INDEX ?=
TORCH_FLAGS := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),)

WEB_SOURCES := $(shell find web -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)

.PHONY: help run up test lint python-lint web-lint web-test web docs bench clean install dev browser

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

install: $(VENV)/.installed ## install Danlu into .venv

dev: $(VENV)/.installed-dev ## install the tools for tests and the manual as well

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) scripts/require.py python
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(TORCH_FLAGS) -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev,docs]"
	@touch $@

web: $(STATIC)/index.html ## build the web application

$(STATIC)/index.html: $(WEB_SOURCES)
	@$(PYTHON) scripts/require.py node
	cd web && npm ci --no-audit --no-fund --loglevel=error && npm run build
	@touch $@

browser:
	@$(PYTHON) scripts/require.py browser

run: install web ## install, build, and do the main job: danlu quickstart
	$(BIN)/danlu quickstart $(ARGS)

up: install web ## start the web application, the API and the chat
	$(BIN)/danlu up $(ARGS)

lint: python-lint web-lint ## ruff, mypy, import-linter, ESLint, vue-tsc

python-lint: dev
	$(BIN)/ruff check src tests bench scripts
	$(BIN)/ruff format --check src tests bench scripts
	$(BIN)/mypy
	$(BIN)/lint-imports

web-lint: web
	cd web && npm run --silent lint && npm run --silent typecheck

web-test: web
	cd web && npm run --silent test && npm run --silent size

docs: dev ## build the manual; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Two at a time: installing waits for the network, and most checks use one core. pytest comes alone, on all cores.
test: ## every check and every test
	@$(PYTHON) scripts/require.py node
	@$(MAKE) --no-print-directory -j2 dev web browser
	@$(MAKE) --no-print-directory -j2 lint docs web-test
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

bench: install ## compare with other programs (takes long; see bench/README.md)
	$(BIN)/python -m bench $(ARGS)

clean: ## remove what the build made
	rm -rf $(VENV) $(STATIC) web/node_modules site
