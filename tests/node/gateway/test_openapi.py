"""The document of the gateway's HTTP face: in step with the routes, whole, and true of the gateway that runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route
from tests.fuzz.gateway import Bench, Json
from tests.node.gateway.stand import fault

from plait.protocol.pb import gateway_pb2, signed_pb2
from plait_node.gateway import make_app
from plait_node.gateway.http import _Face
from plait_node.gateway.openapi import PROTOBUF, document, with_document


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def app() -> Starlette:
    return make_app(SimpleNamespace(clock=lambda: 0.0))  # type: ignore[arg-type]


def operations(described: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            yield path, method, told


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from references(each)


def test_document_has_every_route_of_the_gateway_and_no_other() -> None:
    routes = {
        (route.path, method)
        for route in app().routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, method.upper()) for path, method, _ in operations(document(app().routes))}  # type: ignore[arg-type]
    assert described == routes


def test_route_that_nothing_is_said_of_keeps_the_gateway_from_starting() -> None:
    with pytest.raises(KeyError, match="/v1/unsaid"):
        with_document([Route("/v1/unsaid", _Face.health, methods=["GET"])])


def test_document_is_served_as_it_was_made(bench: Bench) -> None:
    response = bench.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == document(app().routes)  # type: ignore[arg-type]
    assert bench.document["openapi"].startswith("3.1.")


def test_document_names_every_operation_once_and_every_place_in_its_path(bench: Bench) -> None:
    found = list(operations(bench.document))
    assert len({told["operationId"] for _, _, told in found}) == len(found)
    for path, _, told in found:
        places = [each["name"] for each in told.get("parameters", ()) if each["in"] == "path"]
        assert places == re.findall(r"\{(\w+)\}", path)
        assert all(each["required"] is (each["in"] == "path") for each in told.get("parameters", ()))
        assert told["summary"]
        assert all(answer["description"] for answer in told["responses"].values())


def test_document_holds_every_message_that_it_refers_to_with_its_fields(bench: Bench) -> None:
    shapes = bench.document["components"]["schemas"]
    assert {each.rpartition("/")[2] for each in references(bench.document)} <= set(shapes)
    for name, shape in shapes.items():
        kind = getattr(gateway_pb2, name, None) or getattr(signed_pb2, name)
        assert set(shape["properties"]) == {field.name for field in kind.DESCRIPTOR.fields}
    numbered = {name: told["x-protobuf-field"] for name, told in shapes["QuoteCall"]["properties"].items()}
    assert numbered == {"model": 1}


def test_document_describes_each_body_as_protobuf(bench: Bench) -> None:
    for path, method, told in operations(bench.document):
        if method == "post":
            shape = told["requestBody"]["content"][PROTOBUF]["schema"]
            assert shape["contentSchema"]["$ref"].endswith("Call"), path


_SETTINGS = settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def test_every_documented_call_with_any_body_answers_as_documented(bench: Bench) -> None:
    """The calls with changed messages are among the targets of tests/fuzz; here every call gets bodies of its own."""
    tried: set[int] = set()

    @_SETTINGS
    @given(number=st.integers(0, len(bench.calls) - 1), how=st.integers(0, 255), body=st.binary(max_size=2_000))
    def run(number: int, how: int, body: bytes) -> None:
        tried.add(number)
        bench.run(bytes([number, how]) + body)

    run()
    assert tried == set(range(len(bench.calls)))


def test_right_calls_are_answered_as_documented_and_honest_ones_still_served(bench: Bench) -> None:
    for seed in bench.seeds():
        bench.run(seed)
    done = {name for name, status in bench.statuses if status < 300}
    every = {told["operationId"] for _, _, told in operations(bench.document)}
    # The one call that no seed gets right is the prompt of a request on a chain that is not there.
    assert every - done == {"requests_number_prompt"}
    response = bench.call("POST", "/v1/jobs", bench.asked.call.SerializeToString())
    assert response.status_code == 200, fault(response)


def test_body_above_the_limit_is_refused_as_documented(bench: Bench) -> None:
    for path, method, told in operations(bench.document):
        if method == "post":
            place = re.sub(r"\{number\}", "7", re.sub(r"\{request\}", "0x" + "11" * 32, path))
            response = bench.call("POST", place, bytes(1 << 20))
            assert (response.status_code, fault(response).code) == (413, "too_large")
            assert "413" in told["responses"]
