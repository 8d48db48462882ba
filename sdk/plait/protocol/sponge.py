"""keccak256 without an object a call: pycryptodome's C code on one state a thread, without the Python around it.

An answer costs thousands of hashes. Where a version of pycryptodome lacks what is used here, its public face is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from Crypto.Hash import keccak as _module
from Crypto.Util import _raw_api

__all__ = ["keccak_of"]

_SIZE = 32
_CAPACITY = 2 * _SIZE
_ROUNDS = 24
_PADDING = 1
_OF_NOTHING = bytes.fromhex("c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470")

_api: Any = _raw_api
_library: Any = getattr(_module, "_raw_keccak_lib", None)


class _State(threading.local):
    """A sponge of the thread that uses it: C code runs without the interpreter's lock."""

    def __init__(self) -> None:
        pointer = _api.VoidPointer()
        if _library.keccak_init(pointer.address_of(), _api.c_size_t(_CAPACITY), _api.c_ubyte(_ROUNDS)):
            raise MemoryError("no memory for a hash")
        self.owned = _api.SmartPointer(pointer.get(), _library.keccak_destroy)
        self.sponge: Any = self.owned.get()
        self.out: Any = _api.create_string_buffer(_SIZE)


def _public(data: bytes) -> bytes:
    return _module.new(digest_bits=8 * _SIZE, data=data).digest()


def _direct() -> Callable[[bytes], bytes]:
    absorb, squeeze, reset = _library.keccak_absorb, _library.keccak_digest, _library.keccak_reset
    size, padding = _api.c_size_t(_SIZE), _api.c_ubyte(_PADDING)
    c_size, raw, state = _api.c_size_t, _api.get_raw_buffer, _State()

    def hashed(data: bytes) -> bytes:
        sponge, out = state.sponge, state.out
        if reset(sponge) or absorb(sponge, data, c_size(len(data))) or squeeze(sponge, out, size, padding):
            raise MemoryError("the hash could not be computed")
        return raw(out)

    return hashed


def _best() -> Callable[[bytes], bytes]:
    try:
        direct = _direct()
        return direct if direct(b"") == direct(b"") == _OF_NOTHING else _public
    except (AttributeError, TypeError):
        return _public


keccak_of = _best()  # of bytes, in 32 bytes; safe to call from several threads
