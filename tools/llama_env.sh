#!/bin/sh
# Build llama.cpp's server and tools, the peer of bench/peers/llama_server.py, for this very processor. Run again, it ends at once.
#   tools/llama_env.sh [JOBS]    into build/llama/bin; about 10 minutes on two cores; needs cmake and a C++ compiler
# The sources come inside llama-cpp-python's sdist, so one pinned package is all that is fetched.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
jobs=${1:-2}
version=0.3.36
home="$root/build/llama"
stamp="$home/built.txt"

if [ "$(cat "$stamp" 2>/dev/null)" = "$version" ]; then exit 0; fi
for tool in cmake c++; do
    if ! command -v "$tool" >/dev/null; then
        echo "llama: $tool is not installed; install cmake and a C++ compiler" >&2
        exit 1
    fi
done
mkdir -p "$home/sdist" "$home/source"
if ! ls "$home/sdist/"*"-$version.tar.gz" >/dev/null 2>&1; then
    "$root/.venv/bin/python" -m pip download -q --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
        -d "$home/sdist" "llama-cpp-python==$version" 2>"$home/download.log" || {
        cat "$home/download.log" >&2
        exit 1
    }
fi
tar -xzf "$home/sdist/"*"-$version.tar.gz" -C "$home/source" --strip-components 1

# GCC 12 drops stores that AMX tile set-up needs, and the first prompt then crashes; without AMX the flags are not needed.
set --
if grep -qw amx_tile /proc/cpuinfo 2>/dev/null; then set -- "-DCMAKE_CXX_FLAGS=-fno-tree-dse -fno-dse"; fi
# The web page and TLS are left out: both may download at build time, and a peer on loopback needs neither.
set -- -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF "$@"
echo "llama: building llama-server with $jobs jobs (once, about 10 minutes); $home/build.log"
if ! {
    nice -n 19 cmake -S "$home/source/vendor/llama.cpp" -B "$home" "$@" &&
        nice -n 19 cmake --build "$home" --target llama-server llama-quantize -j "$jobs"
} >"$home/build.log" 2>&1; then
    tail -30 "$home/build.log" >&2
    exit 1
fi
echo "$version" >"$stamp"
