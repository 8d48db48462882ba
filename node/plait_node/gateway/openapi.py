"""The gateway's HTTP face as an OpenAPI 3.1 document, made from the routes that `http.py` declares.

Bodies are protobuf: their schemas are read from the messages' own descriptors, and stand behind `contentSchema`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from plait.protocol.pb import gateway_pb2, signed_pb2

PATH = "/openapi.json"
PROTOBUF = "application/x-protobuf"
_SSE, _JSON, _TEXT, _BYTES = "text/event-stream", "application/json", "text/plain", "application/octet-stream"

Json = dict[str, Any]

_WHY: Mapping[int, str] = {
    400: "The call is malformed, contradicts itself or has expired.",
    401: "A signature is not by whom it should be.",
    402: "The channel's deposit does not cover the payment.",
    404: "No such model, job, channel or file here.",
    409: "It contradicts what was sent before, or the channel's exit runs.",
    410: "The quote is too old.",
    413: "The body is too large.",
    421: "Another gateway of this operator owns the channel; the fault names it.",
    429: "Too many calls; Retry-After says when to come back.",
    503: "Not now: no room, no route, or the broker or the chain does not answer.",
}
_MONEY = (400, 401, 402, 404, 409, 413, 421, 429, 503)
_SIGNED = (400, 401, 404, 413, 421, 429, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What a call takes and gives: messages of proto/gateway.proto, or a media type."""

    does: str
    takes: type[Message] | None = None
    gives: type[Message] | str = ""
    status: int = 200
    refusals: tuple[int, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


_CALLS: Mapping[str, _Call] = {
    "/v1/quotes": _Call(
        does="Ask what a model costs now; the answer is signed.",
        takes=gateway_pb2.QuoteCall,
        gives=gateway_pb2.QuoteReply,
        refusals=(400, 404, 413, 429, 503),
        query={"input": "Tokens of the prompt to come.", "output": "Tokens of the answer to come."},
        headers={"Plait-Queue-Limit": "How many jobs of the quoted group may wait or run."},
    ),
    "/v1/jobs": _Call(
        does="Hand in a request with its payment and sealed prompt; the very same call again is harmless.",
        takes=gateway_pb2.JobCall,
        gives=gateway_pb2.JobReply,
        refusals=tuple(sorted({*_MONEY, 410})),
    ),
    "/v1/jobs/{request}/events": _Call(
        does="Follow an answer: each event's data is the base64 of a ResultEvent, its id a sequence number.",
        takes=gateway_pb2.EventsCall,
        gives=_SSE,
        refusals=_SIGNED,
    ),
    "/v1/jobs/{request}/cancel": _Call(
        does="Stop an answer.", takes=gateway_pb2.CancelCall, status=202, refusals=_SIGNED
    ),
    "/v1/vouchers": _Call(
        does="Pay for what was delivered.",
        takes=gateway_pb2.VoucherCall,
        gives=signed_pb2.Acknowledgement,
        refusals=_MONEY,
    ),
    "/v1/requests/{number}/prompt": _Call(
        does="Bring the sealed prompt of an open on-chain request.",
        takes=gateway_pb2.PromptCall,
        status=202,
        refusals=(400, 404, 413, 429, 503),
    ),
    "/v1/channels/state": _Call(
        does="Read a channel's last voucher and its acknowledgement; empty before the first payment.",
        takes=gateway_pb2.ChannelStateCall,
        gives=gateway_pb2.ChannelState,
        refusals=(400, 413, 421, 429, 503),
    ),
    "/v1/models": _Call(
        does="List what live workers offer, and without terms what has no worker now.",
        gives=gateway_pb2.ModelListing,
        refusals=(404, 429, 503),
    ),
    "/v1/manifests/{id}": _Call(does="Read a model's manifest.", gives=_JSON, refusals=(400, 404, 429)),
    "/v1/files/{id}": _Call(
        does="Read a tokenizer or chat template by its keccak256.", gives=_BYTES, refusals=(400, 404, 429)
    ),
    "/v1/receipts/{channel}/{index}": _Call(
        does="Read a channel's ended jobs from a place on, at most 100; ask again until none comes.",
        gives=gateway_pb2.ReceiptListing,
        refusals=(400, 404, 421, 429, 503),
    ),
    "/health": _Call(does="Say whether the broker answers: 503 with the same body when it does not.", gives=_JSON),
    "/metrics": _Call(does="Read counters and gauges for Prometheus.", gives=_TEXT),
    PATH: _Call(does="Read this document.", gives=_JSON),
}
_HASH: Json = {"type": "string", "pattern": "^(0x)?[0-9a-fA-F]{64}$"}
_NUMBER: Json = {"type": "integer", "minimum": 0, "maximum": (1 << 32) - 1}
_NUMBERS = ("number", "index")


def with_document(routes: Sequence[Route]) -> list[Route]:
    """Return the routes and the one that describes them all; raise `KeyError` for one that nothing is said of."""
    page: Json = {}

    async def openapi(_: Request) -> Response:
        return JSONResponse(page)

    every = [*routes, Route(PATH, openapi, methods=["GET"])]
    page.update(document(every))
    return every


def document(routes: Sequence[Route]) -> Json:
    """Return the document of these routes; raise `KeyError` for one that nothing is said of."""
    messages = {call.takes for call in _CALLS.values()} | {call.gives for call in _CALLS.values()}
    shapes: dict[str, Json] = {}
    for each in (gateway_pb2.ResultEvent, signed_pb2.Fault, *messages):
        if isinstance(each, type):
            _add(shapes, each.DESCRIPTOR)  # pyright: ignore[reportArgumentType] two names of one class
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "plait gateway",
            "version": version("plait"),
            "description": "Bodies are protobuf messages; docs/protocol.md, section 8, says what they mean.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {route.path: _path(route) for route in routes},
        "components": {"schemas": dict(sorted(shapes.items()))},
    }


