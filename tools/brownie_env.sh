#!/bin/sh
# Make brownie's own environment, then test on a chain of its own. Run again: only the tests.
#   tools/brownie_env.sh              one quick scenario: open, claim, exit
#   tools/brownie_env.sh --all        every life, the state machine, and the gas profile
#   tools/brownie_env.sh --setup      set up only
# Further arguments go to `brownie test`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
venv="$root/.brownie-venv"

# The one package without a wheel is pure Python. About 155 MB.
if ! tools/own_env.sh brownie chain_tests/brownie/requirements.txt --no-binary pygments-lexer-solidity; then
    echo "brownie: eth-brownie has wheels for CPython 3.10 to 3.13 only" >&2
    exit 1
fi
tests=chain_tests/brownie/test_channel_life.py
case "${1:-}" in
--setup) exit 0 ;;
--all)
    shift
    tests=chain_tests/brownie
    set -- --gas "$@"
    ;;
esac

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
    "$venv/bin/brownie" test "$tests" "$@"
