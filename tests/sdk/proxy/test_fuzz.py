"""Whatever bodies come in: a refusal with its envelope or an answer, never a 500, and books that stay right."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sdk.client.fakes import World
from tests.sdk.client.test_ask import CHAT
from tests.sdk.proxy.stand import WIDE, brief

from plait import AsyncPlait
from plait.proxy import Access, Desk, Limits, ParameterError, Spending, make_app
from plait.proxy.asked import read_chat, read_completion
from plait.proxy.fields import IGNORED, NEUTRAL

_SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream", "stream_options")
_FIELDS = ("model", "messages", "prompt", "role", "content", "type", "text", *_SAMPLING, *IGNORED, *NEUTRAL)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["tiny", "user", "text", "auto", "none", "\N{REPLACEMENT CHARACTER}", "<|im_end|>"])
)
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_FIELDS) | st.text(max_size=6), inner),
    max_leaves=12,
)
_TEXT = st.text(max_size=20)
_PART = st.fixed_dictionaries({"type": st.just("text"), "text": _TEXT})
_ROLES = st.sampled_from(["system", "developer", "user", "assistant"])
_MESSAGE = st.fixed_dictionaries({"role": _ROLES, "content": _TEXT | st.lists(_PART, max_size=3)})
_USUAL: dict[str, st.SearchStrategy[object]] = {
    "max_tokens": st.integers(1, 20),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(0, 50),
    "seed": st.integers(-(1 << 63), (1 << 63) - 1),
    "stop": st.text(min_size=1, max_size=5) | st.lists(st.text(min_size=1, max_size=5), max_size=4),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    **dict.fromkeys(IGNORED, _LEAVES),
    **{name: st.sampled_from(values) for name, values in NEUTRAL.items() if values},
}
_ASKS = {
    "/v1/chat/completions": {"messages": st.lists(_MESSAGE, min_size=1, max_size=3)},
    "/v1/completions": {"prompt": st.text(min_size=1, max_size=20) | st.lists(st.integers(0, 257), min_size=1)},
}
_PATHS = st.sampled_from(list(_ASKS))
_NOTHING: st.SearchStrategy[dict[str, object]] = st.just({})
_CHANGE = _NOTHING | _NOTHING | st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=2)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, object]]:
    """Return a path and a body: one that can be answered, in every third case with fields of any value in it."""
    path = draw(_PATHS)
    some = draw(st.lists(st.sampled_from(list(_USUAL)), max_size=6, unique=True))
    body = {"model": "tiny", "max_tokens": 9} | {name: draw(_USUAL[name]) for name in some}
    return path, body | {name: draw(each) for name, each in _ASKS[path].items()} | draw(_CHANGE)


_HEALTH = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
_SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=_HEALTH)


class Bench:
    """One proxy and one loop for all examples of a test."""

    def __init__(self, world: World, limits: Limits = WIDE) -> None:
        world.gateway.script = brief
        self.loop = asyncio.new_event_loop()
        self.client: AsyncPlait = world.client()
        self.spending = Spending(limits)
        self.desk = Desk(self.client, self.spending)
        self.loop.run_until_complete(self.desk.open())
        transport = httpx.ASGITransport(app=make_app(self.desk, Access()))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=20)

    def post(self, path: str, body: bytes) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return self.loop.run_until_complete(self.http.post(path, content=body, headers=headers))

    def close(self) -> None:
        for work in (self.http.aclose(), self.desk.close(), self.client.close()):
            self.loop.run_until_complete(work)
        self.loop.close()


def check(response: httpx.Response) -> None:
    """Raise unless this is an answer, or a refusal that the caller can mend."""
    if response.headers["content-type"].startswith("text/event-stream"):
        assert response.text.endswith("data: [DONE]\n\n")
    elif response.status_code == 200:
        assert response.json()["choices"][0]["finish_reason"] in ("stop", "length")
    else:
        assert response.status_code < 500, response.text
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_random_bytes_never_fail_the_proxy(world: World) -> None:
    bench = Bench(world)

    @_SETTINGS
    @given(path=_PATHS, body=st.binary(max_size=500))
    def run(path: str, body: bytes) -> None:
        check(bench.post(path, body))

    try:
        run()
    finally:
        bench.close()


def test_calls_with_any_fields_never_fail_the_proxy(world: World) -> None:
    bench = Bench(world)

    @_SETTINGS
    @given(call=calls())
    def run(call: tuple[str, dict[str, object]]) -> None:
        path, body = call
        check(bench.post(path, json.dumps(body).encode()))
        assert bench.spending.held == 0

    try:
        run()
        body = {"model": "tiny", "messages": CHAT, "max_tokens": 100}
        assert bench.post("/v1/chat/completions", json.dumps(body).encode()).status_code == 200
    finally:
        bench.close()


@settings(max_examples=1_000, deadline=None)
@given(body=_JSON | calls().map(lambda call: call[1]))
def test_any_json_is_read_or_refused_by_a_field(body: object) -> None:
    for read in (read_chat, read_completion):
        with suppress(ParameterError):
            read(body)
