#!/bin/sh
# Make an environment of its own for a tool whose pins clash with ours; run again, it ends at once.
#   tools/own_env.sh NAME REQUIREMENTS [OPTION...]    .NAME-venv; the options go to pip, wheels only is one already
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
name=$1 wanted=$2
shift 2
venv="$root/.$name-venv"
stamp="$venv/installed.txt"

if cmp -s "$wanted" "$stamp"; then exit 0; fi
echo "$name: making .$name-venv (once)"
rm -rf "$venv"
"$root/.venv/bin/python" -m venv "$venv"
if ! "$venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: "$@" -r "$wanted" \
    2>"$venv/install.log"; then
    cat "$venv/install.log" >&2
    echo "$name: installing failed; is there a wheel of each pin in $wanted for this Python?" >&2
    exit 1
fi
cp "$wanted" "$stamp"
