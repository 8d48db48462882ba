"""What the roles see of a broker: jobs to groups, results to gateways, payments and prompts to workers, their offers.

Delivery is at least once; every publisher names its message, so a retry is dropped by the broker. Readers of results
and payments name the sequence they have seen, so nothing is lost between two connections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from plait.protocol.pb import gateway_pb2, signed_pb2
from plait_node.broker.leases import Shared

# One message of any kind, in bytes: PROTOCOL section 8 limits a gateway's body to 900 KiB.
MESSAGE_LIMIT = 1_000_000
# Deliveries of one job before it is put among the dead letters. A worker that a quote does not name gives a job back.
MAX_DELIVERIES = 8
# A lower number is served first.
PRIORITIES: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One event of an answer, with its place in the broker's stream."""

    sequence: int
    worker: bytes
    event: gateway_pb2.ResultEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One payment or cancellation for a worker, with its place in the broker's stream."""

    sequence: int
    notice: gateway_pb2.PayNotice


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """One acknowledgement by a worker of a forwarded payment, with its place in the broker's stream."""

    sequence: int
    ack: signed_pb2.Acknowledgement


@dataclass(frozen=True, slots=True, kw_only=True)
class BroughtPrompt:
    """One delivery of an on-chain request's prompt, with its place in the broker's stream."""

    sequence: int
    call: gateway_pb2.PromptCall


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A job that no worker could take, kept for the operator."""

    group: bytes
    priority: int
    request: bytes
    deliveries: int  # how often it was handed out, before it was queued again too
    reason: str
    call: gateway_pb2.JobCall
    sequence: int = 0  # its place in the broker's stream
    at: str = ""  # when it was given up, as the broker's clock had it


class Delivery(Protocol):
    """One job in a worker's hands, until it is acknowledged or its time is over."""

    @property
    def call(self) -> gateway_pb2.JobCall:
        """The job as the gateway published it."""
        ...

    @property
    def request(self) -> bytes:
        """The request's digest, as the gateway named the message."""
        ...

    @property
    def deliveries(self) -> int:
        """How often this job was handed out, this time included."""
        ...

    async def extend(self) -> None:
        """Say that the job is still being worked on."""
        ...

    def working(self) -> AbstractAsyncContextManager[None]:
        """Extend in the background for as long as the block runs."""
        ...

    async def ack(self) -> None:
        """End the delivery for good."""
        ...

    async def nak(self, *, delay_s: float = 0.0) -> None:
        """Give the job back to the group."""
        ...

    async def dead(self, reason: str) -> None:
        """Put the job among the dead letters and end the delivery."""
        ...


class Broker(Protocol):
    """Everything the roles ask of a broker. Owners are 20 bytes, requests 32, groups 8."""

    @property
    def shared(self) -> Shared:
        """What the gateways of one owner share."""
        ...

    async def publish_job(self, group: bytes, priority: int, call: gateway_pb2.JobCall, *, request: bytes) -> bool:
        """Hand a job to a group; return False when this request was published before."""
        ...

    def jobs(self, group: bytes) -> AsyncIterator[Delivery]:
        """Yield jobs for a worker of this group in `Turns`' order; close the iterator to stop."""
        ...

    async def backlog(self, group: bytes) -> int:
        """Count the jobs of a group that are waiting or running."""
        ...

    async def turnover(self, group: bytes) -> int:
        """Count the deliveries of a group's jobs that ended, ever: only how it grows means something."""
        ...

    async def publish_result(
        self, gateway: bytes, request: bytes, worker: bytes, event: gateway_pb2.ResultEvent, *, key: str
    ) -> None:
        """Append an event of an answer; `key` names it within this request and worker, so a retry cannot double it."""
        ...

    def results(self, gateway: bytes, request: bytes, *, after: int = 0) -> AsyncIterator[Result]:
        """Yield what workers published for a request after a sequence, then wait for more, without end."""
        ...

    async def forget_results(self, gateway: bytes, request: bytes) -> None:
        """Drop an answer that was delivered and paid."""
        ...

    async def publish_pay(
        self, worker: bytes, request: bytes, notice: gateway_pb2.PayNotice, *, key: str, last: bool = False
    ) -> None:
        """Forward a payment or a cancellation to the worker of a request.

        The `last` one takes the place of those before it, and is kept for two minutes.
        """
        ...

    def payments(self, worker: bytes, request: bytes, *, after: int = 0) -> AsyncIterator[Notice]:
        """Yield payments for a request after a sequence, then wait for more, without end."""
        ...

    async def publish_ack(self, gateway: bytes, request: bytes, ack: signed_pb2.Acknowledgement, *, key: str) -> None:
        """Tell the gateway that its forwarded payment was journaled."""
        ...

    def acks(self, gateway: bytes, request: bytes, *, after: int = 0) -> AsyncIterator[Acknowledged]:
        """Yield a worker's acknowledgements after a sequence, then wait for more, without end."""
        ...

    async def offer(self, worker: bytes, model: bytes, offer: gateway_pb2.WorkerOffer, *, group: bytes) -> None:
        """Put what this worker offers for a model in a group, for `OFFER_LIFE_S` seconds."""
        ...

    async def withdraw_offer(self, worker: bytes, model: bytes, *, group: bytes) -> None:
        """Take this worker's offer for a model in a group back."""
        ...

    async def offers(self) -> list[gateway_pb2.WorkerOffer]:
        """Return every live offer, unchecked: the reader verifies signatures."""
        ...

    async def bring_prompt(self, request: bytes, call: gateway_pb2.PromptCall) -> None:
        """Keep a delivery of an on-chain request's prompt for `PROMPT_LIFE_S` seconds, among the newest few."""
        ...

    async def prompts(self, request: bytes, *, after: int = 0) -> list[BroughtPrompt]:
        """Return what was delivered for a request after a sequence, oldest first, unchecked: anyone may deliver."""
        ...

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the jobs that were given up."""
        ...

    async def close(self) -> None:
        """Give back what was fetched and not yielded, and disconnect."""
        ...


# A worker puts its offer again every 15 s; one that stops is gone from quotes within this time.
OFFER_LIFE_S = 60.0
# An on-chain request lives an hour at most.
PROMPT_LIFE_S = 3_600.0
# Newest deliveries kept of one request. The gateway cannot tell a fitting one from garbage, so neither the first nor
# the last may win: the worker looks every second, and tries more than one address can bring in that time.
PROMPTS_KEPT = 32


def given_up(request: bytes, reason: str) -> gateway_pb2.ResultEvent:
    """Return the event that ends an answer which no worker could give."""
    text = f"no worker finished this job ({reason}); send a new request"
    fault = signed_pb2.Fault(code="job_given_up", text=text, retry=True, moved=False)
    return gateway_pb2.ResultEvent(request=request, error=fault)
