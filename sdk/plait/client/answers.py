"""What the client returns: shaped like the OpenAI SDK's objects, with proof and price beside the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from plait.protocol.choice import ChoiceNote
from plait.protocol.ids import to_hex
from plait.protocol.messages import Finish, Job, Receipt
from plait.protocol.typed import Signed, struct_hash
from plait.protocol.verify import Verification

FinishReason = Literal["stop", "length", "cancelled"]
FINISH_REASONS: dict[int, FinishReason] = {
    Finish.STOP: "stop",
    Finish.LENGTH: "length",
    Finish.STOP_STRING: "stop",
    Finish.CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens counted by the client itself; the end token counts."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Return both together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCompletionMessage:
    """The answer's text."""

    role: str = "assistant"
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The one answer of a completion."""

    index: int = 0
    message: ChatCompletionMessage
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteStage:
    """Who computed blocks [first, last); price in base units per 1,000,000 steps x blocks."""

    node: str
    first: int
    last: int
    price: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """How an answer was made: the last attempt's route and method, and why the worker chose it."""

    id: str
    attempt: int
    worker: str
    route: tuple[RouteStage, ...]
    profile: str
    method: str
    amounts: Mapping[str, int] = field(hash=False)
    predicted: Mapping[str, float] = field(hash=False)
    reason: str

    @classmethod
    def of(cls, job: Job, note: ChoiceNote | None) -> JobInfo:
        """Return a job record with the note that explained it."""
        stages = (
            RouteStage(node=to_hex(each.node), first=each.first, last=each.last, price=each.price) for each in job.route
        )
        return cls(
            id=to_hex(struct_hash(job)),
            attempt=job.attempt,
            worker=to_hex(job.worker),
            route=tuple(stages),
            profile=to_hex(job.profile),
            method=note.method if note else "",
            amounts=note.amounts if note else {},
            predicted=note.predicted if note else {},
            reason=note.reason if note else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCompletion:
    """A whole, checked answer. `id` is the request's; amounts in base units."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    receipt: Receipt
    signed_receipt: Signed[Receipt]
    verification: Verification
    job: JobInfo
    gateway: str
    paid: int
    acknowledged: bool  # False: the gateway did not confirm the last payment yet; the next call repeats it


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceDelta:
    """What a chunk adds."""

    role: str | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkChoice:
    """The one choice of a chunk."""

    index: int = 0
    delta: ChoiceDelta
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCompletionChunk:
    """A piece of an answer; the last one carries finish reason and usage."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that staked gateways serve now."""

    id: str
    name: str
    gateways: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """What became of a job. `final` and `claimed` were checked against the chain; amounts in base units."""

    id: str
    status: Literal["open", "signed", "claimed", "final"]
    ended: Literal["receipt", "aborted"] | None
    paid: int
    receipt: str | None  # digest
    transaction: str | None
    block: int | None
    gas_used: int | None
    gateway: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, amounts as decimal strings."""
        return {**asdict(self), "paid": str(self.paid)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as the chain has it; stake and reputation in base units."""

    owner: str
    roles: tuple[str, ...]
    endpoint: str
    stake: int
    active: bool
    jailed: bool
    reputation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChainAnswer:
    """What a node answered in a transaction; `receipt` is the digest it committed to."""

    request: int
    content: str
    ids: tuple[int, ...]
    receipt: str
    transaction: str
    gas_used: int
