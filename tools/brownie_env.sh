#!/bin/sh
# Make brownie's own environment, then run its scenario on a chain of its own. Run again: only the scenario.
#   tools/brownie_env.sh              set up and test
#   tools/brownie_env.sh --setup      set up only
#   tools/brownie_env.sh --gas ...    further arguments go to `brownie test`
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
venv="$root/.brownie-venv"
wanted="$root/chain_tests/brownie/requirements.txt"
stamp="$venv/installed.txt"

if ! cmp -s "$wanted" "$stamp"; then
    echo "brownie: making .brownie-venv (about 155 MB, once)"
    rm -rf "$venv"
    "$root/.venv/bin/python" -m venv "$venv"
    # The one package without a wheel is pure Python.
    if ! "$venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: \
        --no-binary pygments-lexer-solidity -r "$wanted" 2>"$venv/install.log"; then
        cat "$venv/install.log" >&2
        echo "brownie: installing failed; eth-brownie has wheels for CPython 3.10 to 3.13 only" >&2
        exit 1
    fi
    cp "$wanted" "$stamp"
fi
if [ "${1:-}" = "--setup" ]; then exit 0; fi

home=$(mktemp -d "${TMPDIR:-/tmp}/plait-brownie.XXXXXX")
trap 'rm -rf "$home"' EXIT
trap 'exit 130' INT TERM
port=$("$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir -p "$home/.brownie" build/brownie/sources
cat >"$home/.brownie/network-config.yaml" <<EOF
live: []
development:
  - name: anvil of this run
    id: development
    cmd: anvil
    host: http://127.0.0.1
    cmd_settings:
      port: $port
      accounts: 10
      base_fee: 0
EOF

# Brownie keeps its data below HOME; a chain and a folder of its own leave the user's alone.
HOME="$home" PATH="$root/.venv/bin:$PATH" PYTEST_ADDOPTS="-c chain_tests/brownie/pytest.ini" \
    "$venv/bin/brownie" test chain_tests/brownie "$@"
