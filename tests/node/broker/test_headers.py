from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from plait_node.broker.access import UserClient

NAMES = st.text(alphabet=string.ascii_letters + string.digits + "-_ \t\x0b\x1c", min_size=1, max_size=12)
VALUES = st.text(alphabet=string.printable.replace("\r", "").replace("\n", ""), max_size=20)
LINES = st.tuples(NAMES, st.sampled_from([":", ": ", ":\t", ""]), VALUES).map("".join).map(str.encode)


@given(st.lists(LINES | st.binary(max_size=12).filter(lambda line: b"\r" not in line), max_size=6))
def test_headers_are_read_as_nats_py_reads_them(lines: list[bytes]) -> None:
    raw = b"\r\n".join(lines) + b"\r\n\r\n"
    assert UserClient._parse_header_lines(raw) == Client._parse_header_lines(raw)
