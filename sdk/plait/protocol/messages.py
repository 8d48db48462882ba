"""Everything somebody signs, as frozen dataclasses named and ordered like docs/protocol.md section 3.

A message that exists is well formed: lengths, ranges and list limits are checked when it is made.
"""

# budget: one table of all messages
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address, Group, Hash

Uint8 = Annotated[int, "uint8"]
Uint16 = Annotated[int, "uint16"]
Uint32 = Annotated[int, "uint32"]
Uint64 = Annotated[int, "uint64"]
Amount = Annotated[int, "uint96"]  # base units of the token

MAX_WORKERS, MAX_PROFILES, MAX_STAGES, MAX_SEGMENTS = 8, 16, 64, 16
MAX_KEY_BYTES = 1_216  # ML-KEM-768 ‖ X25519


class Message:
    """The base of all messages; checks its fields when made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for field in layout(type(self)):
            field.check(getattr(self, field.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prekey(Message):
    """A worker's HPKE public key, at most a day's life; signed by the worker's service key."""

    node: Address
    kem: Uint16
    key: Annotated[bytes, MAX_KEY_BYTES]
    valid_from: Uint64
    expires: Uint64


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms(Message):
    """What a gateway asks under one profile."""

    profile: Hash
    input_price: Amount  # per 1,000,000 tokens
    output_price: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker(Message):
    """One worker of a quote's group."""

    node: Address
    prekey: Hash
    share: Uint32  # millionths of the payer's amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote(Message):
    """A gateway's offer; signed by the gateway's service key."""

    gateway: Address
    model: Hash
    group: Group
    terms: Annotated[tuple[Terms, ...], MAX_PROFILES]
    workers: Annotated[tuple[Worker, ...], MAX_WORKERS]
    max_input: Uint32
    max_output: Uint32
    expires: Uint64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling(Message):
    """How the next token is drawn."""

    temperature: Uint32  # millionths
    top_p: Uint32  # millionths
    top_k: Uint32  # a count, 0 = all
    stop: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Message):
    """What a payer asks for; signed by the channel's signer, its digest names the job everywhere."""

    payer: Address
    gateway: Address
    quote: Hash
    model: Hash
    profiles: Annotated[tuple[Hash, ...], MAX_PROFILES]
    prompt: Hash
    sampling: Sampling
    input_tokens: Uint32
    max_tokens: Uint32
    max_price: Amount
    seed: Hash
    nonce: Hash
    deadline: Uint64


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Message):
    """One node's blocks [first, last) in a route."""

    node: Address
    first: Uint16
    last: Uint16
    price: Amount  # per 1,000,000 steps x blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Message):
    """One attempt of a request over one route; signed by the worker's service key."""

    request: Hash
    attempt: Uint32
    worker: Address
    route: Annotated[tuple[Stage, ...], MAX_STAGES]
    profile: Hash
    choice: Hash
    start: Uint32
    row: Uint32
    tokens: Hash
    closes_at: Uint64


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf(Message):
    """One stage's commitment to one window; signed by the stage's service key."""

    job: Hash
    stage: Uint16
    window: Uint32
    start: Uint32
    count: Uint32
    in_root: Hash
    out_root: Hash
    up_leaf: Hash
    prev_leaf: Hash
    print: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Message):
    """How far an answer has come; signed by the worker's service key."""

    job: Hash
    to: Uint32
    tokens: Hash
    leaves: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Message):
    """The end of a request; signed by the worker's service key."""

    request: Hash
    segments: Annotated[tuple[Hash, ...], MAX_SEGMENTS]
    input_tokens: Uint32
    output_tokens: Uint32
    tokens: Hash
    price: Amount
    finish: Uint8  # one of Finish
    finished_at: Uint64
    closes_at: Uint64


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher(Message):
    """A payer's cumulative promise on one channel; signed by the channel's signer."""

    payer: Address
    payee: Address
    cumulative: Amount
    jobs: Uint32
    receipts_root: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Pay(Message):
    """What a voucher's growth is for; signed by the channel's signer."""

    request: Hash
    voucher: Hash
    amount: Amount
    to: Uint32


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack(Message):
    """A payee's acceptance of a voucher; signed by its service key."""

    voucher: Hash
    at: Uint64


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Message):
    """A payee's consent to end an exiting channel at once; signed by its service key."""

    payer: Address
    payee: Address
    signer: Address
    claimed: Amount
    exit_at: Uint32


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Message):
    """The envelope of a DHT record; signed by the node's service key."""

    kind: Uint8  # one of RecordKind
    topic: Hash
    node: Address
    sequence: Uint64
    expires: Uint64
    body: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Message):
    """One side's proof of itself on a new link; signed by the node's service key."""

    node: Address
    peer: Address
    dialer: bool
    certificate: Hash
    nonce: Hash
    peer_nonce: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Message):
    """A payer's wish to stop after `to` tokens; signed by the channel's signer."""

    request: Hash
    to: Uint32


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Message):
    """A payer's call for the events after a sequence number; signed by the channel's signer."""

    request: Hash
    after: Uint64
    expires: Uint64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch(Message):
    """A call for one window's rows, sealed to `reader`."""

    job: Hash
    stage: Uint16
    window: Uint32
    reader: Annotated[bytes, 32]
    expires: Uint64


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceKey(Message):
    """Signed by the key itself: proof of possession for `NodeRegistry.addServiceKey`."""

    owner: Address
    key: Address


