"""The name of an on-chain request against the vectors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.sdk.protocol.vectors import load, raw

from plait.protocol.ids import Address, keccak
from plait.protocol.typed import Domain
from plait_audit.checks import requests_are_named_by_their_digest
from plait_audit.state import Finding, Place, Request

PLACE = Place(block=1, tx=keccak(b"tx"), index=2)


async def named(digest: bytes, case: dict[str, Any]) -> list[Finding]:
    vectors = load("requests")
    domain = Domain(chain_id=31_337, channels=Address(raw(vectors["domain"]["verifyingContract"])))
    deployment = SimpleNamespace(chain_id=31_337, domain=domain, address=lambda _: raw(vectors["requests"]))
    params = {
        name: raw(value) if isinstance(value, str) and value.startswith("0x") else int(value)
        for name, value in case["params"].items()
    }
    requests = {case["id"]: Request(place=PLACE, digest=digest, params=params)}
    replay = SimpleNamespace(state=SimpleNamespace(requests=requests))
    check = requests_are_named_by_their_digest(cast("Any", SimpleNamespace(deployment=deployment)), cast("Any", replay))
    return [finding async for finding in check]


@pytest.mark.parametrize("which", ["public", "commitment"])
async def test_request_is_named_by_its_digest_and_by_nothing_else(which: str) -> None:
    vectors = load("requests")
    case = vectors if which == "public" else vectors["commitment"]

    assert await named(raw(case["digest"]), case) == []
    (finding,) = await named(keccak(b"another"), case)

    assert (finding.check, finding.place) == ("requests", PLACE)
    assert case["digest"] in finding.text
