"""The hash without an object a call is the public one, in every thread and whatever came before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from Crypto.Hash import keccak as public
from hypothesis import given
from hypothesis import strategies as st

from plait.protocol import sponge
from plait.protocol.ids import keccak


def expected(data: bytes) -> bytes:
    return public.new(digest_bits=256, data=data).digest()


@given(st.lists(st.binary(max_size=700), max_size=4))
def test_keccak_is_that_of_the_parts_joined(parts: list[bytes]) -> None:
    assert keccak(*parts) == expected(b"".join(parts))


def test_direct_way_is_used_with_the_version_that_is_installed() -> None:
    assert sponge.keccak_of is not sponge._public
    assert sponge._public(b"abc") == sponge.keccak_of(b"abc")


def test_keccak_in_many_threads_at_once() -> None:
    data = [bytes([number]) * (37 * number) for number in range(100)]

    def all_right(_: int) -> bool:
        return all(keccak(each) == expected(each) for each in data)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(all_right, range(24)))


def test_keccak_falls_back_where_pycryptodome_has_not_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sponge, "_library", None)
    assert sponge._best() is sponge._public
