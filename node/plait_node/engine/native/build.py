"""Build the kernels once per machine and source, and load them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from plait_node.engine.errors import CompilerError

__all__ = ["cache_folder", "find_compiler", "load_library"]

_SOURCES: Final = ("kernels.h", "decoder.cpp")
_FLAGS: Final = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fopenmp",
    "-fPIC",
    "-shared",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    # Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
    "-fassociative-math",
    "-fno-signed-zeros",
)
_BUILD_S: Final = 300.0


def find_compiler() -> str | None:
    """Return the C++ compiler of this machine: $CXX, g++ or clang++; none where there is none."""
    names = (os.environ.get("CXX", ""), "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def cache_folder() -> Path:
    """Return where built libraries are kept: $XDG_CACHE_HOME/plait, ~/.cache/plait without it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait"


@cache
def load_library() -> ctypes.CDLL:
    """Return the library, built now unless this machine has built it before; takes some seconds.

    Raises:
        CompilerError: there is no compiler, it failed, or what it made is no use; the message ends with what it said.
    """
    compiler = find_compiler()
    if compiler is None:
        raise CompilerError("no C++ compiler was found; install g++, or go on without compiled decoding")
    folder = Path(__file__).parent
    path = cache_folder() / f"decoder-{_key(folder, compiler)}.so"
    if not path.is_file():
        _build(compiler, folder, path)
    try:
        library = ctypes.CDLL(str(path))
        _ = library.plait_forward, library.plait_head
        return library
    except (OSError, AttributeError) as error:
        path.unlink(missing_ok=True)
        raise CompilerError(f"{path.name} does not load ({error}); it was deleted, start again") from error


def _key(folder: Path, compiler: str) -> str:
    """Name a build by all that decides it: sources, flags, compiler and processor."""
    digest = hashlib.sha256(" ".join((compiler, *_FLAGS, _processor())).encode())
    for name in _SOURCES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _build(compiler: str, folder: Path, path: Path) -> None:
    """Compile beside the target and move there, so that nobody loads half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as made:
            out = Path(made) / path.name
            command = [compiler, *_FLAGS, "-o", str(out), str(folder / "decoder.cpp")]
            done = subprocess.run(command, capture_output=True, timeout=_BUILD_S, check=False)
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip()[-500:]
                raise CompilerError(f"{compiler} failed: {said}")
            out.rename(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(f"{compiler} made no library in {path.parent}: {error}") from error
