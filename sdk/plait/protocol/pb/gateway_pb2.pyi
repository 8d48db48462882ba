from plait.protocol.pb import signed_pb2 as _signed_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QuoteCall(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: bytes
    def __init__(self, model: _Optional[bytes] = ...) -> None: ...

class QuoteReply(_message.Message):
    __slots__ = ("quote", "prekeys")
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    PREKEYS_FIELD_NUMBER: _ClassVar[int]
    quote: _signed_pb2.SignedQuote
    prekeys: _containers.RepeatedCompositeFieldContainer[_signed_pb2.SignedPrekey]
    def __init__(self, quote: _Optional[_Union[_signed_pb2.SignedQuote, _Mapping[str, object]]] = ..., prekeys: _Optional[_Iterable[_Union[_signed_pb2.SignedPrekey, _Mapping[str, object]]]] = ...) -> None: ...

class Capsule(_message.Message):
    __slots__ = ("node", "sealed")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    node: bytes
    sealed: bytes
    def __init__(self, node: _Optional[bytes] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class JobCall(_message.Message):
    __slots__ = ("quote", "request", "payment", "capsules", "prompt")
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    PAYMENT_FIELD_NUMBER: _ClassVar[int]
    CAPSULES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    quote: _signed_pb2.SignedQuote
    request: _signed_pb2.SignedRequest
    payment: _signed_pb2.Payment
    capsules: _containers.RepeatedCompositeFieldContainer[Capsule]
    prompt: bytes
    def __init__(self, quote: _Optional[_Union[_signed_pb2.SignedQuote, _Mapping[str, object]]] = ..., request: _Optional[_Union[_signed_pb2.SignedRequest, _Mapping[str, object]]] = ..., payment: _Optional[_Union[_signed_pb2.Payment, _Mapping[str, object]]] = ..., capsules: _Optional[_Iterable[_Union[Capsule, _Mapping[str, object]]]] = ..., prompt: _Optional[bytes] = ...) -> None: ...

class JobReply(_message.Message):
    __slots__ = ("ack",)
    ACK_FIELD_NUMBER: _ClassVar[int]
    ack: _signed_pb2.Acknowledgement
    def __init__(self, ack: _Optional[_Union[_signed_pb2.Acknowledgement, _Mapping[str, object]]] = ...) -> None: ...

class EventsCall(_message.Message):
    __slots__ = ("resume",)
    RESUME_FIELD_NUMBER: _ClassVar[int]
    resume: _signed_pb2.SignedResume
    def __init__(self, resume: _Optional[_Union[_signed_pb2.SignedResume, _Mapping[str, object]]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("job", "sealed")
    JOB_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    job: bytes
    sealed: bytes
    def __init__(self, job: _Optional[bytes] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class ProgressOf(_message.Message):
    __slots__ = ("progress", "leaves")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    progress: _signed_pb2.SignedProgress
    leaves: _containers.RepeatedCompositeFieldContainer[_signed_pb2.SignedLeaf]
    def __init__(self, progress: _Optional[_Union[_signed_pb2.SignedProgress, _Mapping[str, object]]] = ..., leaves: _Optional[_Iterable[_Union[_signed_pb2.SignedLeaf, _Mapping[str, object]]]] = ...) -> None: ...

class ResultEvent(_message.Message):
    __slots__ = ("request", "job", "chunk", "progress", "receipt", "error")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    job: _signed_pb2.SignedJob
    chunk: Chunk
    progress: ProgressOf
    receipt: _signed_pb2.SignedReceipt
    error: _signed_pb2.Fault
    def __init__(self, request: _Optional[bytes] = ..., job: _Optional[_Union[_signed_pb2.SignedJob, _Mapping[str, object]]] = ..., chunk: _Optional[_Union[Chunk, _Mapping[str, object]]] = ..., progress: _Optional[_Union[ProgressOf, _Mapping[str, object]]] = ..., receipt: _Optional[_Union[_signed_pb2.SignedReceipt, _Mapping[str, object]]] = ..., error: _Optional[_Union[_signed_pb2.Fault, _Mapping[str, object]]] = ...) -> None: ...

class VoucherCall(_message.Message):
    __slots__ = ("payment",)
    PAYMENT_FIELD_NUMBER: _ClassVar[int]
    payment: _signed_pb2.Payment
    def __init__(self, payment: _Optional[_Union[_signed_pb2.Payment, _Mapping[str, object]]] = ...) -> None: ...

class ChannelStateCall(_message.Message):
    __slots__ = ("payer", "signer")
    PAYER_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    payer: bytes
    signer: bytes
    def __init__(self, payer: _Optional[bytes] = ..., signer: _Optional[bytes] = ...) -> None: ...

class ChannelState(_message.Message):
    __slots__ = ("voucher", "ack")
    VOUCHER_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    voucher: _signed_pb2.SignedVoucher
    ack: _signed_pb2.Acknowledgement
    def __init__(self, voucher: _Optional[_Union[_signed_pb2.SignedVoucher, _Mapping[str, object]]] = ..., ack: _Optional[_Union[_signed_pb2.Acknowledgement, _Mapping[str, object]]] = ...) -> None: ...

class PayNotice(_message.Message):
    __slots__ = ("payment", "cancel", "hop")
    PAYMENT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    HOP_FIELD_NUMBER: _ClassVar[int]
    payment: _signed_pb2.Payment
    cancel: _signed_pb2.SignedCancel
    hop: _signed_pb2.Payment
    def __init__(self, payment: _Optional[_Union[_signed_pb2.Payment, _Mapping[str, object]]] = ..., cancel: _Optional[_Union[_signed_pb2.SignedCancel, _Mapping[str, object]]] = ..., hop: _Optional[_Union[_signed_pb2.Payment, _Mapping[str, object]]] = ...) -> None: ...

class CancelCall(_message.Message):
    __slots__ = ("cancel",)
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    cancel: _signed_pb2.SignedCancel
    def __init__(self, cancel: _Optional[_Union[_signed_pb2.SignedCancel, _Mapping[str, object]]] = ...) -> None: ...

class PromptCapsule(_message.Message):
    __slots__ = ("node", "prekey", "sealed")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PREKEY_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    node: bytes
    prekey: bytes
    sealed: bytes
    def __init__(self, node: _Optional[bytes] = ..., prekey: _Optional[bytes] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class PromptCall(_message.Message):
    __slots__ = ("request", "capsules", "prompt")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CAPSULES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    capsules: _containers.RepeatedCompositeFieldContainer[PromptCapsule]
    prompt: bytes
    def __init__(self, request: _Optional[bytes] = ..., capsules: _Optional[_Iterable[_Union[PromptCapsule, _Mapping[str, object]]]] = ..., prompt: _Optional[bytes] = ...) -> None: ...

class WorkerOffer(_message.Message):
    __slots__ = ("record", "body")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    record: _signed_pb2.SignedRecord
    body: bytes
    def __init__(self, record: _Optional[_Union[_signed_pb2.SignedRecord, _Mapping[str, object]]] = ..., body: _Optional[bytes] = ...) -> None: ...

class OfferBody(_message.Message):
    __slots__ = ("version", "prekey", "model", "hardware", "tier", "cohort", "terms", "max_input", "max_output", "share", "room")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PREKEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    MAX_INPUT_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    version: int
    prekey: _signed_pb2.SignedPrekey
    model: bytes
    hardware: str
    tier: int
    cohort: int
    terms: _containers.RepeatedCompositeFieldContainer[_signed_pb2.Terms]
    max_input: int
    max_output: int
    share: int
    room: int
    def __init__(self, version: _Optional[int] = ..., prekey: _Optional[_Union[_signed_pb2.SignedPrekey, _Mapping[str, object]]] = ..., model: _Optional[bytes] = ..., hardware: _Optional[str] = ..., tier: _Optional[int] = ..., cohort: _Optional[int] = ..., terms: _Optional[_Iterable[_Union[_signed_pb2.Terms, _Mapping[str, object]]]] = ..., max_input: _Optional[int] = ..., max_output: _Optional[int] = ..., share: _Optional[int] = ..., room: _Optional[int] = ...) -> None: ...

class NodeBody(_message.Message):
    __slots__ = ("version", "first", "last", "profile", "step_micros", "free_steps", "queue", "price", "dialable", "certificate", "via")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    STEP_MICROS_FIELD_NUMBER: _ClassVar[int]
    FREE_STEPS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    DIALABLE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    version: int
    first: int
    last: int
    profile: bytes
    step_micros: int
    free_steps: int
    queue: int
    price: bytes
    dialable: str
    certificate: bytes
    via: _containers.RepeatedCompositeFieldContainer[MeetingPoint]
    def __init__(self, version: _Optional[int] = ..., first: _Optional[int] = ..., last: _Optional[int] = ..., profile: _Optional[bytes] = ..., step_micros: _Optional[int] = ..., free_steps: _Optional[int] = ..., queue: _Optional[int] = ..., price: _Optional[bytes] = ..., dialable: _Optional[str] = ..., certificate: _Optional[bytes] = ..., via: _Optional[_Iterable[_Union[MeetingPoint, _Mapping[str, object]]]] = ...) -> None: ...

class MeetingPoint(_message.Message):
    __slots__ = ("owner", "dialable", "certificate")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    DIALABLE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    owner: bytes
    dialable: str
    certificate: bytes
    def __init__(self, owner: _Optional[bytes] = ..., dialable: _Optional[str] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class ReceiptEntry(_message.Message):
    __slots__ = ("leaf", "receipt")
    LEAF_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    leaf: _signed_pb2.ReceiptLeaf
    receipt: _signed_pb2.SignedReceipt
    def __init__(self, leaf: _Optional[_Union[_signed_pb2.ReceiptLeaf, _Mapping[str, object]]] = ..., receipt: _Optional[_Union[_signed_pb2.SignedReceipt, _Mapping[str, object]]] = ...) -> None: ...

class ReceiptListing(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[ReceiptEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[ReceiptEntry, _Mapping[str, object]]]] = ...) -> None: ...

class ServedModel(_message.Message):
    __slots__ = ("model", "name", "terms", "max_input", "max_output")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    MAX_INPUT_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    model: bytes
    name: str
    terms: _containers.RepeatedCompositeFieldContainer[_signed_pb2.Terms]
    max_input: int
    max_output: int
    def __init__(self, model: _Optional[bytes] = ..., name: _Optional[str] = ..., terms: _Optional[_Iterable[_Union[_signed_pb2.Terms, _Mapping[str, object]]]] = ..., max_input: _Optional[int] = ..., max_output: _Optional[int] = ...) -> None: ...

class ModelListing(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ServedModel]
    def __init__(self, models: _Optional[_Iterable[_Union[ServedModel, _Mapping[str, object]]]] = ...) -> None: ...
