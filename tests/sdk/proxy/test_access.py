"""Who may call the proxy, with what bodies, and how a refusal looks."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from tests.sdk.client.fakes import World
from tests.sdk.proxy.stand import BODY, proxied, told

from plait.errors import SettingsError
from plait.proxy import Access, serve
from plait.proxy.http import BODY_BYTES


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": "gpt-9"}, (404, "model_not_found", "model")),
        ({"n": 2}, (400, "unsupported_parameter", "n")),
        ({"max_tokens": 513}, (400, "context_length_exceeded", None)),
        ({"messages": [{"role": "user", "content": "x" * 1_024}]}, (400, "context_length_exceeded", None)),
        ({"temperature": -1}, (400, "invalid_value", "temperature")),
    ],
)
async def test_refusals_say_which_field_and_sign_nothing(
    world: World, change: dict[str, object], expected: tuple[int, str, str | None]
) -> None:
    async with world.client() as client, proxied(client) as there:
        response = await there.http.post("/v1/chat/completions", json={**BODY, **change})
        assert told(response) == expected
        assert response.json()["error"]["type"] == "invalid_request_error"
    assert world.gateway.payments == []


async def test_completion_of_no_token_or_of_foreign_ids_is_refused(world: World) -> None:
    async with world.client() as client, proxied(client) as there:
        for prompt in ("", [258], [-1], [1 << 70]):
            response = await there.http.post("/v1/completions", json={"model": "tiny", "prompt": prompt})
            assert told(response) == (400, "invalid_value", "prompt")


async def test_paths_and_methods_that_are_not_served_are_told_apart(world: World) -> None:
    async with world.client() as client, proxied(client) as there:
        assert told(await there.http.post("/v1/embeddings", json={})) == (404, "no_such_call", None)
        assert told(await there.http.post("/v1/chat/completions/", json=BODY)) == (404, "no_such_call", None)
        assert told(await there.http.get("/v1/chat/completions")) == (405, "no_such_call", None)
        assert (await there.http.get("/health")).json() == {"status": "ok"}


async def test_bodies_too_large_or_no_json_are_refused(world: World) -> None:
    kind = {"content-type": "application/json"}
    async with world.client() as client, proxied(client) as there:
        post = there.http.post
        large = await post("/v1/chat/completions", content=b" " * (BODY_BYTES + 1), headers=kind)
        assert told(large) == (413, "invalid_body", None)
        assert told(await post("/v1/chat/completions", content=b"{", headers=kind)) == (400, "invalid_body", None)
        form = await post("/v1/chat/completions", content=b"{}")
        assert told(form) == (415, "invalid_body", None)


async def test_body_that_does_not_come_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.proxy.http.BODY_PATIENCE_S", 0.1)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    async with world.client() as client, proxied(client) as there:
        port = httpx.URL(there.url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"Content-Length: 9\r\n\r\n{")
        async with asyncio.timeout(30):
            assert b" 408 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8780"},
        {"host": ""},
        {"host": "localhost.evil.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_calls_of_web_pages_are_refused_before_anything_is_read(world: World, headers: dict[str, str]) -> None:
    async with world.client() as client, proxied(client) as there:
        for method, path in (("POST", "/v1/chat/completions"), ("GET", "/spending"), ("OPTIONS", "/v1/models")):
            response = await there.http.request(method, path, headers=headers)
            assert told(response) == (403, "forbidden", None)
            assert not any(name.startswith("access-control") for name in response.headers)
    assert world.gateway.jobs == {}


async def test_calls_to_this_machines_names_pass(world: World) -> None:
    access = Access(hosts=frozenset({"box.lan"}))
    async with world.client() as client, proxied(client, access=access) as there:
        for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8780", "[::1]:8780", "192.168.1.7", "box.lan:80"):
            assert (await there.http.get("/spending", headers={"host": host})).status_code == 200
        same = {"host": "localhost:8780", "origin": "http://localhost:8780", "sec-fetch-site": "same-origin"}
        assert (await there.http.get("/spending", headers=same)).status_code == 200


async def test_key_is_asked_for_where_one_is_set(world: World) -> None:
    async with world.client() as client, proxied(client, access=Access(key="s3cret")) as there:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret"}):
            assert told(await there.http.get("/v1/models", headers=headers)) == (401, "invalid_api_key", None)
        right = {"authorization": "Bearer s3cret"}
        assert (await there.http.get("/v1/models", headers=right)).status_code == 200


async def test_port_that_is_taken_says_so(world: World) -> None:
    async with world.client() as client, proxied(client) as there:
        port = httpx.URL(there.url).port
        with pytest.raises(SettingsError, match="name another --port"):
            await serve(there.desk, Access(), host="127.0.0.1", port=port)
