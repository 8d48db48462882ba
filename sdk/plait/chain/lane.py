"""One nonce lane per key: sign, journal, send, wait, and pay more when a transaction is stuck."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, cast

from eth_account import Account
from eth_utils.address import to_checksum_address

from plait.chain.errors import (
    ContractError,
    GasMoneyError,
    NonceTakenError,
    PendingError,
    RpcDownError,
    RpcRefusedError,
)
from plait.chain.rpc import Rpc
from plait.chain.values import Receipt
from plait.protocol.ids import Address, Hash
from plait.protocol.typed import Key

_GWEI = 10**9
_TAKEN_LOOKS = 4
_TAKEN_TRIES = 8
_KNOWN = ("already known", "already imported", "known transaction", "already exists", "alreadyknown")
_NONCE_USED = ("nonce too low", "nonce is too low", "invalid nonce")
_UNDERPRICED = ("underpriced", "fee too low")
_NO_MONEY = ("insufficient funds", "insufficient balance", "out of gas funds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a lane waits, in seconds, and by how much it raises the fees of a stuck transaction."""

    deadline_s: float = 180.0
    bump_after_s: float = 30.0
    poll_s: float = 0.1
    slowest_poll_s: float = 2.0
    bump_percent: int = 125  # nodes ask for 110 at least
    gas_percent: int = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A signed transaction; the same intent signed again with higher fees is another one with the same nonce."""

    sender: Address
    nonce: int
    to: Address | None
    data: bytes
    value: int
    gas: int
    max_fee: int  # wei per gas
    tip: int  # wei per gas
    hash: Hash
    raw: bytes


@dataclass(slots=True, kw_only=True)
class _Flight:
    """A transaction on its way: its variants, whether the last arrived, when (monotonic) fees were raised last."""

    variants: list[Transaction]
    sent: bool
    bumped: float


JournalTransaction = Callable[[Transaction], None]


class Lane:
    """Sends the transactions of one key. What sends with this key in one program shares this object."""

    def __init__(self, rpc: Rpc, key: Key, chain_id: int, *, patience: Patience | None = None) -> None:
        self._rpc = rpc
        self._key = key
        self._chain_id = chain_id
        self._patience = patience or Patience()
        self._lock = asyncio.Lock()
        self._flying: set[int] = set()

    @property
    def account(self) -> Address:
        """Return the account whose transactions these are."""
        return self._key.address

    async def send(
        self, to: Address | None, data: bytes, *, value: int = 0, journal: JournalTransaction | None = None
    ) -> Receipt:
        """Send a call, or deploy code, and return its receipt once it is in a block.

        `journal` gets every signed variant before it is handed to the endpoint. Raise `ContractError` when the call
        reverts, `PendingError` when it is in no block in time, `GasMoneyError` or `RpcError` when it was not sent.
        """
        gas = await self._gas(to, data, value)
        first, arrived = await self._begun(to, data, value, gas, journal)
        try:
            return await self._wait([first], sent=arrived, journal=journal)
        finally:
            self._flying.discard(first.nonce)

    async def resume(self, variants: Sequence[Transaction], *, journal: JournalTransaction | None = None) -> Receipt:
        """Bring a journalled transaction to its end after a restart: never a second one beside it.

        Raise `NonceTakenError` when another transaction has its nonce, so that none of the variants can ever land.
        """
        last = variants[-1]
        async with self._flight(last.nonce):
            if found := await self._landed(variants):
                return found
            arrived = await self._broadcast(last)
            return await self._wait(list(variants), sent=arrived == "sent", journal=journal)

    @asynccontextmanager
    async def _flight(self, nonce: int) -> AsyncGenerator[None]:
        async with self._lock:
            self._flying.add(nonce)
        try:
            yield
        finally:
            self._flying.discard(nonce)

    async def _begun(
        self, to: Address | None, data: bytes, value: int, gas: int, journal: JournalTransaction | None
    ) -> tuple[Transaction, bool]:
        """Sign, journal and send with the next nonce; with the one after it when another program just took it."""
        taken: set[int] = set()
        async with self._lock:
            while True:
                nonce = await self._next_nonce(taken)
                first = await self._signed(to=to, data=data, value=value, gas=gas, nonce=nonce)
                if journal:
                    journal(first)
                arrived = await self._broadcast(first)
                if arrived != "taken" or len(taken) >= _TAKEN_TRIES or await self._rpc.knows(first.hash):
                    self._flying.add(nonce)
                    return first, arrived == "sent"
                taken.add(nonce)

    async def _gas(self, to: Address | None, data: bytes, value: int) -> int:
        try:
            return await self._rpc.estimate_gas(sender=self.account, to=to, data=data, value=value)
        except RpcRefusedError as error:
            raise self._explained(error) from error

    async def _next_nonce(self, taken: set[int]) -> int:
        nonce = await self._rpc.nonce(self.account, "pending")
        while nonce in self._flying or nonce in taken:
            nonce += 1
        return nonce

    async def _fees(self) -> tuple[int, int, int]:
        block = await self._rpc.block("latest")
        base, limit = (block.base_fee, block.gas_limit) if block else (_GWEI, 30_000_000)
        try:
            tip = await self._rpc.priority_fee()
        except RpcRefusedError:
            tip = _GWEI
        return 2 * base + tip, tip, limit

    async def _signed(self, *, to: Address | None, data: bytes, value: int, gas: int, nonce: int) -> Transaction:
        max_fee, tip, limit = await self._fees()
        gas = min(gas * self._patience.gas_percent // 100, limit)
        return self._sign(to=to, data=data, value=value, gas=gas, nonce=nonce, max_fee=max_fee, tip=tip)

    def _sign(
        self, *, to: Address | None, data: bytes, value: int, gas: int, nonce: int, max_fee: int, tip: int
    ) -> Transaction:
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": self._chain_id,
            "nonce": nonce,
            "gas": gas,
            "maxFeePerGas": max_fee,
            "maxPriorityFeePerGas": tip,
            "value": value,
            "data": data,
        } | ({"to": to_checksum_address(to)} if to else {})
        signed = cast("Any", Account).sign_transaction(fields, self._key.secret_hex())
        return Transaction(
            sender=self.account,
            nonce=nonce,
            to=to,
            data=data,
            value=value,
            gas=gas,
            max_fee=max_fee,
            tip=tip,
            hash=Hash(bytes(signed.hash)),
            raw=bytes(signed.raw_transaction),
        )

    async def _bumped(self, last: Transaction) -> Transaction:
        max_fee, tip, _ = await self._fees()
        percent = self._patience.bump_percent
        return self._sign(
            to=last.to,
            data=last.data,
            value=last.value,
            gas=last.gas,
            nonce=last.nonce,
            max_fee=max(max_fee, last.max_fee * percent // 100 + 1),
            tip=max(tip, last.tip * percent // 100 + 1),
        )

    async def _broadcast(self, tx: Transaction) -> Literal["sent", "unknown", "taken"]:
        """Hand the transaction over; "taken" when its nonce is used, or promised to a dearer transaction."""
        try:
            await self._rpc.send_raw(tx.raw)
        except RpcDownError:
            return "unknown"
        except RpcRefusedError as error:
            text = error.message.lower()
            if any(known in text for known in _KNOWN):
                return "sent"
            if any(words in text for words in (*_NONCE_USED, *_UNDERPRICED)):
                return "taken"
            raise self._explained(error) from error
        return "sent"

    async def _wait(self, variants: list[Transaction], *, sent: bool, journal: JournalTransaction | None) -> Receipt:
        started = time.monotonic()
        flight = _Flight(variants=variants, sent=sent, bumped=started)
        pause = self._patience.poll_s
        while True:
            down: RpcDownError | None = None
            try:
                if found := await self._nudged(flight, journal):
                    return found
            except RpcDownError as error:
                down = error
            if time.monotonic() - started >= self._patience.deadline_s:
                raise PendingError([each.hash for each in variants], waited_s=time.monotonic() - started) from down
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, self._patience.slowest_poll_s)

    async def _nudged(self, flight: _Flight, journal: JournalTransaction | None) -> Receipt | None:
        """Look for the transaction, and send it, with higher fees when it is stuck."""
        if found := await self._landed(flight.variants):
            return found
        if time.monotonic() - flight.bumped >= self._patience.bump_after_s:
            bumped = await self._bumped(flight.variants[-1])
            if journal:
                journal(bumped)
            flight.variants.append(bumped)
            flight.bumped, flight.sent = time.monotonic(), False
        if not flight.sent:
            # "taken" is looked into by the next turn: a variant may be in a block, or somebody else's transaction.
            flight.sent = await self._broadcast(flight.variants[-1]) == "sent"
        return None

    async def _landed(self, variants: Sequence[Transaction]) -> Receipt | None:
        for _ in range(_TAKEN_LOOKS):
            # Read before the receipts: a nonce used by then, by none of ours, is somebody else's.
            used = await self._rpc.nonce(self.account, "latest")
            for each in reversed(variants):
                if receipt := await self._rpc.receipt(each.hash):
                    return await self._succeeded(receipt, each)
            if used <= variants[-1].nonce:
                return None
            await asyncio.sleep(self._patience.poll_s)  # an endpoint may learn of the block before its receipts
        raise NonceTakenError(variants[-1].nonce, self.account)

    async def _succeeded(self, receipt: Receipt, tx: Transaction) -> Receipt:
        if receipt.status == 1:
            return receipt
        if tx.to is not None:
            with suppress(RpcRefusedError):  # a pruned node cannot run it again; the plain error has to do
                await self._rpc.call(tx.to, tx.data, sender=self.account, where=receipt.block)
        raise ContractError("Reverted", {"tx": receipt.tx}, "estimate it again on the current state")

    def _explained(self, error: RpcRefusedError) -> Exception:
        if any(words in error.message.lower() for words in _NO_MONEY):
            return GasMoneyError(self.account, error.message)
        return error
