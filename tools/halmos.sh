#!/bin/sh
# Check claims and conservation symbolically: every check_ function of chain_tests/symbolic, for all values within its
# bounds. A counterexample, a time-out and an error all fail. Further arguments go to halmos.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
tools/own_env.sh halmos tools/halmos/requirements.txt

# Into a folder of its own: halmos needs the syntax trees, and only these tests.
export FOUNDRY_OUT=build/halmos/contracts FOUNDRY_CACHE_PATH=build/halmos/cache FOUNDRY_TEST=chain_tests/symbolic
export FOUNDRY_LINT_LINT_ON_BUILD=false
PATH="$root/.venv/bin:$root/.halmos-venv/bin:$PATH"
forge build --ast --quiet
exec halmos --forge-build-out build/halmos/contracts --no-status --loop 4 --solver yices --solver-timeout-assertion 60s "$@"