class Finish:
    """Why an answer ended."""

    STOP, LENGTH, STOP_STRING, CANCELLED, FAILED = range(5)


class RecordKind:
    """What a DHT record's body holds."""

    NODE, JOB, RECEIPT = range(3)


MESSAGES: tuple[type[Message], ...] = (
    Prekey,
    Terms,
    Worker,
    Quote,
    Sampling,
    Request,
    Stage,
    Job,
    Leaf,
    Progress,
    Receipt,
    Voucher,
    Pay,
    Ack,
    Close,
    Record,
    Hello,
    Cancel,
    Resume,
    Fetch,
    ServiceKey,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a message: its Python name, its EIP-712 name and type, and how to check it."""

    name: str
    wire_name: str
    solidity: str  # without [] for lists
    is_list: bool
    struct: type[Message] | None
    check: Callable[[object], None]


@cache
def layout(kind: type[Message]) -> tuple[Field, ...]:
    """Return the fields of a message class in order."""
    hints = get_type_hints(kind, include_extras=True)
    names: list[str] = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType] every message is a dataclass
    return tuple(_field(kind.__name__, name, hints[name]) for name in names)


_FIXED: dict[Any, tuple[str, int]] = {Address: ("address", 20), Hash: ("bytes32", 32), Group: ("bytes8", 8)}


def _field(owner: str, name: str, hint: Any) -> Field:  # noqa: ANN401 type hints have no common type
    extra: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        extra = tuple(rest)
    is_list = get_origin(hint) is tuple
    item = get_args(hint)[0] if is_list else hint
    where = f"{owner}.{name}"
    struct: type[Message] | None = None
    if item is int:
        solidity, check = extra[0], _check_uint(where, int(extra[0][4:]))
    elif item is bool:
        solidity, check = "bool", _check_bool(where)
    elif item is bytes:
        solidity, check = "bytes", _check_size(where, 0, extra[0])
    elif item in _FIXED:
        solidity, size = _FIXED[item]
        check = _check_size(where, size, size)
    else:
        solidity, struct = item.__name__, item
        check = _check_struct(where, item)
    if is_list:
        check = _check_list(where, extra[0], check)
    head, *tail = name.split("_")
    wire_name = head + "".join(part.capitalize() for part in tail)
    return Field(name=name, wire_name=wire_name, solidity=solidity, is_list=is_list, struct=struct, check=check)


def _check_uint(where: str, bits: int) -> Callable[[object], None]:
    def check(value: object) -> None:
        if type(value) is not int or not 0 <= value < 1 << bits:
            raise MalformedMessageError(f"{where} is a whole number from 0 to 2^{bits} - 1, not {value!r}")

    return check


def _check_bool(where: str) -> Callable[[object], None]:
    def check(value: object) -> None:
        if type(value) is not bool:
            raise MalformedMessageError(f"{where} is true or false")

    return check


def _check_size(where: str, least: int, most: int) -> Callable[[object], None]:
    def check(value: object) -> None:
        if type(value) is not bytes or not least <= len(value) <= most:
            raise MalformedMessageError(f"{where} has {least} to {most} bytes")

    return check


def _check_struct(where: str, kind: type[Message]) -> Callable[[object], None]:
    def check(value: object) -> None:
        if type(value) is not kind:
            raise MalformedMessageError(f"{where} is a {kind.__name__}")

    return check


def _check_list(where: str, most: int, check_item: Callable[[object], None]) -> Callable[[object], None]:
    def check(value: object) -> None:
        items = cast("tuple[object, ...]", value) if type(value) is tuple else None
        if items is None or len(items) > most:
            raise MalformedMessageError(f"{where} is a tuple of at most {most} items")
        for item in items:
            check_item(item)

    return check
