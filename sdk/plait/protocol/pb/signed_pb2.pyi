from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Prekey(_message.Message):
    __slots__ = ("node", "kem", "key", "valid_from", "expires")
    NODE_FIELD_NUMBER: _ClassVar[int]
    KEM_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALID_FROM_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    node: bytes
    kem: int
    key: bytes
    valid_from: int
    expires: int
    def __init__(self, node: _Optional[bytes] = ..., kem: _Optional[int] = ..., key: _Optional[bytes] = ..., valid_from: _Optional[int] = ..., expires: _Optional[int] = ...) -> None: ...

class Terms(_message.Message):
    __slots__ = ("profile", "input_price", "output_price")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    INPUT_PRICE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_PRICE_FIELD_NUMBER: _ClassVar[int]
    profile: bytes
    input_price: bytes
    output_price: bytes
    def __init__(self, profile: _Optional[bytes] = ..., input_price: _Optional[bytes] = ..., output_price: _Optional[bytes] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("node", "prekey", "share")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PREKEY_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    node: bytes
    prekey: bytes
    share: int
    def __init__(self, node: _Optional[bytes] = ..., prekey: _Optional[bytes] = ..., share: _Optional[int] = ...) -> None: ...

class Quote(_message.Message):
    __slots__ = ("gateway", "model", "group", "terms", "workers", "max_input", "max_output", "expires")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    MAX_INPUT_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    gateway: bytes
    model: bytes
    group: bytes
    terms: _containers.RepeatedCompositeFieldContainer[Terms]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    max_input: int
    max_output: int
    expires: int
    def __init__(self, gateway: _Optional[bytes] = ..., model: _Optional[bytes] = ..., group: _Optional[bytes] = ..., terms: _Optional[_Iterable[_Union[Terms, _Mapping[str, object]]]] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping[str, object]]]] = ..., max_input: _Optional[int] = ..., max_output: _Optional[int] = ..., expires: _Optional[int] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_p", "top_k", "stop")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    temperature: int
    top_p: int
    top_k: int
    stop: bytes
    def __init__(self, temperature: _Optional[int] = ..., top_p: _Optional[int] = ..., top_k: _Optional[int] = ..., stop: _Optional[bytes] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("payer", "gateway", "quote", "model", "profiles", "prompt", "sampling", "input_tokens", "max_tokens", "max_price", "seed", "nonce", "deadline")
    PAYER_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_PRICE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    payer: bytes
    gateway: bytes
    quote: bytes
    model: bytes
    profiles: _containers.RepeatedScalarFieldContainer[bytes]
    prompt: bytes
    sampling: Sampling
    input_tokens: int
    max_tokens: int
    max_price: bytes
    seed: bytes
    nonce: bytes
    deadline: int
    def __init__(self, payer: _Optional[bytes] = ..., gateway: _Optional[bytes] = ..., quote: _Optional[bytes] = ..., model: _Optional[bytes] = ..., profiles: _Optional[_Iterable[bytes]] = ..., prompt: _Optional[bytes] = ..., sampling: _Optional[_Union[Sampling, _Mapping[str, object]]] = ..., input_tokens: _Optional[int] = ..., max_tokens: _Optional[int] = ..., max_price: _Optional[bytes] = ..., seed: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., deadline: _Optional[int] = ...) -> None: ...

class Stage(_message.Message):
    __slots__ = ("node", "first", "last", "price")
    NODE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    node: bytes
    first: int
    last: int
    price: bytes
    def __init__(self, node: _Optional[bytes] = ..., first: _Optional[int] = ..., last: _Optional[int] = ..., price: _Optional[bytes] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("request", "attempt", "worker", "route", "profile", "choice", "start", "row", "tokens", "closes_at")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    CLOSES_AT_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    attempt: int
    worker: bytes
    route: _containers.RepeatedCompositeFieldContainer[Stage]
    profile: bytes
    choice: bytes
    start: int
    row: int
    tokens: bytes
    closes_at: int
    def __init__(self, request: _Optional[bytes] = ..., attempt: _Optional[int] = ..., worker: _Optional[bytes] = ..., route: _Optional[_Iterable[_Union[Stage, _Mapping[str, object]]]] = ..., profile: _Optional[bytes] = ..., choice: _Optional[bytes] = ..., start: _Optional[int] = ..., row: _Optional[int] = ..., tokens: _Optional[bytes] = ..., closes_at: _Optional[int] = ...) -> None: ...

class Leaf(_message.Message):
    __slots__ = ("job", "stage", "window", "start", "count", "in_root", "out_root", "up_leaf", "prev_leaf", "print")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    IN_ROOT_FIELD_NUMBER: _ClassVar[int]
    OUT_ROOT_FIELD_NUMBER: _ClassVar[int]
    UP_LEAF_FIELD_NUMBER: _ClassVar[int]
    PREV_LEAF_FIELD_NUMBER: _ClassVar[int]
    PRINT_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    stage: int
    window: int
    start: int
    count: int
    in_root: bytes
    out_root: bytes
    up_leaf: bytes
    prev_leaf: bytes
    print: bytes
    def __init__(self, job: _Optional[bytes] = ..., stage: _Optional[int] = ..., window: _Optional[int] = ..., start: _Optional[int] = ..., count: _Optional[int] = ..., in_root: _Optional[bytes] = ..., out_root: _Optional[bytes] = ..., up_leaf: _Optional[bytes] = ..., prev_leaf: _Optional[bytes] = ..., print: _Optional[bytes] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("job", "to", "tokens", "leaves")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    to: int
    tokens: bytes
    leaves: bytes
    def __init__(self, job: _Optional[bytes] = ..., to: _Optional[int] = ..., tokens: _Optional[bytes] = ..., leaves: _Optional[bytes] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("request", "segments", "input_tokens", "output_tokens", "tokens", "price", "finish", "finished_at", "closes_at")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    CLOSES_AT_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    segments: _containers.RepeatedScalarFieldContainer[bytes]
    input_tokens: int
    output_tokens: int
    tokens: bytes
    price: bytes
    finish: int
    finished_at: int
    closes_at: int
    def __init__(self, request: _Optional[bytes] = ..., segments: _Optional[_Iterable[bytes]] = ..., input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., tokens: _Optional[bytes] = ..., price: _Optional[bytes] = ..., finish: _Optional[int] = ..., finished_at: _Optional[int] = ..., closes_at: _Optional[int] = ...) -> None: ...

class Voucher(_message.Message):
    __slots__ = ("payer", "payee", "cumulative", "jobs", "receipts_root")
    PAYER_FIELD_NUMBER: _ClassVar[int]
    PAYEE_FIELD_NUMBER: _ClassVar[int]
    CUMULATIVE_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_ROOT_FIELD_NUMBER: _ClassVar[int]
    payer: bytes
    payee: bytes
    cumulative: bytes
    jobs: int
    receipts_root: bytes
    def __init__(self, payer: _Optional[bytes] = ..., payee: _Optional[bytes] = ..., cumulative: _Optional[bytes] = ..., jobs: _Optional[int] = ..., receipts_root: _Optional[bytes] = ...) -> None: ...

class Pay(_message.Message):
    __slots__ = ("request", "voucher", "amount", "to")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    VOUCHER_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    voucher: bytes
    amount: bytes
    to: int
    def __init__(self, request: _Optional[bytes] = ..., voucher: _Optional[bytes] = ..., amount: _Optional[bytes] = ..., to: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("voucher", "at")
    VOUCHER_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    voucher: bytes
    at: int
    def __init__(self, voucher: _Optional[bytes] = ..., at: _Optional[int] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("payer", "payee", "signer", "claimed", "exit_at")
    PAYER_FIELD_NUMBER: _ClassVar[int]
    PAYEE_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_FIELD_NUMBER: _ClassVar[int]
    EXIT_AT_FIELD_NUMBER: _ClassVar[int]
    payer: bytes
    payee: bytes
    signer: bytes
    claimed: bytes
    exit_at: int
    def __init__(self, payer: _Optional[bytes] = ..., payee: _Optional[bytes] = ..., signer: _Optional[bytes] = ..., claimed: _Optional[bytes] = ..., exit_at: _Optional[int] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("kind", "topic", "node", "sequence", "expires", "body")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    kind: int
    topic: bytes
    node: bytes
    sequence: int
    expires: int
    body: bytes
    def __init__(self, kind: _Optional[int] = ..., topic: _Optional[bytes] = ..., node: _Optional[bytes] = ..., sequence: _Optional[int] = ..., expires: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("node", "peer", "dialer", "certificate", "nonce", "peer_nonce")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    DIALER_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PEER_NONCE_FIELD_NUMBER: _ClassVar[int]
    node: bytes
    peer: bytes
    dialer: bool
    certificate: bytes
    nonce: bytes
    peer_nonce: bytes
    def __init__(self, node: _Optional[bytes] = ..., peer: _Optional[bytes] = ..., dialer: _Optional[bool] = ..., certificate: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., peer_nonce: _Optional[bytes] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("request", "to")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    to: int
    def __init__(self, request: _Optional[bytes] = ..., to: _Optional[int] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("request", "after", "expires")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    after: int
    expires: int
    def __init__(self, request: _Optional[bytes] = ..., after: _Optional[int] = ..., expires: _Optional[int] = ...) -> None: ...

class Fetch(_message.Message):
    __slots__ = ("job", "stage", "window", "reader", "expires")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    READER_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    stage: int
    window: int
    reader: bytes
    expires: int
    def __init__(self, job: _Optional[bytes] = ..., stage: _Optional[int] = ..., window: _Optional[int] = ..., reader: _Optional[bytes] = ..., expires: _Optional[int] = ...) -> None: ...

class SignedPrekey(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Prekey
    signature: bytes
    def __init__(self, message: _Optional[_Union[Prekey, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedQuote(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Quote
    signature: bytes
    def __init__(self, message: _Optional[_Union[Quote, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedRequest(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Request
    signature: bytes
    def __init__(self, message: _Optional[_Union[Request, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedJob(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Job
    signature: bytes
    def __init__(self, message: _Optional[_Union[Job, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedLeaf(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Leaf
    signature: bytes
    def __init__(self, message: _Optional[_Union[Leaf, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedProgress(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Progress
    signature: bytes
    def __init__(self, message: _Optional[_Union[Progress, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedReceipt(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Receipt
    signature: bytes
    def __init__(self, message: _Optional[_Union[Receipt, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedVoucher(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Voucher
    signature: bytes
    def __init__(self, message: _Optional[_Union[Voucher, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedPay(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Pay
    signature: bytes
    def __init__(self, message: _Optional[_Union[Pay, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedAck(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Ack
    signature: bytes
    def __init__(self, message: _Optional[_Union[Ack, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedClose(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Close
    signature: bytes
    def __init__(self, message: _Optional[_Union[Close, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedRecord(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Record
    signature: bytes
    def __init__(self, message: _Optional[_Union[Record, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedHello(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Hello
    signature: bytes
    def __init__(self, message: _Optional[_Union[Hello, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedCancel(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Cancel
    signature: bytes
    def __init__(self, message: _Optional[_Union[Cancel, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedResume(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Resume
    signature: bytes
    def __init__(self, message: _Optional[_Union[Resume, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedFetch(_message.Message):
    __slots__ = ("message", "signature")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    message: Fetch
    signature: bytes
    def __init__(self, message: _Optional[_Union[Fetch, _Mapping[str, object]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class StoredRecord(_message.Message):
    __slots__ = ("record", "body")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    record: SignedRecord
    body: bytes
    def __init__(self, record: _Optional[_Union[SignedRecord, _Mapping[str, object]]] = ..., body: _Optional[bytes] = ...) -> None: ...

class ReceiptLeaf(_message.Message):
    __slots__ = ("kind", "hash", "hop_amount", "windows_paid")
    KIND_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    HOP_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_PAID_FIELD_NUMBER: _ClassVar[int]
    kind: int
    hash: bytes
    hop_amount: bytes
    windows_paid: int
    def __init__(self, kind: _Optional[int] = ..., hash: _Optional[bytes] = ..., hop_amount: _Optional[bytes] = ..., windows_paid: _Optional[int] = ...) -> None: ...

class Payment(_message.Message):
    __slots__ = ("voucher", "pay", "ended", "consistency")
    VOUCHER_FIELD_NUMBER: _ClassVar[int]
    PAY_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    voucher: SignedVoucher
    pay: SignedPay
    ended: _containers.RepeatedCompositeFieldContainer[ReceiptLeaf]
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, voucher: _Optional[_Union[SignedVoucher, _Mapping[str, object]]] = ..., pay: _Optional[_Union[SignedPay, _Mapping[str, object]]] = ..., ended: _Optional[_Iterable[_Union[ReceiptLeaf, _Mapping[str, object]]]] = ..., consistency: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Acknowledgement(_message.Message):
    __slots__ = ("ack", "credit")
    ACK_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    ack: SignedAck
    credit: bytes
    def __init__(self, ack: _Optional[_Union[SignedAck, _Mapping[str, object]]] = ..., credit: _Optional[bytes] = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("code", "text", "retry", "moved")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    retry: bool
    moved: bool
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ..., retry: _Optional[bool] = ..., moved: _Optional[bool] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("ids", "stop")
    IDS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    stop: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., stop: _Optional[_Iterable[str]] = ...) -> None: ...
