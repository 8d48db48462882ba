"""Where a node says that it can be dialed: host and port, in one form each, whoever wrote it."""

from __future__ import annotations

import pytest

from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address, Hash
from plait_node.wire import Destination

OWNER, PIN = Address(b"\x07" * 20), Hash(b"\x44" * 32)


def parsed(text: str) -> tuple[str, int]:
    found = Destination.parse(text, owner=OWNER, certificate=PIN)
    assert Destination.parse(found.target, owner=OWNER, certificate=PIN) == found
    return found.host, found.port


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", 9_000)),
        ("node-1.example.org:65535", ("node-1.example.org", 65_535)),
        ("[::1]:1", ("::1", 1)),
        ("::1:50051", ("::1", 50_051)),
    ],
)
def test_destination_is_read_from_host_and_port(text: str, where: tuple[str, int]) -> None:
    assert parsed(text) == where


@pytest.mark.parametrize(
    "text",
    [
        "host:0000070000",  # above 65535 behind its first six digits
        "host:000001" + "9" * 5_000,  # more digits than Python reads as a number
        "host:0",
        "host:65536",
        "host:-1",
        "host:",
        ":9000",
        "[]:9000",  # nothing is left without the brackets
        "[[:9000",
        "a[b:9000",
        "x" * 254 + ":9000",
    ],
)
def test_destination_that_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessageError):
        Destination.parse(text, owner=OWNER, certificate=PIN)
