"""Compiled decoding is an extra: whatever the compiler does, the engine serves the same tokens."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.model.tiny_families import write_family
from tests.node.engine.family import family, greedy

from plait_node.engine import Lane
from plait_node.engine.errors import CompilerError
from plait_node.engine.lean import LeanBlocks
from plait_node.engine.matrix import Packed
from plait_node.engine.native import NativeBlocks, blocks, build, find_compiler

COMPILER = find_compiler()
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")
# Written in two halves, so that a reader of the target's name would see one of them.
SLOW = """while [ "$1" != -o ]; do shift; done
{compiler} -shared -fPIC -o "$2.whole" {stub}
head -c 2000 "$2.whole" > "$2"
sleep 0.5
cp "$2.whole" "$2"
"""
STUB = 'extern "C" int plait_forward() { return 1; }\nextern "C" int plait_head() { return 2; }\n'
LOAD = "from plait_node.engine.native.build import load_library as load; print(load().plait_forward())"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an empty cache, and the blocks a library that is not shared with other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(blocks, "load_library", build.load_library.__wrapped__)
    return tmp_path / "cache" / "plait"


def compiler(folder: Path, script: str) -> str:
    """Write a program that stands for a compiler."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


def slow_compiler(folder: Path) -> str:
    stub = folder / "stub.cpp"
    stub.write_text(STUB)
    return compiler(folder, SLOW.format(compiler=COMPILER, stub=stub))


def library(folder: Path, by: str) -> Path:
    return folder / f"decoder-{build._key(Path(build.__file__).parent, by)}.so"


def load() -> ctypes.CDLL:
    return build.load_library.__wrapped__()


def test_load_without_compiler_raises(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(CompilerError, match=r"no C\+\+ compiler"):
        load()

    assert not cache.exists()


def test_engine_without_compiler_serves_packed_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = greedy(family("llama").engine(Lane(compiled=False)))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)

    engine = family("llama").engine(Lane())

    assert isinstance(engine.blocks, LeanBlocks)
    assert isinstance(engine.blocks.weights.blocks[0].qkv, Packed)
    assert greedy(engine) == expected


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'no such flag' >&2; exit 1", "no such flag"),
        (r"printf '\377\376\n' >&2; exit 1", "failed"),
        ("echo done", "No such file"),
        ('while [ "$1" != -o ]; do shift; done; echo garbage > "$2"', "does not load"),
        ('while [ "$1" != -o ]; do shift; done; printf "\\177ELF" > "$2"', "does not load"),
    ],
    ids=["fails", "fails in no language", "writes nothing", "writes garbage", "writes half a head"],
)
def test_engine_with_broken_compiler_warns_and_torch_serves(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    script: str,
    said: str,
) -> None:
    expected = greedy(family("llama").engine(Lane(compiled=False)))
    monkeypatch.setenv("CXX", compiler(tmp_path, script))

    with caplog.at_level(logging.WARNING):
        engine = family("llama").engine(Lane())
        assert isinstance(engine.blocks, NativeBlocks)
        assert not engine.blocks.wait(60)

    (message,) = [record.getMessage() for record in caplog.records if record.name == blocks.__name__]
    assert message.startswith("compiled decoding is off reason=")
    assert said in message
    assert greedy(engine) == expected
    assert not list(cache.iterdir()), "nothing of a failed build stays"


def test_load_where_no_cache_can_be_made_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("CXX", compiler(tmp_path, "exit 0"))

    with pytest.raises(CompilerError, match="made no library"):
        load()


@needs_compiler
def test_library_without_the_functions_is_deleted(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by = slow_compiler(tmp_path)
    (tmp_path / "stub.cpp").write_text("int nothing;")
    monkeypatch.setenv("CXX", by)

    with pytest.raises(CompilerError, match="plait_forward"):
        load()

    assert not library(cache, by).exists()


@needs_compiler
def test_damaged_library_is_deleted_and_named(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by = slow_compiler(tmp_path)
    monkeypatch.setenv("CXX", by)
    damaged = library(cache, by)
    cache.mkdir(parents=True)
    damaged.write_bytes(b"not a library")

    with pytest.raises(CompilerError, match=damaged.name):
        load()

    assert not damaged.exists()
    assert load().plait_forward() == 1
    assert damaged.is_file()


@needs_compiler
def test_two_builders_at_once_load_whole_libraries(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = slow_compiler(tmp_path)
    monkeypatch.setenv("CXX", by)

    builders = [
        subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [builder.communicate(timeout=200) for builder in builders]

    assert [out for out, _ in said] == ["1\n", "1\n"], said
    assert list(cache.iterdir()) == [library(cache, by)]


@needs_compiler
def test_library_that_is_there_is_not_built_again(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by = slow_compiler(tmp_path)
    monkeypatch.setenv("CXX", by)
    load()
    made = library(cache, by).stat()

    load()

    assert library(cache, by).stat() == made


def test_cache_lies_in_the_home_unless_xdg_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in (None, ""):
        if unset is None:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert build.cache_folder() == tmp_path / ".cache" / "plait"
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "else"))

    assert build.cache_folder() == tmp_path / "else" / "plait"


LIMITED = """
import sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from pathlib import Path
from plait.protocol.ids import keccak
from plait_model.manifest_build import build_manifest
from plait_node.engine import Lane, StageEngine
path = Path(sys.argv[1])
built = build_manifest(path)
lane = Lane(threads=3)
engine = StageEngine(path, built.manifest, first=0, last=built.manifest.blocks, kv_steps=64, lane=lane)
assert engine.blocks.wait(100)
engine.open(keccak(b"job"), 32)
print(engine.step_one(keccak(b"job"), 0, np.arange(20), best=True).best[0])
"""


@needs_compiler
def test_fewer_threads_than_asked_for_are_enough(tmp_path: Path) -> None:
    path = write_family(tmp_path, "llama")
    answers = [
        subprocess.run(
            [sys.executable, "-c", LIMITED, str(path), str(Path(__file__).parents[3])],
            env={**os.environ, **limit},
            check=True,
            capture_output=True,
            text=True,
            timeout=200,
        ).stdout
        for limit in ({}, {"OMP_THREAD_LIMIT": "1"})
    ]

    assert answers[0] == answers[1]
