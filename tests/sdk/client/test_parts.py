from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.client.sse import MAX_EVENT_BYTES, EventReader, ServerEvent
from plait.client.stops import StopCutter
from plait.protocol.errors import MalformedMessageError


@given(st.lists(st.integers(1, 40), max_size=30))
def test_sse_any_cut_gives_the_same_events(cuts: list[int]) -> None:
    text = b": ping\n\nid: 1\nevent: job\ndata: AAA=\n\r\nid:2\r\nevent: chunk\r\ndata: BB\r\ndata: CC\r\n\r\n: x\n\n"
    reader, found, at = EventReader(), [], 0
    for cut in [*cuts, len(text)]:
        found += reader.feed(text[at : at + cut])
        at += cut
    assert found == [ServerEvent(id=1, name="job", data="AAA="), ServerEvent(id=2, name="chunk", data="BBCC")]


@pytest.mark.parametrize(
    "bad", [b"data: x\n\n", b"id: -1\ndata: x\n\n", b"id: 1\ndata: \xff\n\n", b"id: " + b"9" * 20 + b"\ndata: x\n\n"]
)
def test_sse_malformed_event_refuses(bad: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        EventReader().feed(bad)


@pytest.mark.parametrize("piece", [b"x" * 65_536, b"data: " + b"x" * 65_536 + b"\n"])
def test_sse_endless_event_refuses(piece: bytes) -> None:
    reader = EventReader()
    for _ in range(MAX_EVENT_BYTES // 65_536 - 1):
        assert reader.feed(piece) == []
    with pytest.raises(MalformedMessageError, match="exceeds"):
        reader.feed(piece * 2)


@given(st.text("abX", max_size=30), st.lists(st.text("abX", min_size=1, max_size=4), max_size=3), st.integers(1, 5))
def test_stops_any_cut_shows_the_text_before_the_first_stop(text: str, stops: list[str], size: int) -> None:
    cutter = StopCutter(stops)
    shown = "".join(cutter.push(text[at : at + size]) for at in range(0, len(text), size)) + cutter.finish()
    ends = {at + len(stop): stop for stop in stops for at in range(len(text)) if text.startswith(stop, at)}
    if not ends:
        assert shown == text
    else:
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
        assert len(shown) < len(text)
