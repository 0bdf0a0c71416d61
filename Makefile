# Every command of this project; `make` alone lists them. Each makes the environment that it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Output of a newer grpcio-tools refuses protobuf 6.
GENERATOR := 'grpcio-tools==1.81.*' 'mypy-protobuf==5.1.*' 'googleapis-common-protos>=1.70,<2'
GENERATOR_VENV := .venv-proto
GENERATOR_READY := $(GENERATOR_VENV)/.ready
PEERS_VENV := .venv-peers
PEERS_READY := $(PEERS_VENV)/.ready
LOCKER := 'uv==0.13.*'
LOCKER_VENV := .venv-lock
LOCKER_READY := $(LOCKER_VENV)/.ready
GENERATED ?= generated
CODE := taskq_server client_core scheduler_client processor_client admin_client examples benchmarks tests docs/*.py

.PHONY: help
help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("needs Python 3.11 or newer: make PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(BIN)/python -c 'import pip, sys; assert sys.version_info >= (3, 11)' 2>/dev/null || \
	  { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(GENERATOR_READY): Makefile
	rm -rf $(GENERATOR_VENV)
	$(PYTHON) -m venv $(GENERATOR_VENV)
	$(GENERATOR_VENV)/bin/python -m pip install --quiet $(GENERATOR)
	touch $@

$(PEERS_READY): benchmarks/peers/requirements.txt
	rm -rf $(PEERS_VENV)
	$(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/python -m pip install --quiet --requirement $<
	touch $@

$(LOCKER_READY): Makefile
	rm -rf $(LOCKER_VENV)
	$(PYTHON) -m venv $(LOCKER_VENV)
	$(LOCKER_VENV)/bin/python -m pip install --quiet $(LOCKER)
	touch $@

# The locale's variable has the same name: only what is said to make itself counts, and no program takes it for a locale.
ifeq ($(origin LANG),command line)
LANGUAGE := $(or $(filter python go typescript java,$(LANG)),$(error LANG is $(LANG); must be python, go, typescript or java))
unexport LANG
else
LANGUAGE := python
endif

.PHONY: proto proto-$(LANGUAGE)
proto: proto-$(LANGUAGE)  ## regenerate generated/ from protos/; LANG=go, typescript or java: generated/<that>

proto-python: $(GENERATOR_READY)
	rm -rf $(GENERATED)/taskq/v1 && mkdir -p $(GENERATED)/taskq/v1
	PATH="$(CURDIR)/$(GENERATOR_VENV)/bin:$$PATH" $(GENERATOR_VENV)/bin/python -m grpc_tools.protoc \
	  --proto_path=protos \
	  --proto_path=$$($(GENERATOR_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	  --python_out=$(GENERATED) --mypy_out=$(GENERATED) \
	  --grpc_python_out=$(GENERATED) --mypy_grpc_out=$(GENERATED) \
	  --descriptor_set_out=$(GENERATED)/taskq/v1/descriptors.binpb --include_source_info \
	  protos/taskq/v1/*.proto
	cp protos/taskq/v1/*.proto $(GENERATED)/taskq/v1/
	touch $(GENERATED)/taskq/__init__.py $(GENERATED)/taskq/py.typed $(GENERATED)/taskq/v1/__init__.py

include protos/languages.mk

.PHONY: lint
lint: $(READY) docs  ## check style, types, the contract, who imports whom, and that the manual builds
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: lint-proto
lint-proto: buf-workspace
	cd .cache/buf && ../../$(BIN)/buf lint

.PHONY: buf-workspace
buf-workspace: $(READY)  # buf finds google/api/*.proto, which its registry would bring, in an installed package
	rm -rf .cache/buf && mkdir -p .cache/buf/google/google/api
	cp -r protos .cache/buf/protos && rm .cache/buf/protos/buf.yaml
	cp $$($(BIN)/python -c 'import google.api, os; print(os.path.dirname(google.api.__path__[0] + "/x"))')/{annotations,http,field_behavior}.proto .cache/buf/google/google/api/
	sed 's|- path: \.|- path: protos\n  - path: google\n    lint: {ignore: [google]}|' protos/buf.yaml >.cache/buf/buf.yaml

.PHONY: docs
docs: $(READY) lint-proto  ## build the manual into docs/_build/html
	cd .cache/buf && ../../$(BIN)/buf build --as-file-descriptor-set -o ../contract.binpb
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

.PHONY: format
format: $(READY)  ## rewrite the code in the house's format
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

.PHONY: test
test: $(READY)  ## run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: demo
demo: $(READY)  ## watch pasta being cooked: about twenty seconds, on SQLite
	$(BIN)/python -m examples.cook_pasta

DATABASE ?= sqlite

.PHONY: bench
bench: $(READY)  ## measure the whole path: enqueue, push, run, report; DATABASE=postgres too
	$(BIN)/python -m benchmarks.lifecycle --database $(DATABASE) $(BENCH_ARGS)

.PHONY: bench-scaling
bench-scaling: $(READY)  ## measure PostgreSQL with more servers, processors and rows: ten minutes
	$(BIN)/python -m benchmarks.scaling $(BENCH_ARGS)

.PHONY: bench-bloat
bench-bloat: $(READY)  ## measure PostgreSQL under an old snapshot, and with millions of old rows: ten minutes
	$(BIN)/python -m benchmarks.bloat $(BENCH_ARGS)

.PHONY: bench-scale
bench-scale: $(READY)  ## measure more rows, processors, capabilities and bytes: half an hour; DATABASE=postgres too
	$(BIN)/python -m benchmarks.scale --database $(DATABASE) $(BENCH_ARGS)

.PHONY: bench-idle
bench-idle: $(READY)  ## measure a server that has nothing to do: twenty minutes; DATABASE=postgres too
	$(BIN)/python -m benchmarks.idle --database $(DATABASE) $(BENCH_ARGS)

.PHONY: bench-bulk
bench-bulk: $(READY)  ## measure what 100,000 tasks cancelled at once cost those that flow; DATABASE=postgres too
	$(BIN)/python -m benchmarks.bulk --database $(DATABASE) $(BENCH_ARGS)

.PHONY: bench-listing
bench-listing: $(READY)  ## measure pages of tasks by filters, among a million: two minutes; DATABASE=postgres too
	$(BIN)/python -m benchmarks.listing --database $(DATABASE) $(BENCH_ARGS)

.PHONY: bench-schedules
bench-schedules: $(READY)  ## measure how late schedules fire, and what 100,000 cost that do not; DATABASE=postgres too
	$(BIN)/python -m benchmarks.schedules --database $(DATABASE) $(BENCH_ARGS)

HEAD ?= HEAD

.PHONY: bench-compare
bench-compare: $(READY)  ## is HEAD=<commit> slower than BASE=<commit>? five minutes; DATABASE=postgres too
	$(BIN)/python -m benchmarks.compare $(or $(BASE),$(error needs a commit: make bench-compare BASE=main)) $(HEAD) --database $(DATABASE) $(BENCH_ARGS)

.PHONY: bench-pages
bench-pages: $(READY)  ## write the figures of benchmarks/results into docs once more
	$(BIN)/python -m benchmarks.pages

.PHONY: bench-peers
bench-peers: $(READY) $(PEERS_READY)  ## measure ours and the peers side by side: three hours; BENCH_ARGS=--help says how to choose
	$(BIN)/python -m benchmarks.peers $(BENCH_ARGS)

.PHONY: certs
certs: $(READY)  ## make a CA and certificates for development in certs/; CERTS_ARGS="--host queue.lan --force"
	$(BIN)/taskq certs init certs $(CERTS_ARGS)

.PHONY: dist
dist: $(READY)  ## make the wheel and the sdist in dist/, and check them
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

PYTHONS ?= $(PYTHON)

.PHONY: dist-test
dist-test: dist  ## install the wheel into new environments and run a task there; PYTHONS="python3.11 python3.13"
	$(BIN)/python -m tests.packaging.installed dist/*.whl $(PYTHONS)

.PHONY: up
up:  ## build the images and start the stack of docker/compose.yaml; needs Docker
	docker compose up --build --detach

.PHONY: down
down:  ## stop that stack; its volumes stay
	docker compose --profile '*' down

# For every platform and every Python that pyproject.toml allows; lock-build.txt is what builds the wheel.
COMPILE := $(LOCKER_VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'

.PHONY: lock
lock: $(LOCKER_READY)  ## renew docker/lock-*.txt, the versions in the images: the newest that pyproject.toml allows
	$(COMPILE) --extra server --extra postgres --extra cli --output-file docker/lock-server.txt pyproject.toml
	$(COMPILE) --output-file docker/lock-client.txt pyproject.toml
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(COMPILE) --output-file docker/lock-build.txt -

.PHONY: docker-test
docker-test: $(READY)  ## bring the stack up in each profile, kill parts of it, count the tasks: five minutes; needs Docker
	$(BIN)/python -m tests.stack $(DOCKER_BUILD_ARGS)

.PHONY: clean
clean:  ## remove everything that make has made, but generated/
	rm -rf $(VENV) $(GENERATOR_VENV) $(PEERS_VENV) $(LOCKER_VENV) dist docs/_build docs/reference/contract .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
