"""The rules of `Requests`: a request opens, its prompt may be published, it ends once, on the right side of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plait.protocol.commitments import ids_from, prompt_commitment
from plait.protocol.errors import MalformedMessageError
from plait.protocol.sealing import ContentKey
from plait_audit.entry import Entry, account_of, expect, find
from plait_audit.state import Request, State

_CHECK = "requests"
_MIN_EXCLUSIVE_S, _MAX_LIFE_S = 60, 3_600


def requested(state: State, entry: Entry) -> None:
    """Open a request under the next number."""
    number, params = entry.values["id"], entry.values["params"]
    expect(state, _CHECK, entry, "request's number", logged=number, rebuilt=len(state.requests) + 1)
    expect(state, _CHECK, entry, "gateway", logged=entry.values["gateway"], rebuilt=params["gateway"])
    until, deadline = params["exclusiveUntil"], params["deadline"]
    if not entry.time + _MIN_EXCLUSIVE_S <= until <= deadline <= entry.time + _MAX_LIFE_S:
        find(state, _CHECK, entry, f"exclusive until {until} and due at {deadline} when it was {entry.time}")
    state.requests[number] = Request(place=entry.place, digest=entry.values["request"], params=params)


def prompt_published(state: State, entry: Entry) -> None:
    """Compare a prompt with the commitment of the request made right before."""
    request = state.requests.get(entry.values["id"])
    if request is None or request.place.tx != entry.place.tx or request.public:
        find(state, _CHECK, entry, "a prompt was published without its request right before")
        return
    request.public, request.place = True, entry.place
    expect(state, _CHECK, entry, "gateway", logged=entry.values["gateway"], rebuilt=request.params["gateway"])
    if not _fits(request.params, entry.values["ids"]):
        find(state, _CHECK, entry, f"the prompt of request {entry.values['id']} is not what it commits to")


def _fits(params: Mapping[str, Any], published: bytes) -> bool:
    try:
        ids = ids_from(published)
    except MalformedMessageError:
        return False
    return (len(ids), prompt_commitment(ContentKey.public(), ids)) == (params["inputTokens"], params["prompt"])


def fulfilled(state: State, entry: Entry) -> None:
    """End a request with an answer; its fee is the gateway's."""
    request = _ended(state, entry)
    if request is None:
        return
    params, tokens = request.params, entry.values["outputTokens"]
    request.status = "fulfilled"
    expect(state, _CHECK, entry, "gateway", logged=entry.values["gateway"], rebuilt=params["gateway"])
    if tokens > params["maxTokens"]:
        find(state, _CHECK, entry, f"{tokens} tokens answered of at most {params['maxTokens']}")
    if entry.time > params["deadline"]:
        find(state, _CHECK, entry, f"Fulfilled at {entry.time}, after the deadline {params['deadline']}")
    account_of(state, params["gateway"], entry).unaccrued += request.fee


def given_back(state: State, entry: Entry) -> None:
    """End a request without an answer: by its payer after the exclusive period, by anybody after the deadline."""
    request = _ended(state, entry)
    if request is None:
        return
    params = request.params
    cancelled = entry.name == "Cancelled"
    request.status = "cancelled" if cancelled else "refunded"
    expect(state, _CHECK, entry, "payer", logged=entry.values["payer"], rebuilt=params["payer"])
    expect(state, _CHECK, entry, "fee", logged=entry.values["fee"], rebuilt=request.fee)
    due = params["exclusiveUntil" if cancelled else "deadline"]
    if entry.time <= due:
        find(state, _CHECK, entry, f"{entry.name} at {entry.time}, allowed only after {due}")


def callback_failed(state: State, entry: Entry) -> None:
    """Count a callback that failed; one belongs to the end of its request, in the same transaction."""
    request = state.requests.get(entry.values["id"])
    if request is None or request.status == "open" or request.place.tx != entry.place.tx or request.callback_failed:
        find(state, _CHECK, entry, "a callback failed without its request ending right before")
        return
    if not request.params["callbackGas"]:
        find(state, _CHECK, entry, "a callback failed that nobody asked for")
    request.callback_failed, request.place = True, entry.place


def _ended(state: State, entry: Entry) -> Request | None:
    request = state.requests.get(entry.values["id"])
    if request is None or request.status != "open":
        find(state, _CHECK, entry, f"request {entry.values['id']} ended although it was not open")
        return None
    request.place = entry.place
    return request
