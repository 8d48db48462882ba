# The only verbs of this repository. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo up down test chain-test lint types fmt gen docs check

PYTHON ?= python3
PY := .venv/bin/python
FORGE := .venv/bin/forge

help: ## List the verbs.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Fetch everything: .venv, torch, Node.js packages (PLAIT_TORCH_INDEX picks torch's build). Again: under 1 s.
	@$(PYTHON) tools/setup
