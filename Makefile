# The only verbs of this repository. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo up down test chain-test lint types fmt gen gen-check docs setup-test slither sol-coverage \
	symbolic brownie bench-gas bench-engine bench-methods-figure bench-gpu bench-selector train-selector bench-cost bench-live bench-swarm \
	gas-check soak fuzz deep check

PYTHON ?= python3
PY := .venv/bin/python
FUZZ_CASES ?= 1000000
RUFF := .venv/bin/ruff
FORGE := .venv/bin/forge
SOLHINT := .venv/bin/node node_modules/solhint/solhint.js --disc --noPoster --max-warnings 0 --config solhint.config.js
WORKERS ?= 2
PYTEST := $(PY) -m pytest
COVERAGE := --cov --cov-report=term --cov-report=json:build/coverage/coverage.json

help: ## List the verbs.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Fetch everything into .venv and node_modules (PLAIT_TORCH_INDEX picks torch's build); a second run ends at once.
	@$(PYTHON) tools/setup

demo: setup ## Run a whole network here: ask, verify, settle, audit, end it. Writes build/demo/summary.json.
	@$(PY) examples/demo

up: setup ## Start the demo's network and leave it running; prints its URLs and a funded key.
	@$(PY) -m plait_node.localnet up

down: setup ## Stop what `make up` started.
	@$(PY) -m plait_node.localnet down

test: setup ## Every test: Solidity, one brownie scenario, pytest with coverage.
	$(FORGE) test
	tools/brownie_env.sh
	@mkdir -p build/coverage && rm -f build/coverage/data*
	$(PYTEST) --cache-clear -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(COVERAGE) || $(PY) tools/second_go.py

chain-test: setup ## The part of `test` that needs an EVM.
	$(FORGE) test
	tools/brownie_env.sh
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder chain_tests

lint: setup ## Style, house budgets, direction of imports.
	$(RUFF) check .
	$(RUFF) format --check .
	$(FORGE) fmt --check
	$(SOLHINT) "contracts/**/*.sol"
	.venv/bin/lint-imports --no-logo --cache-dir build/import-linter

types: setup ## Strict types on every package.
	.venv/bin/node node_modules/pyright/index.js

fmt: setup ## Format Python and Solidity in place.
	$(RUFF) check --fix-only --quiet .
	$(RUFF) format .
	$(FORGE) fmt

gen: setup ## Write generated code: messages and stubs from proto/, ABIs and bytecode from contracts/.
	$(PY) tools/gen_proto.py
	$(PY) tools/gen_contracts.py

gen-check: setup
	$(PY) tools/gen_proto.py --check
	$(PY) tools/gen_contracts.py --check
	$(PY) tools/gen_docs.py --check

docs: setup ## Write docs/cli from the commands' own help.
	$(PY) tools/gen_docs.py

setup-test: setup
	$(PYTEST) -m setup tests/architecture

slither: setup ## Static analysis of contracts/: no finding of high or medium impact without a reason in tools/slither.
	$(PY) tools/slither

sol-coverage: setup ## Lines and branches of contracts/ that forge's tests reach; at least 95 % of branches.
	$(PY) tools/sol_coverage.py

symbolic: setup ## Symbolic checks of claims and conservation (halmos); bounds in chain_tests/symbolic/README.md.
	tools/halmos.sh

brownie: setup ## Whole lives and the state machine in brownie, with its gas profile.
	tools/brownie_env.sh --all

bench-gas: setup ## Measure the gas of whole transactions; writes build/bench/gas.json.
	$(PY) bench/gas.py

gas-check: setup
	$(PY) bench/gas.py --check

fuzz: setup ## A million cases over every reader of strangers' bytes; guided by coverage too where atheris installs.
	-.venv/bin/pip install --quiet 'atheris==3.0.0'
	$(PY) -m tests.fuzz --cases $(FUZZ_CASES)

soak: setup ## 10,000 short jobs through one engine; fails when memory grew by more than 10 MB after the first 1,000.
	$(PY) -m bench.soak
	$(PY) -m bench.soak --torch

bench-engine: setup ## Engine against transformers, vLLM and llama.cpp, and each method off and on; writes build/bench/engine.json.
	$(PY) -m bench.engine

bench-methods-figure: setup ## Methods by batch size on SmolLM2; writes build/bench/methods.json and .png.
	$(PY) -m bench.methods

bench-gpu: setup ## What a CUDA device does, on the shape of Llama 3.1 8B; writes build/bench/gpu.json. Says so without one.
	$(PY) -m bench.gpu --out build/bench

bench-selector: setup ## The selector against its baselines on the measured history; writes build/bench/selector.json, .md and plots.
	$(PY) -m bench.selector

train-selector: setup ## Fit the predictor that comes with the package on the history that comes with it.
	$(PY) -m bench.selector.ship

bench-cost: setup ## A million tokens' cost by part, selector on and off, one node and swarms; writes build/bench/cost.json, .md, .png.
	$(PY) -m bench.cost

bench-swarm: setup ## What hops, stages, distance and failures cost, and how routes compare; build/bench/swarm.json, swarm-routing.json.
	$(PY) -m bench.swarm
	$(PY) -m bench.swarm.routing

bench-live: setup ## 100 mixed jobs through a real network, the selector against the best fixed methods; build/bench/live.json.
	$(PY) -m bench.live

deep: setup ## Invariants in 10,000 runs and fuzzing in 10,000 (about an hour).
	FOUNDRY_INVARIANT_RUNS=10000 FOUNDRY_FUZZ_RUNS=10000 $(FORGE) test --match-path 'chain_tests/{invariant,fuzz,unit,attack}/**'

check: lint types gen-check setup-test test gas-check slither sol-coverage ## What CI runs: all of the above that checks something, and set-up without compilers.
