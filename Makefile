# make demo · make test : the two commands of the README. Everything else is for people who change the agent.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv-run
LINT := .venv-lint
# The first that runs: a shim of a version manager may be there and not.
find-python = $(shell for python in python$(1) $$HOME/.pyenv/versions/$(1).*/bin/python; do \
  $$python -c '' 2>/dev/null && { echo $$python; break; }; done)
OLD ?= $(call find-python,3.9)
NEW ?= $(call find-python,3.13)
SOURCES := pyproject.toml README.md $(shell find core plugins fabric -type f ! -path '*/__pycache__/*' 2>/dev/null)
EMPTY :=
ROOTS := $(subst $(EMPTY) $(EMPTY),:,$(strip core fabric $(wildcard plugins/*)))
PYTEST := -m pytest -p no:cacheprovider
RING := not system and not vm

.PHONY: demo test test-matrix test-old test-new system vm-test lint types borders format bench clean help

help:
	@echo 'make demo         run the main job on the embedded platform, in a scratch directory, without root'
	@echo 'make test         the unit and fabric rings on the built wheel, without root'
	@echo 'make test-matrix  the same on Python 3.9 with the oldest dependencies and on 3.13 with the newest'
	@echo 'make system       the system ring (root: namespaces, other agents)'
	@echo 'make vm-test      boot a real Debian under QEMU with the agent in it (root)'
	@echo 'make lint types borders   what reads the code without running it'
	@echo 'make bench        memory, CPU, requests and reaction times, beside another agent (root)'

demo: $(VENV)/.ready
	@umask 022 && $(VENV)/bin/python examples/demo.py

test: $(VENV)/.ready
	@$(call run-rings,$(VENV)/bin/python)

# One virtual environment with the built wheel; made again when a source is newer.
$(VENV)/.ready: $(SOURCES)
	@$(call make-venv,$(PYTHON),$(VENV),)

test-matrix: test-old test-new

test-old: .venv-old/.ready
	@$(call run-rings,.venv-old/bin/python)

test-new: .venv-new/.ready
	@$(call run-rings,.venv-new/bin/python)

# With JOBS=4 (as root, which gives each job a network of its own) side by side, but for what measures time. A test that
# four jobs on two cores made late gets a second try, and is named.
SIDE_BY_SIDE = -n $(JOBS) --dist worksteal --reruns 1 -rR
define run-rings
umask 022 && $(if $(JOBS),\
  $(1) $(PYTEST) -m '$(RING) and not alone' $(SIDE_BY_SIDE) --own-network $(ARGS) && $(1) $(PYTEST) -m '$(RING) and alone' $(ARGS),\
  $(1) $(PYTEST) -m '$(RING)' $(ARGS))
endef

.venv-old/.ready: $(SOURCES) tests/floors.txt
	@test -n '$(OLD)' || { echo 'make test-matrix needs Python 3.9: set OLD=/path/to/python3.9'; exit 1; }
	@$(call make-venv,$(OLD),.venv-old,-c tests/floors.txt)

.venv-new/.ready: $(SOURCES)
	@test -n '$(NEW)' || { echo 'make test-matrix needs Python 3.13: set NEW=/path/to/python3.13'; exit 1; }
	@$(call make-venv,$(NEW),.venv-new,--upgrade --upgrade-strategy eager)

define make-venv
umask 022 && \
$(1) -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { echo '$(1) is missing or older than Python 3.9'; exit 1; } && \
{ $(1) -c 'import venv, ensurepip' 2>/dev/null || { echo 'the venv module is missing: install python3-venv (Debian, Ubuntu) or its like'; exit 1; }; } && \
{ test -x $(2)/bin/python || $(1) -m venv $(2); } && \
rm -rf build/$(2) && \
$(2)/bin/python -m pip --quiet --disable-pip-version-check wheel --no-deps --wheel-dir build/$(2) . && \
$(2)/bin/python -m pip --quiet --disable-pip-version-check install --force-reinstall --no-deps build/$(2)/*.whl && \
$(2)/bin/python -m pip --quiet --disable-pip-version-check install $(3) "$$(echo build/$(2)/*.whl)[test]" && \
touch $(2)/.ready
endef

system: $(VENV)/.ready
	@umask 022 && $(VENV)/bin/python $(PYTEST) -m 'system and not vm' $(if $(JOBS),$(SIDE_BY_SIDE)) $(ARGS)

vm-test: $(VENV)/.ready
	@umask 022 && $(VENV)/bin/python $(PYTEST) tests/vm $(ARGS)

$(LINT)/.ready: pyproject.toml
	@test -x $(LINT)/bin/python || $(PYTHON) -m venv $(LINT)
	@$(LINT)/bin/python -m pip --quiet --disable-pip-version-check install 'attrs' 'aiohttp' 'cryptography' 'pluggy' 'requests' 'stevedore' 'hypothesis' 'pytest' 'codespell' 'import-linter' 'mypy' 'ruff' 'types-requests'
	@touch $(LINT)/.ready

lint: $(LINT)/.ready
	@$(LINT)/bin/ruff check .
	@$(LINT)/bin/ruff format --check .
	@$(LINT)/bin/codespell $$(git ls-files '*.py' '*.md' '*.toml' Makefile)

types: $(LINT)/.ready
	@$(LINT)/bin/mypy

borders: $(LINT)/.ready
	@PYTHONPATH=$(ROOTS) $(LINT)/bin/lint-imports --no-cache

format: $(LINT)/.ready
	@$(LINT)/bin/ruff check --fix .
	@$(LINT)/bin/ruff format .

bench: $(VENV)/.ready
	@umask 022 && $(VENV)/bin/python bench/run.py $(ARGS)

clean:
	rm -rf .venv-run .venv-old .venv-new .venv-lint build dist .mypy_cache .ruff_cache .hypothesis .pytest_cache