def _path(route: Route) -> Json:
    call = _CALLS[route.path]
    names: list[str] = re.findall(r"\{(\w+)\}", route.path)
    inside = [_parameter(name, "path", _NUMBER if name in _NUMBERS else _HASH, "") for name in names]
    asked = [_parameter(name, "query", _NUMBER, text) for name, text in call.query.items()]
    made: Json = {
        "operationId": "_".join(part for part in re.split(r"\W+", route.path.replace("/v1/", "")) if part),
        "summary": call.does,
        "responses": dict(_responses(route.path, call)),
    }
    if inside or asked:
        made["parameters"] = inside + asked
    if call.takes is not None:
        made["requestBody"] = {"required": True, "content": _protobuf(call.takes)}
    return {method.lower(): made for method in sorted(route.methods or ()) if method != "HEAD"}


def _parameter(name: str, where: str, shape: Json, text: str) -> Json:
    made: Json = {"name": name, "in": where, "required": where == "path", "schema": shape}
    return made | {"description": text} if text else made


def _responses(path: str, call: _Call) -> Iterator[tuple[str, Json]]:
    done: Json = {"description": "Done."}
    if isinstance(call.gives, str):
        content: Json = {call.gives: {"schema": {"type": "object"} if call.gives == _JSON else {"type": "string"}}}
    else:
        content = _protobuf(call.gives)
    if call.gives:
        done["content"] = content
    if call.headers:
        done["headers"] = {
            name: {"description": text, "schema": {"type": "integer"}} for name, text in call.headers.items()
        }
    yield str(call.status), done
    if path == "/health":
        yield "503", done | {"description": "The broker does not answer."}
    for status in call.refusals:
        yield str(status), _refusal(status)
    if call.refusals:
        yield "default", {"description": "The gateway failed.", "content": _protobuf(signed_pb2.Fault)}


def _refusal(status: int) -> Json:
    made: Json = {"description": _WHY[status], "content": _protobuf(signed_pb2.Fault)}
    if status in {410, 421, 429, 503}:
        header = {"description": "Seconds after which the same call may help.", "schema": {"type": "integer"}}
        made["headers"] = {"Retry-After": header}
    return made


def _protobuf(kind: type[Message]) -> Json:
    inside = {"$ref": f"#/components/schemas/{kind.DESCRIPTOR.name}"}
    return {PROTOBUF: {"schema": {"type": "string", "contentMediaType": PROTOBUF, "contentSchema": inside}}}


def _add(shapes: dict[str, Json], shape: Descriptor) -> None:
    """Add a message and all that it holds."""
    if shape.name in shapes:
        return
    made: Json = {"type": "object", "properties": {}}
    shapes[shape.name] = made
    for spec in shape.fields:
        item = _field(spec)
        if spec.message_type is not None:
            _add(shapes, spec.message_type)
        made["properties"][spec.name] = {"type": "array", "items": item} if spec.is_repeated else item


def _field(spec: FieldDescriptor) -> Json:
    if spec.message_type is not None:
        return {"$ref": f"#/components/schemas/{spec.message_type.name}"}
    shape: Json = {
        FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
        FieldDescriptor.TYPE_STRING: {"type": "string"},
        FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
        FieldDescriptor.TYPE_UINT32: _NUMBER,
        FieldDescriptor.TYPE_UINT64: {"type": "integer", "minimum": 0, "maximum": (1 << 64) - 1},
    }[spec.type]
    return shape | {"x-protobuf-field": spec.number}
