# Everything here needs a python3 with pip or venv, nothing else: the targets make their environment.
# ARGS is handed on: make run ARGS="-c 5", make test ARGS="tests/webtransport -x".

# The first of these that runs and is new enough makes the environment; make PYTHON=… names another.
PYTHON ?= python3.13 python3.12 python3.11 python3
# The peers of the interop tests take the newest there is, on the PATH or under pyenv: some cannot be
# had for an older one.
PEER_PYTHON ?= python3.13 python3.12 \
  $(lastword $(sort $(wildcard $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python3))) $(PYTHON)
# Beside one another for several Pythons: make test VENV=.venv-3.12 PYTHON=python3.12
VENV ?= .venv
ARGS ?=
SECONDS ?= 60
# Makes docker, kind and helm for the end-to-end tests on machines that haven't got them.
KINDCTL ?= ../shared/kind/kindctl

# Python keeps what it compiles, whatever this shell says: the tests start it a few hundred times.
unexport PYTHONDONTWRITEBYTECODE

# What `make run` needs, and then what the other targets need beside it.
RUNS := $(VENV)/.run
MADE := $(VENV)/.made
# Other implementations for the interop tests, each in an environment of its own, because what they
# need conflicts: tests/interop/peers/NAME.txt pins it, $(VENV)-peers/NAME/bin/python has it.
PEERS := $(patsubst tests/interop/peers/%.txt,$(VENV)-peers/%/.made,$(wildcard tests/interop/peers/*.txt))
# Those of bench/peers.py that no test needs.
BENCH_PEERS := $(patsubst bench/foreign/%.txt,$(VENV)-peers/%/.made,$(wildcard bench/foreign/*.txt))
OUR_SERVERS := pingpong-aioquic pingpong-quinn
BENCH_SERVERS := webtransport-go aioquic bare-aioquic bare-quinn bare-udp
vpath %.txt tests/interop/peers bench/foreign
# Where cargo builds.
ENGINE_TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/build/engine/target)

.DEFAULT_GOAL := help
.PHONY: help run test test-quick e2e e2e-check check bench bench-peers bench-probing bench-profile bench-many fuzz-guided fuzz fuzz-costs soak engine engine-check engine-lint format package constraints python clean
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

run: $(RUNS) ## start a server and a client that pings it, until Ctrl-C
	@$(VENV)/bin/pingpong run $(ARGS)

# Tests of processes wait more than they compute: two for each core keep it busy.
test: $(MADE) $(PEERS) ## run the tests, in parallel
	$(VENV)/bin/python -m pytest -n $$(($$(nproc) * 2)) --dist worksteal --timeout 120 $(ARGS)

test-quick: $(MADE) ## run the tests that start no process and no browser
	$(VENV)/bin/python -m pytest -n auto --dist worksteal --timeout 120 -m "not process and not slow" $(ARGS)

# Each test may take so long, without the cluster's and the images' making.
e2e: $(MADE) ## install the chart on a kind cluster, and break things there
	@KINDCTL="$(KINDCTL)" $(VENV)/bin/python tests/e2e/machine.py prepare
	KINDCTL="$(KINDCTL)" $(VENV)/bin/python -m pytest $(if $(findstring tests/,$(ARGS)),,tests/e2e) -m e2e \
	  --timeout 300 -o timeout_func_only=true $(ARGS)

e2e-check: $(MADE) ## say whether `make e2e` can run here, with docker, kind and helm or a kindctl
	@KINDCTL="$(KINDCTL)" $(VENV)/bin/python tests/e2e/machine.py check

check: $(MADE) ## lint, formatting, types, and which module may import which
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m mypy
	$(VENV)/bin/lint-imports --no-logo

# make bench AGAINST=HEAD~3 (or a folder): our servers beside those of another checkout.
bench: $(MADE) ## measure what a ping costs our servers, beside aioquic's own; or AGAINST=COMMIT
	$(VENV)/bin/python bench/peers.py $(addprefix --server ,$(OUR_SERVERS)) \
	  $(if $(AGAINST),--against $(AGAINST),--clients $(addprefix --server ,$(BENCH_SERVERS))) $(ARGS)

# A peer that cannot be installed is left out.
bench-peers: $(MADE) ## measure it beside each Python peer's too: aiopquic, pywebtransport
	-@$(MAKE) --keep-going --no-print-directory $(BENCH_PEERS) $(VENV)-peers/pywebtransport-0.21/.made
	$(VENV)/bin/python bench/peers.py $(ARGS)

bench-probing: $(MADE) ## measure what probing many targets costs, and how punctual it is
	$(VENV)/bin/python bench/probing.py $(ARGS)

bench-profile: $(MADE) ## show where the time of a ping goes on the server, layer by layer
	$(VENV)/bin/python bench/profile.py $(ARGS)

bench-many: $(MADE) ## measure what many sessions, targets and workers cost, beside few
	$(VENV)/bin/python bench/many.py $(ARGS)

fuzz-guided: $(MADE) ## have coverage guide half of what `make fuzz` makes, by atheris
	$(VENV)/bin/python -m pip install --quiet -r tests/fuzz/atheris.txt

fuzz: $(MADE) ## feed generated inputs to what peers reach: SECONDS=60, TARGET=…, INPUTS=…, REPLAY=…
	PYTHONPATH=services:. $(VENV)/bin/python -m tests.fuzz.runner --seconds $(SECONDS) $(if $(TARGET),--target $(TARGET)) \
	  $(if $(INPUTS),--inputs $(INPUTS)) $(if $(RUNS),--runs $(RUNS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(REPLAY),--replay $(REPLAY)) $(ARGS)

fuzz-costs: $(MADE) ## measure what hostile packets cost beside honest ones: CPU a byte, memory
	PYTHONPATH=services:. $(VENV)/bin/python -m tests.fuzz.costs $(ARGS)

soak: $(MADE) ## churn for MINUTES (5): is memory flat then, and each ping accounted for?
	$(VENV)/bin/python -m tests.soak --minutes $(or $(MINUTES),5) $(ARGS)

engine: $(RUNS) ## build and install the QUIC engine quinn, with a cargo of 1.85 or newer
	@$(find_cargo)
	@rm -rf build/engine/*.whl
	@$(call install,--upgrade --target build/engine/maturin 'maturin>=1.9.4$(comma)<2')
	CARGO_TARGET_DIR=$(ENGINE_TARGET) build/engine/maturin/bin/maturin build --release --locked \
	  --interpreter $(VENV)/bin/python --manifest-path services/engine/Cargo.toml --out build/engine
	@$(call install,--force-reinstall --no-deps build/engine/*.whl)
	@$(VENV)/bin/python -c 'import pingpong_engine; print("pingpong-engine", pingpong_engine.__version__)'

engine-check: ## say whether `make engine` can run here
	@$(find_cargo); echo "make engine can run here, with cargo $$version"

engine-lint: ## rustfmt and clippy of the engine quinn
	@$(find_cargo)
	cargo fmt --check --manifest-path services/engine/Cargo.toml
	CARGO_TARGET_DIR=$(ENGINE_TARGET) cargo clippy --locked \
	  --manifest-path services/engine/Cargo.toml -- --deny warnings

format: $(MADE) ## put the source, and the tables of the docs, into their form
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/python tools/docs_tables.py
	$(VENV)/bin/python tools/chart_tables.py

package: $(MADE) ## build wheel and source distribution in dist/, and check them
	rm -rf dist
	$(VENV)/bin/python -m build
	$(VENV)/bin/python -m twine check --strict dist/*
	$(VENV)/bin/python tools/check_package.py

constraints: ## pin the newest versions that pyproject.toml allows
	rm -rf $(VENV)-new
	@$(call make_environment,$(VENV)-new)
	@$(call install,pip -e '.[dev]',$(VENV)-new)
	{ sed -n '/^#/p' constraints.txt; \
	  $(VENV)-new/bin/python -m pip freeze --exclude-editable | LC_ALL=C sort -f; } > constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV)-new

python: ## say which Python the environment is made with
	@$(find_python); echo "$$python"

clean: ## remove the environment and all that was built
	rm -rf $(VENV) $(VENV)-peers $(VENV)-new build dist
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find services tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# The project itself is not installed here, since that would download what builds it: Python finds
# it by a .pth file, and the command is what pip would make of it.
$(RUNS): pyproject.toml constraints.txt
	@rm -rf $(VENV)
	@$(make_environment)
	@echo "Downloading what pingpong needs to run, about 15 MB: 10 to 20 s"
	@$(VENV)/bin/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
	  > $(VENV)/run.txt
	@$(call install,--no-compile -c constraints.txt -r $(VENV)/run.txt)
	@echo '$(CURDIR)/services' > "$$($(VENV)/bin/python -c \
	  'import sysconfig; print(sysconfig.get_path("purelib"))')/pingpong-run.pth"
	@printf '#!%s\nimport sys\nfrom pingpong.__main__ import main\nsys.exit(main())\n' \
	  "$$($(VENV)/bin/python -c 'import sys; print(sys.executable)')" > $(VENV)/bin/pingpong
	@chmod +x $(VENV)/bin/pingpong
	@touch $@

$(MADE): $(RUNS)
	@echo "Downloading what the tests need, 800 MB on disk: about a minute"
	@$(call install,pip -c constraints.txt -e '.[dev]')
	@touch $@

$(VENV)-peers/%/.made: PYTHON := $(PEER_PYTHON)
$(VENV)-peers/%/.made: %.txt
	rm -rf $(@D)
	@$(call make_environment,$(@D))
	@$(call install,-r $<,$(@D))
	@touch $@

# That a name is on the PATH proves little (pyenv's fail unless that version is chosen): it is run.
define find_python
python=; for candidate in $(PYTHON); do \
  if "$$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
  then python=$$candidate; break; fi; \
done; \
if [ -z "$$python" ]; then \
  echo 'No Python 3.11 or newer among: $(PYTHON). Name one: make PYTHON=/path/to/python3' >&2; exit 1; \
fi
endef

comma := ,

define find_cargo
version=$$(cargo --version 2>/dev/null | sed 's/^cargo //; s/ .*//'); \
if [ -z "$$version" ] || [ "$$(printf '%s\n' 1.85 "$$version" | sort -V | head -1)" != 1.85 ]; then \
  echo "The engine needs Rust's cargo 1.85 or newer on the PATH$${version:+, and this is $$version}." \
    "Debian 13 has it: apt install cargo; or see https://rustup.rs" >&2; exit 1; \
fi
endef

# $(1): the folder, or nothing for $(VENV). A pip that stands beside the interpreter installs into
# other environments too, so that they need none: that saves 5 s, and Debian's ensurepip.
define make_environment
set -e; $(find_python); \
echo "Making $(or $(1),$(VENV)) with $$python ($$("$$python" --version))"; \
if "$$python" -c 'import pip' 2>/dev/null; \
then "$$python" -m venv --without-pip $(or $(1),$(VENV)); \
elif "$$python" -c 'import ensurepip' 2>/dev/null; \
then "$$python" -m venv $(or $(1),$(VENV)); \
else echo "$$python has neither pip nor ensurepip: on Debian and Ubuntu, apt install python3-venv" >&2; \
  exit 1; fi
endef

# $(1): what pip installs, $(2): the folder, or nothing for $(VENV). Each name is shown as pip comes to it.
define install
set -e; $(find_python); folder=$(or $(2),$(VENV)); \
if "$$folder/bin/python" -c 'import pip' 2>/dev/null; \
then set -- "$$folder/bin/python" -m pip; else set -- "$$python" -m pip --python "$$folder/bin/python"; fi; \
{ "$$@" install --disable-pip-version-check --prefer-binary --progress-bar off $(1) && echo installed; } | \
awk '/^Collecting / { sub(/[^A-Za-z0-9._-].*/, "", $$2); printf " %s", $$2; fflush() } \
  END { print ""; exit $$0 != "installed" }'
endef
