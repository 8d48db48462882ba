from plait.protocol.pb import signed_pb2 as _signed_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("nonce", "hello", "open", "opened", "start", "rows", "leaf", "tokens", "payment", "ack", "end", "cancel", "ping", "pong", "fault", "draft", "where", "at", "knock", "knocked", "part", "batch")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LEAF_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PAYMENT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    KNOCK_FIELD_NUMBER: _ClassVar[int]
    KNOCKED_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    nonce: Nonce
    hello: _signed_pb2.SignedHello
    open: Open
    opened: Opened
    start: Start
    rows: Rows
    leaf: LeafOf
    tokens: Tokens
    payment: HopPayment
    ack: HopAck
    end: End
    cancel: CancelJob
    ping: Ping
    pong: Ping
    fault: JobFault
    draft: Draft
    where: Where
    at: At
    knock: Knock
    knocked: Knocked
    part: Part
    batch: Batch
    def __init__(self, nonce: _Optional[_Union[Nonce, _Mapping[str, object]]] = ..., hello: _Optional[_Union[_signed_pb2.SignedHello, _Mapping[str, object]]] = ..., open: _Optional[_Union[Open, _Mapping[str, object]]] = ..., opened: _Optional[_Union[Opened, _Mapping[str, object]]] = ..., start: _Optional[_Union[Start, _Mapping[str, object]]] = ..., rows: _Optional[_Union[Rows, _Mapping[str, object]]] = ..., leaf: _Optional[_Union[LeafOf, _Mapping[str, object]]] = ..., tokens: _Optional[_Union[Tokens, _Mapping[str, object]]] = ..., payment: _Optional[_Union[HopPayment, _Mapping[str, object]]] = ..., ack: _Optional[_Union[HopAck, _Mapping[str, object]]] = ..., end: _Optional[_Union[End, _Mapping[str, object]]] = ..., cancel: _Optional[_Union[CancelJob, _Mapping[str, object]]] = ..., ping: _Optional[_Union[Ping, _Mapping[str, object]]] = ..., pong: _Optional[_Union[Ping, _Mapping[str, object]]] = ..., fault: _Optional[_Union[JobFault, _Mapping[str, object]]] = ..., draft: _Optional[_Union[Draft, _Mapping[str, object]]] = ..., where: _Optional[_Union[Where, _Mapping[str, object]]] = ..., at: _Optional[_Union[At, _Mapping[str, object]]] = ..., knock: _Optional[_Union[Knock, _Mapping[str, object]]] = ..., knocked: _Optional[_Union[Knocked, _Mapping[str, object]]] = ..., part: _Optional[_Union[Part, _Mapping[str, object]]] = ..., batch: _Optional[_Union[Batch, _Mapping[str, object]]] = ...) -> None: ...

