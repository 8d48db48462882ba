"""Messages to and from protobuf. Every length, range and limit is checked on the way in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Proto

from plait.protocol.errors import Fault, MalformedMessageError
from plait.protocol.ids import Hash, Signature
from plait.protocol.messages import Field, Message, Pay, Voucher, layout
from plait.protocol.pb import signed_pb2 as pb
from plait.protocol.receipts import ReceiptLeaf
from plait.protocol.typed import Signed

M = TypeVar("M", bound=Message)
P = TypeVar("P", bound=Proto)

AMOUNT_BYTES = 12
MAX_ENDED = 4_096
MAX_PROOF = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A voucher, what it is for, and how the channel's receipts tree grew since the one before."""

    voucher: Signed[Voucher]
    pay: Signed[Pay]
    ended: tuple[ReceiptLeaf, ...] = ()
    consistency: tuple[Hash, ...] = ()


def parse(kind: type[P], data: bytes) -> P:
    """Parse untrusted bytes; raise `MalformedMessageError`."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MalformedMessageError(f"these bytes are no {kind.__name__}") from error


def amount_bytes(amount: int) -> bytes:
    """Return an amount as 12 bytes, big-endian."""
    if not 0 <= amount < 1 << 96:
        raise MalformedMessageError("an amount lies from 0 to 2^96 - 1")
    return amount.to_bytes(AMOUNT_BYTES, "big")


def amount_from(data: bytes) -> int:
    """Return the amount in 12 bytes; raise `MalformedMessageError` for another length."""
    if len(data) != AMOUNT_BYTES:
        raise MalformedMessageError(f"an amount travels as {AMOUNT_BYTES} bytes, not {len(data)}")
    return int.from_bytes(data, "big")


def to_pb(message: Message) -> Any:  # noqa: ANN401 the class is looked up by name
    """Return the message as the protobuf message of the same name."""
    made: Any = getattr(pb, type(message).__name__)()
    for spec in layout(type(message)):
        value: Any = getattr(message, spec.name)
        if spec.is_list:
            getattr(made, spec.name).extend([_out(spec, item) for item in value])
        elif spec.struct is not None:
            getattr(made, spec.name).CopyFrom(to_pb(value))
        else:
            setattr(made, spec.name, _out(spec, value))
    return made


def from_pb(received: Proto, kind: type[M]) -> M:
    """Return the checked message; raise `MalformedMessageError`."""
    if received.DESCRIPTOR.name != kind.__name__:
        raise MalformedMessageError(f"expected a {kind.__name__}, got a {received.DESCRIPTOR.name}")
    values: dict[str, Any] = {}
    for spec in layout(kind):
        value: Any = getattr(received, spec.name)
        if spec.is_list:
            values[spec.name] = tuple(_in(spec, item) for item in value)
        elif spec.struct is not None and not received.HasField(spec.name):
            raise MalformedMessageError(f"{kind.__name__}.{spec.name} is missing")
        else:
            values[spec.name] = _in(spec, value)
    return kind(**values)


def signed_to_pb(signed: Signed[Any]) -> Any:  # noqa: ANN401 the class is looked up by name
    """Return Signed<Name> with message and signature."""
    made: Any = getattr(pb, "Signed" + type(signed.message).__name__)()
    made.message.CopyFrom(to_pb(signed.message))
    made.signature = signed.signature
    return made


def signed_from_pb(received: Proto, kind: type[M]) -> Signed[M]:
    """Return the checked message with its signature, which is not verified here; raise `MalformedMessageError`."""
    if received.DESCRIPTOR.name != "Signed" + kind.__name__:
        raise MalformedMessageError(f"expected a signed {kind.__name__}, got a {received.DESCRIPTOR.name}")
    if not received.HasField("message"):
        raise MalformedMessageError(f"a signed {kind.__name__} lacks its message")
    inner: Any = received
    return Signed(message=from_pb(inner.message, kind), signature=Signature(inner.signature))


def receipt_leaf_to_pb(leaf: ReceiptLeaf) -> pb.ReceiptLeaf:
    """Return the leaf as it travels."""
    amount = amount_bytes(leaf.hop_amount)
    return pb.ReceiptLeaf(kind=leaf.kind, hash=leaf.hash, hop_amount=amount, windows_paid=leaf.windows_paid)


def receipt_leaf_from_pb(received: pb.ReceiptLeaf) -> ReceiptLeaf:
    """Return the checked leaf; raise `MalformedMessageError`."""
    amount = amount_from(received.hop_amount)
    return ReceiptLeaf(
        kind=received.kind, hash=Hash(received.hash), hop_amount=amount, windows_paid=received.windows_paid
    )


def payment_to_pb(payment: Payment) -> pb.Payment:
    """Return a payment as it travels."""
    return pb.Payment(
        voucher=signed_to_pb(payment.voucher),
        pay=signed_to_pb(payment.pay),
        ended=[receipt_leaf_to_pb(leaf) for leaf in payment.ended],
        consistency=list(payment.consistency),
    )


def payment_from_pb(received: pb.Payment) -> Payment:
    """Return a checked payment, signatures not yet verified; raise `MalformedMessageError`."""
    if len(received.ended) > MAX_ENDED or len(received.consistency) > MAX_PROOF:
        raise MalformedMessageError(f"a payment carries at most {MAX_ENDED} ended jobs and {MAX_PROOF} proof hashes")
    return Payment(
        voucher=signed_from_pb(received.voucher, Voucher),
        pay=signed_from_pb(received.pay, Pay),
        ended=tuple(receipt_leaf_from_pb(leaf) for leaf in received.ended),
        consistency=hashes(received.consistency),
    )


def hashes(items: Iterable[bytes]) -> tuple[Hash, ...]:
    """Return the items as hashes; raise `MalformedMessageError` when one has not 32 bytes."""
    found = tuple(Hash(item) for item in items)
    if any(len(item) != 32 for item in found):
        raise MalformedMessageError("every hash has 32 bytes")
    return found


def fault_to_pb(fault: Fault) -> pb.Fault:
    """Return a fault as it travels."""
    return pb.Fault(code=fault.code, text=fault.text, retry=fault.retry, moved=fault.moved)


def fault_from_pb(received: pb.Fault) -> Fault:
    """Return a peer's fault with its text cut to a line that is safe to print."""
    text = "".join(char if char.isprintable() else " " for char in received.text[:2_000])
    code = "".join(char for char in received.code[:64] if char.isalnum() or char == "_")
    return Fault(code=code or "error", text=text, retry=received.retry, moved=received.moved)


def _out(spec: Field, value: Any) -> Any:  # noqa: ANN401 protobuf fields are dynamic
    if spec.struct is not None:
        return to_pb(value)
    return amount_bytes(value) if spec.solidity == "uint96" else value


def _in(spec: Field, value: Any) -> Any:  # noqa: ANN401 protobuf fields are dynamic
    if spec.struct is not None:
        return from_pb(value, spec.struct)
    return amount_from(value) if spec.solidity == "uint96" else value
