"""Send transactions to the contracts of one deployment with one key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plait.chain.abi import artifact
from plait.chain.deposits import PERMIT_LIFE_S, Authorization, sign_permit
from plait.chain.errors import ChannelsError, ContractError, RequestsError
from plait.chain.lane import JournalTransaction, Lane, Patience, Transaction
from plait.chain.logs import DecodedEvent, decode
from plait.chain.orders import Order, RequestParameters
from plait.chain.reader import GATEWAY, ChainReader
from plait.chain.values import Receipt
from plait.protocol.ids import Address, Hash, Signature
from plait.protocol.messages import Close, ServiceKey
from plait.protocol.receipts import ClaimRow
from plait.protocol.typed import Key, Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class TxResult:
    """A transaction that succeeded; `fee_wei` is what its gas cost."""

    hash: Hash
    block: int
    gas_used: int
    fee_wei: int
    events: tuple[DecodedEvent, ...]

    def event(self, name: str) -> dict[str, Any] | None:
        """Return the values of the first event of this name."""
        return next((event.values for event in self.events if event.name == name), None)


class ChainWriter:
    """Sends transactions; each method waits until its transaction is in a block.

    All raise `ContractError` when the contract says no, `PendingError` when no block takes the transaction in time.
    Everything that sends with one key shares one writer.
    """

    def __init__(self, reader: ChainReader, key: Key, *, patience: Patience | None = None) -> None:
        self.reader = reader
        self._deployment = reader.deployment
        self.key = key
        self._lane = Lane(reader.rpc, key, reader.deployment.chain_id, patience=patience)
        self._spending = asyncio.Lock()

    @property
    def account(self) -> Address:
        """Return the account that sends and pays."""
        return self.key.address

    async def open_channel(
        self, payee: Address, signer: Address, amount: int, *, journal: JournalTransaction | None = None
    ) -> TxResult:
        """Open a channel from the account with `amount` base units.

        One transaction where the token has permits (ERC-2612) or an allowance suffices, else an approval and another;
        `journal` gets the one that moves the money. Raise `ChannelsError` when the channel cannot be opened.
        """
        return await self._deposit("open", payee, signer, amount, journal)

    async def open_channel_for(self, authorization: Authorization) -> TxResult:
        """Open a payer's channel with the EIP-3009 authorization it signed; the account pays the gas, nothing else.

        Raise `ChannelsError` when the channel cannot be opened, `TokenError` when the authorization was used or
        cancelled, is too early or too late, or was signed by another key or for another channel.
        """
        return await self._carry("openWithAuthorization", authorization)

    async def top_up(
        self, payee: Address, signer: Address, amount: int, *, journal: JournalTransaction | None = None
    ) -> TxResult:
        """Add `amount` base units to one of the account's channels, in as many transactions as `open_channel`."""
        return await self._deposit("topUp", payee, signer, amount, journal)

    async def top_up_for(self, authorization: Authorization) -> TxResult:
        """Add to a payer's channel with the EIP-3009 authorization it signed; raise what `open_channel_for` raises."""
        return await self._carry("topUpWithAuthorization", authorization)

    async def exit(self, payee: Address, signer: Address) -> TxResult:
        """Start to leave a channel."""
        return await self.send("Channels", "exit", payee, signer)

    async def withdraw(self, payee: Address, signer: Address) -> TxResult:
        """Take out what is left once the exit is due."""
        return await self.send("Channels", "withdraw", payee, signer)

    async def close_channel(self, close: Signed[Close]) -> TxResult:
        """End a channel at once with the payee's consent; anyone may send it."""
        message, (r, vs) = close.message, _halves(close.signature)
        return await self.send("Channels", "close", message.payer, message.payee, message.signer, r, vs)

    async def claim(
        self, payee: Address, rows: Sequence[ClaimRow], *, journal: JournalTransaction | None = None
    ) -> TxResult:
        """Claim vouchers for a payee; bad rows are skipped, see `skipped_rows`."""
        return await self.send("Channels", "claim", payee, claim_bytes(rows), journal=journal)

    async def release(self, payee: Address) -> TxResult:
        """Pay a payee what is mature."""
        return await self.send("Channels", "release", payee)

    async def burn(self, payee: Address) -> TxResult:
        """Send a payee's fees to the burn address."""
        return await self.send("Channels", "burn", payee)

    async def register_node(self, roles: int, endpoint: str, dht_key: bytes = bytes(32)) -> TxResult:
        """Register the account as a node."""
        return await self.send("NodeRegistry", "register", roles, endpoint, dht_key)

    async def set_roles(self, roles: int) -> TxResult:
        """Replace the node's roles."""
        return await self.send("NodeRegistry", "setRoles", roles)

    async def set_endpoint(self, endpoint: str) -> TxResult:
        """Replace the node's endpoint."""
        return await self.send("NodeRegistry", "setEndpoint", endpoint)

    async def set_dht_key(self, dht_key: bytes) -> TxResult:
        """Replace the node's DHT key."""
        return await self.send("NodeRegistry", "setDhtKey", dht_key)

    async def add_service_key(self, service: Key) -> TxResult:
        """Bind a service key to the account for ever; the key proves itself."""
        proof = service.sign(self._deployment.domain, ServiceKey(owner=self.account, key=service.address))
        return await self.send("NodeRegistry", "addServiceKey", service.address, *_halves(proof))

    async def revoke_service_key(self, key: Address) -> TxResult:
        """Revoke one of the node's service keys."""
        return await self.send("NodeRegistry", "revokeServiceKey", key)

    async def stake(self, amount: int) -> TxResult:
        """Add `amount` base units to the node's stake, approving them first."""
        return await self._spend("NodeRegistry", "NodeRegistry", amount, "stake", amount)

    async def unbond(self, amount: int) -> TxResult:
        """Start to take `amount` base units of stake out."""
        return await self.send("NodeRegistry", "unbond", amount)

    async def withdraw_unbonded(self) -> TxResult:
        """Take out stake whose unbonding is over."""
        return await self.send("NodeRegistry", "withdrawUnbonded")

    async def publish_model(self, model: Hash, blocks: int, profiles: Sequence[Hash], uri: str) -> TxResult:
        """Publish a model under the account's name, for ever."""
        return await self.send("ModelRegistry", "publish", model, blocks, list(profiles), uri)

    async def mint(self, to: Address, amount: int) -> TxResult:
        """Mint tokens of the local test token; no other token allows it."""
        return await self.send("Token", "mint", to, amount)

    async def transfer(self, to: Address, amount: int) -> TxResult:
        """Send tokens, in base units."""
        return await self.send("Token", "transfer", to, amount)

    async def submit_request(self, order: Order, ids: Sequence[int]) -> TxResult:
        """Ask a named node on chain, prompt and all, and put the fee in escrow; `Requested` names the request.

        Raise `RequestsError` when the node is no active gateway: nobody could answer before the refund.
        """
        await self._check_serves(order.gateway)
        arguments = (order.encodable(), ids_bytes(ids))
        return await self._spend("Requests", "Requests", order.fee, "request", *arguments)

    async def submit_commitment(self, order: Order, prompt: Hash, input_tokens: int) -> TxResult:
        """Ask as `submit_request` does, with a commitment on chain to a prompt that the node is given elsewhere."""
        await self._check_serves(order.gateway)
        arguments = (order.encodable(), prompt, input_tokens)
        return await self._spend("Requests", "Requests", order.fee, "requestByCommitment", *arguments)

    async def fulfil(
        self,
        number: int,
        parameters: RequestParameters,
        receipt: Hash,
        output: Sequence[int],
        *,
        journal: JournalTransaction | None = None,
    ) -> TxResult:
        """Answer an on-chain request with a service key of its gateway."""
        arguments = (number, parameters.encodable(), receipt, ids_bytes(output))
        return await self.send("Requests", "fulfil", *arguments, journal=journal)

    async def cancel(self, number: int, parameters: RequestParameters) -> TxResult:
        """End one of the account's own requests after its exclusive period; the fee comes back."""
        return await self.send("Requests", "cancel", number, parameters.encodable())

    async def refund(self, number: int, parameters: RequestParameters) -> TxResult:
        """Pay the fee of a timed-out request back to its payer."""
        return await self.send("Requests", "refund", number, parameters.encodable())

    async def send(
        self, contract: str, function: str, *arguments: object, journal: JournalTransaction | None = None
    ) -> TxResult:
        """Call a function of a contract in a transaction."""
        data = artifact(contract).functions[function].encode(*arguments)
        return self.result(await self._lane.send(self._deployment.address(contract), data, journal=journal))

    async def send_coin(self, to: Address, wei: int) -> TxResult:
        """Send the chain's own coin."""
        return self.result(await self._lane.send(to, b"", value=wei))

    async def resume(self, variants: Sequence[Transaction], *, journal: JournalTransaction | None = None) -> TxResult:
        """Bring a journalled transaction to its end; raise `NonceTakenError` when it can never land."""
        return self.result(await self._lane.resume(variants, journal=journal))

    def result(self, receipt: Receipt) -> TxResult:
        """Return a receipt with its events read."""
        events = (decode(self._deployment, log) for log in receipt.logs)
        return TxResult(
            hash=receipt.tx,
            block=receipt.block,
            gas_used=receipt.gas_used,
            fee_wei=receipt.gas_used * receipt.gas_price,
            events=tuple(event for event in events if event),
        )

    async def _check_serves(self, gateway: Address) -> None:
        if not await self.reader.serves(gateway, GATEWAY):
            values = {"gateway": gateway}
            raise RequestsError("Requests_GatewayNotActive", values, "name a staked node in the gateway role")

    async def _carry(self, function: str, signed: Authorization) -> TxResult:
        parties = signed.payer, signed.payee, signed.signer
        return await self.send("Channels", function, *parties, signed.amount, signed.encodable())

    async def _deposit(
        self, function: str, payee: Address, signer: Address, amount: int, journal: JournalTransaction | None
    ) -> TxResult:
        async with self._spending:  # a permit replaces the allowance, and its nonce serves once
            channels = self._deployment.address("Channels")
            if await self.reader.allowance(self.account, channels) < amount:
                if permitted := await self._with_permit(function, payee, signer, amount, journal):
                    return permitted
                await self.send("Token", "approve", channels, amount)
            return await self.send("Channels", function, payee, signer, amount, journal=journal)

    async def _with_permit(
        self, function: str, payee: Address, signer: Address, amount: int, journal: JournalTransaction | None
    ) -> TxResult | None:
        """Deposit with a permit; None, and nothing was sent, when an approval may do what the permit did not."""
        separator, nonce = await self.reader.token_separator(), await self.reader.permit_nonce(self.account)
        if separator is None or nonce is None:
            return None
        permit = sign_permit(
            self.key,
            separator,
            spender=self._deployment.address("Channels"),
            amount=amount,
            nonce=nonce,
            deadline=(await self.reader.block()).timestamp + PERMIT_LIFE_S,
        )
        sent: list[Transaction] = []

        def signed(tx: Transaction) -> None:
            sent.append(tx)
            if journal:
                journal(tx)

        arguments = (payee, signer, amount, permit.encodable())
        try:
            return await self.send("Channels", f"{function}WithPermit", *arguments, journal=signed)
        except ContractError as error:
            if sent or isinstance(error, ChannelsError) or await self.reader.token_balance(self.account) < amount:
                raise
            return None

    async def _spend(self, contract: str, spender: str, amount: int, function: str, *arguments: object) -> TxResult:
        async with self._spending:  # an allowance is one number: approvals that overlap would overwrite it
            to = self._deployment.address(spender)
            if await self.reader.allowance(self.account, to) < amount:
                await self.send("Token", "approve", to, amount)
            return await self.send(contract, function, *arguments)


def claim_bytes(rows: Sequence[ClaimRow]) -> bytes:
    """Return rows as `Channels.claim` reads them."""
    return b"".join(row.pack() for row in rows)


def skipped_rows(result: TxResult) -> tuple[int, ...]:
    """Return which rows of a claim were bad and changed nothing."""
    skipped = result.event("RowsSkipped")
    bitmap = int(skipped["bitmap"]) if skipped else 0
    return tuple(at for at in range(bitmap.bit_length()) if bitmap >> at & 1)


def ids_bytes(ids: Sequence[int]) -> bytes:
    """Return token ids as 4 bytes each, big-endian."""
    return b"".join(each.to_bytes(4, "big") for each in ids)


def ids_from(data: bytes) -> tuple[int, ...]:
    """Return the token ids in 4-byte big-endian words."""
    return tuple(int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4))


def _halves(signature: Signature) -> tuple[bytes, bytes]:
    return signature[:32], signature[32:]
