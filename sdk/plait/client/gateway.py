"""The gateways of one operator over HTTP. Nothing they say is believed here: callers check signatures and hashes."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx
from google.protobuf.message import Message as Proto

from plait.client.errors import GatewayAnswerError, GatewayDownError
from plait.client.sse import EventReader
from plait.protocol.codec import (
    Payment,
    amount_from,
    fault_from_pb,
    parse,
    payment_to_pb,
    receipt_leaf_from_pb,
    signed_from_pb,
    signed_to_pb,
)
from plait.protocol.errors import MalformedMessageError, PlaitError, RefusedError, error_from_fault
from plait.protocol.ids import Address, Hash, hash32, to_hex
from plait.protocol.messages import Ack, Cancel, Prekey, Quote, Request, Resume, Voucher
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait.protocol.receipts import ReceiptLeaf
from plait.protocol.typed import Signed

P = TypeVar("P", bound=Proto)
MakeRequest = Callable[[str], httpx.Request]

CALL_DEADLINE_S = 20.0
# A gateway sends a comment every 2 s. A worker waits 20 s for a payment, so one that froze is left well before that.
SILENCE_S = 8.0
MAX_REPLY_BYTES = 2 * 1_024 * 1_024
MAX_FILE_BYTES = 64 * 1_024 * 1_024
# What stands behind the gateway failed, its disk is full, it is going down, or the channel is at another one of its
# operator: it may have acted all the same, so the call is repeated.
AWAY = ("internal", "stopped", "broker_away", "journal_full", "other_gateway", "rpc", "chain", "reorg")
_TYPE = {"content-type": "application/x-protobuf"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """A payee's signed acceptance and the credit it keeps, in base units."""

    ack: Signed[Ack]
    credit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRequest:
    """All that a gateway needs to publish a request."""

    quote: Signed[Quote]
    request: Signed[Request]
    payment: Payment
    capsules: Sequence[tuple[Address, bytes]]
    prompt: bytes


