"""What ends on a channel: leaves of the receipts tree, and the row that takes a voucher to the chain."""

from __future__ import annotations

from dataclasses import dataclass

from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address, Hash, Signature

RECEIPT, ABORTED = 0, 1  # kinds: the Receipt's digest, an aborted request
CLAIM_ROW_BYTES = 132


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptLeaf:
    """One ended job of a channel; `hash` is the same on every hop, `hop_amount` is not."""

    kind: int
    hash: Hash
    hop_amount: int
    windows_paid: int

    def __post_init__(self) -> None:
        if self.kind not in (RECEIPT, ABORTED) or len(self.hash) != 32:
            raise MalformedMessageError("a receipt leaf has kind 0 or 1 and a hash of 32 bytes")
        if not 0 <= self.hop_amount < 1 << 96 or not 0 <= self.windows_paid < 1 << 32:
            raise MalformedMessageError("a receipt leaf's amount is a uint96, its windows a uint32")

    def encode(self) -> bytes:
        """Return abi.encode(uint8 kind, bytes32 hash, uint96 hopAmount, uint32 windowsPaid): 128 bytes."""
        numbers = self.hop_amount.to_bytes(32, "big") + self.windows_paid.to_bytes(32, "big")
        return self.kind.to_bytes(32, "big") + self.hash + numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRow:
    """One voucher as `Channels.claim` reads it; the payee is named once for all rows."""

    payer: Address
    cumulative: int
    jobs: int
    receipts_root: Hash
    signature: Signature

    def __post_init__(self) -> None:
        if (len(self.payer), len(self.receipts_root), len(self.signature)) != (20, 32, 64):
            raise MalformedMessageError("a claim row has an address, a root of 32 and a signature of 64 bytes")
        if not 0 <= self.cumulative < 1 << 96 or not 0 <= self.jobs < 1 << 32:
            raise MalformedMessageError("a claim row's cumulative is a uint96, its jobs a uint32")

    def pack(self) -> bytes:
        """Return payer 20, cumulative 12, jobs 4, receiptsRoot 32, r 32, vs 32: 132 bytes."""
        numbers = self.cumulative.to_bytes(12, "big") + self.jobs.to_bytes(4, "big")
        return self.payer + numbers + self.receipts_root + self.signature

    @classmethod
    def unpack(cls, row: bytes) -> ClaimRow:
        """Read 132 bytes; raise `MalformedMessageError` for any other length."""
        if len(row) != CLAIM_ROW_BYTES:
            raise MalformedMessageError(f"a claim row has {CLAIM_ROW_BYTES} bytes, not {len(row)}")
        return cls(
            payer=Address(row[:20]),
            cumulative=int.from_bytes(row[20:32], "big"),
            jobs=int.from_bytes(row[32:36], "big"),
            receipts_root=Hash(row[36:68]),
            signature=Signature(row[68:]),
        )
