#!/bin/sh
# Make Petals' own environment in .petals-venv (CPU; about 1.7 GB, two minutes). Run again, it ends at once.
# PLAIT_TORCH_INDEX picks torch's build, as in `make setup`.
#
# Petals 2.2.0.post1 pins hivemind 1.1.10.post2, which cannot be built any more, and pydantic below 2, which newer
# hivemind does not take. It runs on hivemind 1.1.12 once names that moved are put back, which
# bench/peers/petals_child.py does: "patched Petals" in every comparison. Nothing but packages is fetched.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
wanted='petals==2.2.0.post1 bitsandbytes==0.41.1 tensor-parallel==1.0.23 peft==0.5.0 transformers==4.34.1 tokenizers==0.14.1 huggingface-hub==0.17.3 accelerate==0.23.0'
venv="$root/.petals-venv"

# Three small packages have no wheel; they are of pure Python.
set -- --no-binary prefetch-generator,python-baseconv,varint
if [ -n "${PLAIT_TORCH_INDEX:-}" ]; then set -- "$@" --extra-index-url "$PLAIT_TORCH_INDEX"; fi
tools/own_env.sh petals tools/petals/requirements.txt "$@"

if [ "$(cat "$venv/petals.txt" 2>/dev/null)" != "$wanted" ]; then
    # Without their dependencies, whose pins contradict each other.
    # shellcheck disable=SC2086  # each word is a package
    if ! "$venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: --no-deps $wanted \
        2>"$venv/install.log"; then
        cat "$venv/install.log" >&2
        echo "petals: installing failed; is there a wheel of each package for this machine?" >&2
        exit 1
    fi
    if ! env -u PYTHONPATH "$venv/bin/python" -P bench/peers/petals_child.py check 2>"$venv/check.log"; then
        cat "$venv/check.log" >&2
        echo "petals: it is installed and cannot be imported" >&2
        exit 1
    fi
    echo "$wanted" >"$venv/petals.txt"
fi
p2pd=$(find "$venv/lib" -name p2pd -type f)
echo "petals: works; .petals-venv is $(du -sh "$venv" | cut -f1), its p2pd $(du -h "$p2pd" | cut -f1)"
