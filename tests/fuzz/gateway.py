"""The target that calls a running gateway, as its own document says that it can be called."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import httpx
from tests.fuzz.machine import Target
from tests.fuzz.shapes import varied
from tests.node.gateway.stand import CALL_S, Asked, Stand, fault
from tests.sdk.swarm import NOW

from plait.protocol import codec
from plait.protocol.ids import Hash, channel_id, to_hex
from plait.protocol.pb import gateway_pb2
from plait.protocol.sealing import PROMPT_BLOCK, TAG_BYTES

Json = dict[str, Any]
Call = tuple[str, str, Json]  # method, path, and what the document says of it


class Bench:
    """One gateway on one loop for all cases; a case is the call's number 1 byte, its places' count 1, and the body."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = TemporaryDirectory()
        self.stand = Stand(Path(self.folder.name), patient=True)
        self.running = self.stand.running()
        self.client: httpx.AsyncClient = self.loop.run_until_complete(self.running.__aenter__())
        self.document: Json = self.get("/openapi.json").json()
        self.calls: list[Call] = [
            (method, path, told)
            for path, methods in sorted(self.document["paths"].items())
            for method, told in sorted(methods.items())
        ]
        self.told: Asked = self.loop.run_until_complete(self._answered())
        self.asked: Asked = self.stand.ask(self.loop.run_until_complete(self.stand.quote(self.client)))
        self.vouchers = [each.payment.voucher for each in (self.told, self.asked)]
        self.made = 0
        self.statuses: set[tuple[str, int]] = set()

    async def _answered(self) -> Asked:
        """Ask for one answer and hear it to its end: whoever calls for its events again gets a stream that ends."""
        asked = await self.stand.submitted(self.client)
        await self.stand.work(asked)
        await self.stand.follow(self.client, asked)
        return asked

    def get(self, path: str) -> httpx.Response:
        return self.loop.run_until_complete(self.client.get(path))

    def call(self, method: str, path: str, body: bytes) -> httpx.Response:
        """Call, and read what comes at once: a stream of events that goes on is left."""
        return self.loop.run_until_complete(self._call(method, path, body))

    async def _call(self, method: str, path: str, body: bytes) -> httpx.Response:
        self.made += 1
        self.stand.now = float(NOW + self.made % 40)  # nobody is limited for long, and offers stay fresh
        async with asyncio.timeout(CALL_S):
            return await self.client.request(method, path, content=body)

    def run(self, data: bytes) -> bool:
        """Make one call of those that the document has; its answer is one that the document has, too."""
        data = data.ljust(2, b"\0")
        method, path, told = self.calls[data[0] % len(self.calls)]
        places, body = self._places(told, data[1], data[2:])
        for name, value in places.items():
            path = path.replace(f"{{{name}}}", quote(value, safe="") or "%20")
        response = self.call(method, path + self._query(told, data[1]), body)
        assert response.status_code < 500 or response.status_code == 503, fault(response)
        answer = told["responses"].get(str(response.status_code))
        assert answer is not None, f"{method} {path} answers {response.status_code}, which the document does not have"
        self._check(answer, response)
        state = self.stand.book.state(self.stand.payer.payer, self.stand.payer.signer)
        assert state is not None
        assert state.voucher in self.vouchers, "money moved that its payer had not signed for"
        self.statuses.add((told["operationId"], response.status_code))
        return response.status_code < 300

    def seeds(self) -> list[bytes]:
        """Return every call with every kind of body: right ones where they are at home, and elsewhere."""
        payment = codec.payment_to_pb(self.asked.payment)
        model, payer = self.stand.swarm.manifest.model_id, self.stand.payer
        bodies = [
            b"",
            self.asked.call.SerializeToString(),
            self.told.call.SerializeToString(),
            gateway_pb2.QuoteCall(model=model).SerializeToString(),
            gateway_pb2.VoucherCall(payment=payment).SerializeToString(),
            gateway_pb2.ChannelStateCall(payer=payer.payer, signer=payer.signer).SerializeToString(),
            self.stand.resume(self.told),
            self.stand.cancel(self.told),
            self._prompt(),
        ]
        heads = [bytes([number, how]) for number in range(len(self.calls)) for how in (0, 1, 2, 4, 62)]
        return [head + body for head in heads for body in bodies]

    def _prompt(self) -> bytes:
        capsule = gateway_pb2.PromptCapsule(node=bytes(20), prekey=bytes(32), sealed=bytes(80))
        made = gateway_pb2.PromptCall(request=bytes(32), capsules=[capsule], prompt=bytes(TAG_BYTES + PROMPT_BLOCK))
        return made.SerializeToString()

    def close(self) -> None:
        """Stop the gateway."""
        self.loop.run_until_complete(self.running.__aexit__(None, None, None))
        self.stand.payer._journal.close()
        self.loop.close()
        self.folder.cleanup()

    def _places(self, told: Json, how: int, body: bytes) -> tuple[dict[str, str], bytes]:
        """Return what stands in the path: of its own form, or the body's first bytes as text."""
        names = [each["name"] for each in told.get("parameters", ()) if each["in"] == "path"]
        if how % 3 == 2:
            size = how // 3 % 40
            return dict.fromkeys(names, body[:size].decode("latin-1")), body[size:]
        manifest, payer = self.stand.swarm.manifest, self.stand.payer
        right = {
            "id": manifest.tokenizer if told["operationId"] == "files_id" else manifest.model_id,
            "channel": channel_id(payer.payer, self.stand.me, payer.signer),
            "request": self.told.name,
        }
        forms = {name: to_hex(value if how % 3 else Hash(bytes(32))) for name, value in right.items()}
        forms |= {"number": str(how), "index": str(how // 3)}
        return {name: forms[name] for name in names}, body

    def _query(self, told: Json, how: int) -> str:
        names = [each["name"] for each in told.get("parameters", ()) if each["in"] == "query"]
        values = ("7", "-1", "", "9" * 12, "4294967295", "x")
        return "?" + "&".join(f"{name}={values[how % len(values)]}" for name in names) if names and how % 2 else ""

    def _check(self, answer: Json, response: httpx.Response) -> None:
        kind = response.headers.get("content-type", "").partition(";")[0]
        assert kind in answer.get("content", {"": None}) or not response.content
        if response.status_code >= 400 and kind == "application/x-protobuf":
            assert fault(response).code
        if "Retry-After" in response.headers:
            assert "Retry-After" in answer["headers"]
            assert int(response.headers["Retry-After"]) > 0


class Lazy:
    """Opens the bench with its first case: whoever lists the targets starts no gateway."""

    def __init__(self) -> None:
        self._bench: Bench | None = None

    @property
    def bench(self) -> Bench:
        if self._bench is None:
            self._bench = Bench()
        return self._bench

    def run(self, data: bytes) -> bool:
        return self.bench.run(data)

    def seeds(self) -> list[bytes]:
        return self.bench.seeds()

    def vary(self, data: bytes, place: int, piece: bytes) -> bytes:
        _, _, told = self.bench.calls[data[0] % len(self.bench.calls)]
        content = told.get("requestBody", {}).get("content", {})
        if not content:
            return data
        name = content["application/x-protobuf"]["schema"]["contentSchema"]["$ref"].rpartition("/")[2]
        return data[:2] + varied(getattr(gateway_pb2, name), data[2:], place, piece)

    def close(self) -> None:
        if self._bench is not None:
            self._bench.close()
            self._bench = None


def targets() -> list[Target]:
    """Return the target that calls a gateway."""
    lazy = Lazy()
    return [
        Target(
            name="gateway.http",
            run=lazy.run,
            seeds=lazy.seeds,
            share=75,
            vary=lazy.vary,
            peak=24 << 20,
            guided=False,
            close=lazy.close,
        )
    ]
