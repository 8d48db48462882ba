# The only verbs of this repository. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup

PY := .venv/bin/python

help: ## List the verbs.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
