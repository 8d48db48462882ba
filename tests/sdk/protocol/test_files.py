"""What strangers wrote: manifests, endpoints, notes, faults."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.swarm import manifest

from plait.protocol.choice import ChoiceNote, choice_hash
from plait.protocol.codec import fault_from_pb, fault_to_pb
from plait.protocol.endpoints import Endpoints, endpoints
from plait.protocol.errors import (
    Fault,
    MalformedMessageError,
    ManifestError,
    PlaitError,
    RefusedError,
    SealingError,
    UnknownModelError,
    error_from_fault,
)
from plait.protocol.ids import address, hash32, to_hex
from plait.protocol.manifest import MAX_BYTES, Manifest
from plait.protocol.pb import signed_pb2
from plait.protocol.sealing import Note

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_manifest_comes_back_and_any_change_changes_the_id() -> None:
    made = manifest()
    assert Manifest.from_json(made.to_json()) == made
    assert replace(made, end_tokens=(1,)).model_id != made.model_id
    assert made.profile(made.profiles[0].profile_id) == made.profiles[0]
    assert made.profile(made.model_id) is None


@given(st.sampled_from(sorted(json.loads(manifest().to_json()))), json_values)
def test_manifest_any_other_value_refuses_or_stays_canonical(key: str, value: object) -> None:
    changed = json.loads(manifest().to_json())
    changed[key] = value
    data = json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with contextlib.suppress(ManifestError):
        assert Manifest.from_json(data).to_json() == data


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b" ",
        lambda data: b"[" * 100_000,
        lambda data: b" " * (MAX_BYTES + 1),
        lambda data: data.replace(b'"version":1', b'"version":2'),
        lambda data: data[:-1] + b',"extra":1}',
        lambda data: data.replace(b'"blocks":30', b'"blocks":30,"blocks":30'),
        lambda data: data.replace(b'"blocks":30', b'"blocks":30.0'),
        lambda data: b"null",
        lambda data: b"\xff",
    ],
)
def test_manifest_not_canonical_refuses(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(change(manifest().to_json()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Endpoints()),
        ("http://10.0.0.1:8080/", Endpoints(http="http://10.0.0.1:8080")),
        ("dht://host:6881 https://a.example", Endpoints(http="https://a.example", dht=("host", 6881))),
        (
            "http://a:1 dht://host:6881 https://b/x/ http://a:1/ http://c",
            Endpoints(http="http://a:1", dht=("host", 6881), others=("https://b/x", "http://c")),
        ),
        ("dht://[::1]:7 ftp://x", Endpoints(dht=("::1", 7))),
        ("dht://host", Endpoints()),
    ],
)
def test_endpoints_read_what_they_know(text: str, expected: Endpoints) -> None:
    assert endpoints(text) == expected
    assert endpoints(expected.text()) == expected


@pytest.mark.parametrize(
    "text",
    ["http://", "x", "http://a:99999", "http://u@a", "http://a?b", "http://a#b", "a" * 600, "http://a\n", "http://[::"],
)
def test_endpoints_garbage_refuses(text: str) -> None:
    with pytest.raises(MalformedMessageError):
        endpoints(text)


@given(st.text(max_size=60))
def test_endpoints_any_text_refuses_or_reads(text: str) -> None:
    try:
        found = endpoints(text)
        assert endpoints(found.text()) == found
    except MalformedMessageError:
        pass


def test_choice_note_comes_back_and_garbage_refuses() -> None:
    note = ChoiceNote(method="chunked-prefill", amounts={"chunk": 32}, predicted={"ttft_s": 0.25}, reason="long prompt")
    assert ChoiceNote.from_note(Note(text=note.to_json())) == note
    assert note.choice == choice_hash("chunked-prefill", {"chunk": 32})
    for wrong in (
        b"[]",
        b"{",
        b"{}",
        b'{"amounts":{},"method":1,"predicted":{},"reason":""}',
        b'{"amounts":{"a":1.5},"method":"a","predicted":{},"reason":""}',
        b'{"amounts":{},"method":"a","predicted":[],"reason":""}',
        b'{"amounts":{},"method":"a","predicted":{},"reason":"","more":1}',
    ):
        with pytest.raises(SealingError):
            ChoiceNote.from_note(Note(text=wrong))


def test_fault_comes_back_as_its_own_error() -> None:
    sent = UnknownModelError("no such model; this gateway serves tiny").fault()
    error = error_from_fault(fault_from_pb(fault_to_pb(sent)))
    assert type(error) is UnknownModelError
    assert (error.sent, str(error)) == (sent, "no such model; this gateway serves tiny")
    later = error_from_fault(Fault(code="from_the_future", text="x", retry=True, moved=True))
    assert (type(later), later.retry, later.moved) == (RefusedError, True, True)


def test_fault_control_characters_and_length_are_cut() -> None:
    found = fault_from_pb(signed_pb2.Fault(code="a\x1b[31m!", text="bad\x1b[2J\n" + "x" * 5_000))
    assert found.code == "a31m"
    assert found.text.isprintable()
    assert len(found.text) <= 2_000


def test_every_error_code_is_drawn_once() -> None:
    found: list[str] = []

    def walk(kind: type[PlaitError]) -> None:
        found.append(kind.code)
        for child in kind.__subclasses__():
            if child.__module__ == "plait.protocol.errors":
                walk(child)

    walk(PlaitError)
    assert len(found) == len(set(found))


def test_ids_read_hex_or_refuse() -> None:
    assert to_hex(address("0x" + "Ab" * 20)) == "0x" + "ab" * 20
    assert hash32("11" * 32) == b"\x11" * 32
    for wrong in ("", "0x", "0x12", "zz" * 20, b"\0" * 19, " " * 40):
        with pytest.raises(MalformedMessageError):
            address(wrong)