class Nonce(_message.Message):
    __slots__ = ("version_min", "version_max", "nonce", "node", "clock")
    VERSION_MIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_MAX_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    version_min: int
    version_max: int
    nonce: bytes
    node: bytes
    clock: int
    def __init__(self, version_min: _Optional[int] = ..., version_max: _Optional[int] = ..., nonce: _Optional[bytes] = ..., node: _Optional[bytes] = ..., clock: _Optional[int] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("quote", "request", "job", "salt_rows", "stage", "next", "lineage", "room", "pay", "before")
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    SALT_ROWS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    PAY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    quote: _signed_pb2.SignedQuote
    request: _signed_pb2.SignedRequest
    job: _signed_pb2.SignedJob
    salt_rows: bytes
    stage: int
    next: _signed_pb2.StoredRecord
    lineage: _containers.RepeatedScalarFieldContainer[bytes]
    room: int
    pay: _signed_pb2.SignedPay
    before: int
    def __init__(self, quote: _Optional[_Union[_signed_pb2.SignedQuote, _Mapping[str, object]]] = ..., request: _Optional[_Union[_signed_pb2.SignedRequest, _Mapping[str, object]]] = ..., job: _Optional[_Union[_signed_pb2.SignedJob, _Mapping[str, object]]] = ..., salt_rows: _Optional[bytes] = ..., stage: _Optional[int] = ..., next: _Optional[_Union[_signed_pb2.StoredRecord, _Mapping[str, object]]] = ..., lineage: _Optional[_Iterable[bytes]] = ..., room: _Optional[int] = ..., pay: _Optional[_Union[_signed_pb2.SignedPay, _Mapping[str, object]]] = ..., before: _Optional[int] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("job", "lineage", "held", "kept")
    JOB_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    lineage: _containers.RepeatedScalarFieldContainer[bytes]
    held: int
    kept: int
    def __init__(self, job: _Optional[bytes] = ..., lineage: _Optional[_Iterable[bytes]] = ..., held: _Optional[int] = ..., kept: _Optional[int] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("job", "row", "next_row")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    NEXT_ROW_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    row: int
    next_row: int
    def __init__(self, job: _Optional[bytes] = ..., row: _Optional[int] = ..., next_row: _Optional[int] = ...) -> None: ...

class Rows(_message.Message):
    __slots__ = ("job", "step", "count", "codec", "data", "speculative")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SPECULATIVE_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    step: int
    count: int
    codec: str
    data: bytes
    speculative: int
    def __init__(self, job: _Optional[bytes] = ..., step: _Optional[int] = ..., count: _Optional[int] = ..., codec: _Optional[str] = ..., data: _Optional[bytes] = ..., speculative: _Optional[int] = ...) -> None: ...

class Draft(_message.Message):
    __slots__ = ("job", "step", "ids")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    step: int
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, job: _Optional[bytes] = ..., step: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ...) -> None: ...

class LeafOf(_message.Message):
    __slots__ = ("leaf",)
    LEAF_FIELD_NUMBER: _ClassVar[int]
    leaf: _signed_pb2.SignedLeaf
    def __init__(self, leaf: _Optional[_Union[_signed_pb2.SignedLeaf, _Mapping[str, object]]] = ...) -> None: ...

class Tokens(_message.Message):
    __slots__ = ("job", "step", "ids")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    step: int
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, job: _Optional[bytes] = ..., step: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ...) -> None: ...

class HopPayment(_message.Message):
    __slots__ = ("payment", "payer")
    PAYMENT_FIELD_NUMBER: _ClassVar[int]
    PAYER_FIELD_NUMBER: _ClassVar[int]
    payment: _signed_pb2.Payment
    payer: _signed_pb2.SignedPay
    def __init__(self, payment: _Optional[_Union[_signed_pb2.Payment, _Mapping[str, object]]] = ..., payer: _Optional[_Union[_signed_pb2.SignedPay, _Mapping[str, object]]] = ...) -> None: ...

class HopAck(_message.Message):
    __slots__ = ("request", "ack")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    ack: _signed_pb2.Acknowledgement
    def __init__(self, request: _Optional[bytes] = ..., ack: _Optional[_Union[_signed_pb2.Acknowledgement, _Mapping[str, object]]] = ...) -> None: ...

class End(_message.Message):
    __slots__ = ("job", "step")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    step: int
    def __init__(self, job: _Optional[bytes] = ..., step: _Optional[int] = ...) -> None: ...

class CancelJob(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    def __init__(self, job: _Optional[bytes] = ...) -> None: ...

class Where(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    def __init__(self, job: _Optional[bytes] = ...) -> None: ...

class At(_message.Message):
    __slots__ = ("job", "came", "given")
    JOB_FIELD_NUMBER: _ClassVar[int]
    CAME_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    came: int
    given: int
    def __init__(self, job: _Optional[bytes] = ..., came: _Optional[int] = ..., given: _Optional[int] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class JobFault(_message.Message):
    __slots__ = ("job", "fault", "blamed", "stands")
    JOB_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    BLAMED_FIELD_NUMBER: _ClassVar[int]
    STANDS_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    fault: _signed_pb2.Fault
    blamed: bytes
    stands: _signed_pb2.SignedVoucher
    def __init__(self, job: _Optional[bytes] = ..., fault: _Optional[_Union[_signed_pb2.Fault, _Mapping[str, object]]] = ..., blamed: _Optional[bytes] = ..., stands: _Optional[_Union[_signed_pb2.SignedVoucher, _Mapping[str, object]]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("data", "last")
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    last: bool
    def __init__(self, data: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, frames: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Knock(_message.Message):
    __slots__ = ("to", "record", "body")
    TO_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    to: bytes
    record: _signed_pb2.SignedRecord
    body: bytes
    def __init__(self, to: _Optional[bytes] = ..., record: _Optional[_Union[_signed_pb2.SignedRecord, _Mapping[str, object]]] = ..., body: _Optional[bytes] = ...) -> None: ...

class KnockBody(_message.Message):
    __slots__ = ("version", "to", "dialable", "certificate")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    DIALABLE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    version: int
    to: bytes
    dialable: str
    certificate: bytes
    def __init__(self, version: _Optional[int] = ..., to: _Optional[bytes] = ..., dialable: _Optional[str] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class Knocked(_message.Message):
    __slots__ = ("to", "topic", "fault")
    TO_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    to: bytes
    topic: bytes
    fault: _signed_pb2.Fault
    def __init__(self, to: _Optional[bytes] = ..., topic: _Optional[bytes] = ..., fault: _Optional[_Union[_signed_pb2.Fault, _Mapping[str, object]]] = ...) -> None: ...

class Relayed(_message.Message):
    __slots__ = ("topic", "data")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    topic: bytes
    data: bytes
    def __init__(self, topic: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...