class GatewayClient:
    """The HTTP face of an operator's gateways, known by its owner's address; calls go to the one at `url`.

    Each channel is at one of them at a time. One that does not answer, or says that it is at another, is left for the
    one it names if that is among `others` and `url`, as the chain has them, else for the next.
    """

    def __init__(self, owner: Address, url: str, http: httpx.AsyncClient, others: Sequence[str] = ()) -> None:
        self.owner = owner
        self.url = url
        self._faces = (url, *others)
        self._http = http

    async def models(self) -> dict[Hash, bool]:
        """Return the models it keeps, each with whether a worker serves it now."""
        data = await self._get("/v1/models", MAX_REPLY_BYTES)
        with self._checked("list of models"):
            listing = parse(gateway_pb2.ModelListing, data)
            return {hash32(each.model): bool(each.terms) for each in listing.models[:1_000]}

    async def ended(self, channel: Hash, count: int) -> list[ReceiptLeaf]:
        """Return the first `count` ended jobs of a channel as it publishes them, unchecked."""
        found: list[ReceiptLeaf] = []
        while len(found) < count:
            data = await self._get(f"/v1/receipts/{to_hex(channel)}/{len(found)}", MAX_REPLY_BYTES)
            with self._checked("list of receipts"):
                page = parse(gateway_pb2.ReceiptListing, data).entries
                found += [receipt_leaf_from_pb(each.leaf) for each in page]
            if not page:
                break
        return found[:count]

    async def manifest(self, model: Hash) -> bytes:
        """Return a manifest's bytes, unchecked."""
        return await self._get(f"/v1/manifests/{to_hex(model)}", MAX_REPLY_BYTES)

    async def file(self, name: Hash) -> bytes:
        """Return a file's bytes, unchecked."""
        return await self._get(f"/v1/files/{to_hex(name)}", MAX_FILE_BYTES)

    async def quote(
        self, model: Hash, *, input_tokens: int = 0, output_tokens: int = 0
    ) -> tuple[Signed[Quote], list[Signed[Prekey]]]:
        """Ask for a quote, for a job of this size; 0 for what is not known."""
        path = f"/v1/quotes?input={input_tokens}&output={output_tokens}"
        reply = await self._post(path, gateway_pb2.QuoteCall(model=model), gateway_pb2.QuoteReply)
        if len(reply.prekeys) > 64:
            raise GatewayAnswerError(self.url, "a quote comes with at most 64 prekeys")
        with self._checked("quote"):
            return signed_from_pb(reply.quote, Quote), [signed_from_pb(each, Prekey) for each in reply.prekeys]

    async def submit(self, sealed: SealedRequest) -> Acknowledged:
        """Hand over a request; the same one again changes nothing."""
        call = gateway_pb2.JobCall(
            quote=signed_to_pb(sealed.quote),
            request=signed_to_pb(sealed.request),
            payment=payment_to_pb(sealed.payment),
            capsules=[gateway_pb2.Capsule(node=node, sealed=capsule) for node, capsule in sealed.capsules],
            prompt=sealed.prompt,
        )
        return self._acknowledged((await self._post("/v1/jobs", call, gateway_pb2.JobReply)).ack)

    async def pay(self, payment: Payment) -> Acknowledged:
        """Hand over a payment; the same one again changes nothing."""
        call = gateway_pb2.VoucherCall(payment=payment_to_pb(payment))
        return self._acknowledged(await self._post("/v1/vouchers", call, signed_pb2.Acknowledgement))

    async def channel_state(self, payer: Address, signer: Address) -> Signed[Voucher] | None:
        """Return the last voucher it accepted on a channel."""
        call = gateway_pb2.ChannelStateCall(payer=payer, signer=signer)
        state = await self._post("/v1/channels/state", call, gateway_pb2.ChannelState)
        if not state.HasField("voucher"):
            return None
        with self._checked("channel state"):
            return signed_from_pb(state.voucher, Voucher)

    async def bring_prompt(self, number: int, call: gateway_pb2.PromptCall) -> None:
        """Hand over the sealed prompt of an on-chain request; the same one again changes nothing."""
        await self._body(self._post_request(f"/v1/requests/{number}/prompt", call))

    async def cancel(self, cancel: Signed[Cancel]) -> None:
        """Ask it to stop a job."""
        call = gateway_pb2.CancelCall(cancel=signed_to_pb(cancel))
        await self._body(self._post_request(f"/v1/jobs/{to_hex(cancel.message.request)}/cancel", call))

    async def events(self, resume: Signed[Resume]) -> AsyncGenerator[tuple[int, gateway_pb2.ResultEvent]]:
        """Yield (sequence, event) after the one the Resume names, until the gateway closes the stream."""
        call = gateway_pb2.EventsCall(resume=signed_to_pb(resume))
        make = self._post_request(f"/v1/jobs/{to_hex(resume.message.request)}/events", call, read_s=SILENCE_S)
        reader = EventReader()
        async with self._opened(make) as response:
            async for data in response.aiter_bytes():
                with self._checked("event stream"):
                    found = [(event.id, _result(event.data)) for event in reader.feed(data)]
                for each in found:
                    yield each

    async def _get(self, path: str, limit: int) -> bytes:
        return await self._body(lambda url: self._http.build_request("GET", url + path), limit)

    def _post_request(self, path: str, call: Proto, *, read_s: float = CALL_DEADLINE_S) -> MakeRequest:
        timeout = httpx.Timeout(CALL_DEADLINE_S, read=read_s)
        body = call.SerializeToString()
        return lambda url: self._http.build_request("POST", url + path, content=body, headers=_TYPE, timeout=timeout)

    async def _post(self, path: str, call: Proto, kind: type[P]) -> P:
        data = await self._body(self._post_request(path, call))
        with self._checked("reply"):
            return parse(kind, data)

    async def _body(self, make: MakeRequest, limit: int = MAX_REPLY_BYTES) -> bytes:
        left = len(self._faces)
        while True:
            url, left = self.url, left - 1
            deadline_s = SILENCE_S if left else CALL_DEADLINE_S  # every call may be made again, here or elsewhere
            try:
                async with asyncio.timeout(deadline_s), self._sent(make, url) as response:
                    return await self._read(response, limit)
            except TimeoutError:
                down = GatewayDownError(url, f"no whole reply within {deadline_s:.0f} s")
            except GatewayDownError as error:
                down = error
            self._turn_from(url, down.text)
            if not left:
                raise down

    @asynccontextmanager
    async def _opened(self, make: MakeRequest) -> AsyncGenerator[httpx.Response]:
        """Open a stream at the gateway that has it; one that breaks later is the caller's to resume."""
        async with AsyncExitStack() as stack:
            left, url, response = len(self._faces), self.url, None
            while response is None:
                url, left = self.url, left - 1
                try:
                    response = await stack.enter_async_context(self._sent(make, url))
                except GatewayDownError as error:
                    self._turn_from(url, error.text)
                    if not left:
                        raise
            try:
                yield response
            except httpx.HTTPError:
                self._turn_from(url, "")
                raise

    def _turn_from(self, url: str, why: str) -> None:
        """Speak to another gateway than the one at `url` from now on, unless another call turned away already."""
        if self.url == url:
            following = self._faces[(self._faces.index(url) + 1) % len(self._faces)]
            words = why.split()
            self.url = next((face for face in self._faces if face != url and face in words), following)

    @asynccontextmanager
    async def _sent(self, make: MakeRequest, url: str) -> AsyncGenerator[httpx.Response]:
        try:
            response = await self._http.send(make(url), stream=True)
            try:
                if response.status_code >= 300:
                    raise await self._refusal(response, url)
                yield response
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise GatewayDownError(url, str(error) or type(error).__name__) from error

    async def _read(self, response: httpx.Response, limit: int) -> bytes:
        data = bytearray()
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > limit:
                raise GatewayAnswerError(self.url, f"a reply exceeds {limit} bytes")
        return bytes(data)

    async def _refusal(self, response: httpx.Response, url: str) -> PlaitError:
        data = await self._read(response, 64 * 1_024)
        try:
            fault = parse(signed_pb2.Fault, data)
        except MalformedMessageError:
            fault = signed_pb2.Fault()
        if not fault.code or fault.code.startswith(AWAY):
            error: PlaitError = GatewayDownError(url, fault_from_pb(fault).text or f"HTTP {response.status_code}")
        else:
            error = error_from_fault(fault_from_pb(fault))
        error.retry_after_s = _seconds(response.headers.get("retry-after", ""))
        return error

    def _acknowledged(self, received: signed_pb2.Acknowledgement) -> Acknowledged:
        with self._checked("acknowledgement"):
            credit = amount_from(received.credit) if received.credit else 0
            return Acknowledged(ack=signed_from_pb(received.ack, Ack), credit=credit)

    def _checked(self, what: str) -> _Checked:
        return _Checked(self.url, what)


class _Checked:
    """Turns malformed bytes into the gateway's fault."""

    def __init__(self, url: str, what: str) -> None:
        self._url, self._what = url, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, MalformedMessageError) and not isinstance(error, RefusedError):
            raise GatewayAnswerError(self._url, f"its {self._what} is malformed ({error.text})") from error


def _seconds(text: str) -> float:
    """Read a `Retry-After` of whole seconds, 0 for anything else."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def _result(data: str) -> gateway_pb2.ResultEvent:
    try:
        return parse(gateway_pb2.ResultEvent, base64.b64decode(data, validate=True))
    except binascii.Error as error:
        raise MalformedMessageError("an event's data is base64") from error
