"""Everything somebody signs, as frozen dataclasses named and ordered like docs/protocol.md section 3.

A message that exists is well formed: lengths, ranges and list limits are checked when it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

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
    node: Address
    kem: Uint16
    key: Annotated[bytes, MAX_KEY_BYTES]
    valid_from: Uint64
    expires: Uint64


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms(Message):
    profile: Hash
    input_price: Amount  # per 1,000,000 tokens
    output_price: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker(Message):
    node: Address
    prekey: Hash
    share: Uint32  # millionths of the payer's amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote(Message):
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
    temperature: Uint32  # millionths
    top_p: Uint32  # millionths
    top_k: Uint32  # a count, 0 = all
    stop: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Message):
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
    node: Address
    first: Uint16
    last: Uint16
    price: Amount  # per 1,000,000 steps x blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Message):
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
    job: Hash
    to: Uint32
    tokens: Hash
    leaves: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Message):
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
    payer: Address
    payee: Address
    cumulative: Amount
    jobs: Uint32
    receipts_root: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Pay(Message):
    request: Hash
    voucher: Hash
    amount: Amount
    to: Uint32


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack(Message):
    voucher: Hash
    at: Uint64


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Message):
    payer: Address
    payee: Address
    signer: Address
    claimed: Amount
    exit_at: Uint32


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Message):
    kind: Uint8  # one of RecordKind
    topic: Hash
    node: Address
    sequence: Uint64
    expires: Uint64
    body: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Message):
    node: Address
    peer: Address
    dialer: bool
    certificate: Hash
    nonce: Hash
    peer_nonce: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Message):
    request: Hash
    to: Uint32


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Message):
    request: Hash
    after: Uint64
    expires: Uint64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch(Message):
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
    check: Callable[[Any], None]


@cache
def layout(kind: type[Message]) -> tuple[Field, ...]:
    """Return the fields of a message class in order."""
    hints = get_type_hints(kind, include_extras=True)
    names: list[str] = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType] every message is a dataclass
    return tuple(_field(kind.__name__, name, hints[name]) for name in names)


_FIXED: dict[Any, tuple[str, int]] = {Address: ("address", 20), Hash: ("bytes32", 32), Group: ("bytes8", 8)}


def _field(owner: str, name: str, hint: Any) -> Field:
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


def _check_uint(where: str, bits: int) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not int or not 0 <= value < 1 << bits:
            raise MalformedMessageError(f"{where} is a whole number from 0 to 2^{bits} - 1, not {value!r}")

    return check


def _check_bool(where: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not bool:
            raise MalformedMessageError(f"{where} is true or false")

    return check


def _check_size(where: str, least: int, most: int) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not bytes or not least <= len(value) <= most:
            raise MalformedMessageError(f"{where} has {least} to {most} bytes")

    return check


def _check_struct(where: str, kind: type[Message]) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not kind:
            raise MalformedMessageError(f"{where} is a {kind.__name__}")

    return check


def _check_list(where: str, most: int, check_item: Callable[[Any], None]) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not tuple or len(value) > most:  # pyright: ignore[reportUnknownArgumentType] items are checked next
            raise MalformedMessageError(f"{where} has at most {most} items")
        for item in value:  # pyright: ignore[reportUnknownVariableType] check_item refuses wrong types
            check_item(item)

    return check
