# Everything a person types: `make demo`, `make test`. Each sets up what it needs first; what is installed is reused.
#
#   make demo      set up, then run the main job end to end on this machine (ARGS="--keep" leaves the services up)
#   make test      set up, then run the checks and every tier of tests
#   make check     formatting, lint, types, import rule
#   make unit      the plain test run: seconds, no network, no Ray, no GPU
#   make setup     only set up the package and its tools (.venv)
#   make setup-services   only set up Label Studio's server (.venv-label-studio)
#   make clean     remove both environments and all caches; workspaces stay

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test check unit setup setup-services setup-browser clean

help:
	@sed -n 's/^#   //p' Makefile

setup:
	@scripts/setup.sh main

setup-services:
	@scripts/setup.sh services

setup-browser:
	@scripts/setup.sh browser

demo:
	@$(MAKE) --no-print-directory -j2 setup setup-services # both mostly wait for the network
	@.venv/bin/python pipelines/demo.py $(ARGS)

check: setup
	@scripts/check.sh

unit: setup
	@.venv/bin/python -m pytest -q

test:
	@$(MAKE) --no-print-directory -j2 setup setup-services setup-browser
	@scripts/test.sh

clean:
	rm -rf .venv .venv-label-studio .cache build dist src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
