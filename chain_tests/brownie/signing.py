"""What people sign: vouchers and their claim rows, consents to close, proofs of service keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from brownie import chain
from eth_account import Account
from eth_account.messages import encode_typed_data
from web3 import Web3

TYPES: dict[str, list[tuple[str, str]]] = {
    "Voucher": [
        ("address", "payer"),
        ("address", "payee"),
        ("uint96", "cumulative"),
        ("uint32", "jobs"),
        ("bytes32", "receiptsRoot"),
    ],
    "Close": [
        ("address", "payer"),
        ("address", "payee"),
        ("address", "signer"),
        ("uint96", "claimed"),
        ("uint32", "exitAt"),
    ],
    "ServiceKey": [("address", "owner"), ("address", "key")],
}
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
PARITY = 1 << 255


def key_of(name: str) -> Any:
    """Return the same key for the same name, so that runs can be compared."""
    return Account.from_key(Web3.keccak(text=name))


def encoded(verifier: str, name: str, message: dict[str, Any]) -> Any:
    """Return a message under plait's domain, ready to sign or to recover from."""
    domain = {"name": "plait", "version": "1", "chainId": chain.id, "verifyingContract": verifier}
    fields = [{"name": field, "type": kind} for kind, field in TYPES[name]]
    return encode_typed_data(domain, {name: fields}, message)


def compact(signed: Any) -> tuple[bytes, bytes]:
    """Return r and vs (EIP-2098)."""
    vs = signed.s | ((signed.v - 27) << 255)
    return signed.r.to_bytes(32, "big"), vs.to_bytes(32, "big")


@dataclass(frozen=True)
class Row:
    """One claim row: a voucher without its payee, and the signature."""

    payer: str
    cumulative: int
    jobs: int
    root: bytes
    r: bytes
    vs: bytes

    def __bytes__(self) -> bytes:
        head = bytes.fromhex(self.payer[2:]) + self.cumulative.to_bytes(12, "big")
        return head + self.jobs.to_bytes(4, "big") + self.root + self.r + self.vs

    def other_parity(self) -> Row:
        return self._with_vs(int.from_bytes(self.vs, "big") ^ PARITY)

    def other_half(self) -> Row:
        """Return the row with the curve's twin of its signature, n - s, as far as 255 bits hold it."""
        vs = int.from_bytes(self.vs, "big")
        twin = (CURVE_ORDER - vs % PARITY) % PARITY
        return self._with_vs(twin | ((vs & PARITY) ^ PARITY))

    def other_r(self) -> Row:
        return replace(self, r=self.r[:-1] + bytes([self.r[-1] ^ 1]))

    def _with_vs(self, vs: int) -> Row:
        return replace(self, vs=vs.to_bytes(32, "big"))
