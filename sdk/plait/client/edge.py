"""What the client asks of the chain; one class, so that tests need no EVM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from plait.chain.abi import artifact
from plait.chain.directory import CachedDirectory
from plait.chain.errors import RpcRefusedError
from plait.chain.logs import DecodedEvent, decode, read_logs
from plait.chain.orders import Order, RequestParameters
from plait.chain.reader import GATEWAY, ChainReader, ChannelSlot, ModelInfo, NodeInfo
from plait.chain.values import Block
from plait.chain.writer import ChainWriter, TxResult
from plait.client.settings import Settings
from plait.protocol.checks import NodeDirectory
from plait.protocol.errors import VerificationError
from plait.protocol.ids import Address, Hash, keccak, to_hex
from plait.protocol.typed import Domain

_FINALITY_BLOCKS = 64  # where the endpoint knows no `finalized` block


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of a channel that is in a block: its tree then had `jobs` leaves under `root`."""

    jobs: int
    root: Hash
    transaction: Hash
    block: int
    gas_used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fulfilment:
    """An on-chain answer as the chain has it; `output` are the ids in the transaction's calldata."""

    model: Hash
    receipt: Hash
    output: bytes
    transaction: Hash
    gas_used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """An on-chain request that ended without an answer; its `fee` went back, in base units."""

    how: Literal["cancelled", "refunded"]
    fee: int
    transaction: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an on-chain request asked for; `request` is its name everywhere."""

    request: Hash
    parameters: RequestParameters


class ChainEdge(Protocol):
    """The chain as the client sees it."""

    domain: Domain
    identity: Hash
    directory: NodeDirectory

    async def gateways(self) -> list[NodeInfo]:
        """Return the staked, active gateways."""
        ...

    async def node(self, owner: Address) -> NodeInfo | None:
        """Return one node."""
        ...

    async def reputation(self, owner: Address) -> int:
        """Return a node's score, in base units of burned fee."""
        ...

    async def model(self, model: Hash) -> ModelInfo | None:
        """Return a published model."""
        ...

    async def balance(self) -> int:
        """Return the payer's tokens, in base units."""
        ...

    async def channel(self, payee: Address, signer: Address) -> ChannelSlot:
        """Return the payer's channel to a payee."""
        ...

    async def open_channel(self, payee: Address, signer: Address, amount: int) -> None:
        """Open a channel with a deposit."""
        ...

    async def top_up(self, payee: Address, signer: Address, amount: int) -> None:
        """Add to a channel's deposit."""
        ...

    async def claims(self, channel: Hash) -> list[Claim]:
        """Return a channel's claims, oldest first."""
        ...

    async def heads(self) -> tuple[Block, int]:
        """Return the newest block and the number of the newest final one."""
        ...

    async def submit_request(self, order: Order, ids: list[int]) -> TxResult:
        """Send an on-chain request."""
        ...

    async def submit_commitment(self, order: Order, prompt: Hash, input_tokens: int) -> TxResult:
        """Send an on-chain request with a commitment to its prompt."""
        ...

    async def asked(self, number: int) -> Asked | None:
        """Return what an on-chain request asked for, None for a number that no request has."""
        ...

    async def cancel(self, number: int, parameters: RequestParameters) -> TxResult:
        """End one of the payer's on-chain requests after its exclusive period."""
        ...

    async def refund(self, number: int, parameters: RequestParameters) -> TxResult:
        """Send the fee of an on-chain request back after its deadline."""
        ...

    async def ended(self, number: int) -> Fulfilment | Ending | None:
        """Return how an on-chain request ended, None while it is open."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class RpcEdge:
    """The edge over JSON-RPC."""

    def __init__(self, reader: ChainReader, settings: Settings) -> None:
        self._reader = reader
        self._settings = settings
        self._writer = ChainWriter(reader, settings.key) if settings.key else None
        self._deployment = reader.deployment
        self.domain = reader.deployment.domain
        self.identity = reader.deployment.identity
        self.directory: NodeDirectory = CachedDirectory(reader)

    @classmethod
    async def connect(cls, settings: Settings) -> RpcEdge:
        """Connect and check that the endpoint serves this deployment."""
        return cls(await ChainReader.connect(settings.rpc, settings.deployment), settings)

    async def gateways(self) -> list[NodeInfo]:
        """Return the staked, active gateways."""
        return [node for node in await self._reader.nodes(GATEWAY) if node.active and not node.jailed]

    async def node(self, owner: Address) -> NodeInfo | None:
        """Return one node."""
        return await self._reader.node(owner)

    async def reputation(self, owner: Address) -> int:
        """Return a node's score, in base units of burned fee."""
        return await self._reader.reputation(owner)

    async def model(self, model: Hash) -> ModelInfo | None:
        """Return a published model."""
        return await self._reader.model(model)

    async def balance(self) -> int:
        """Return the payer's tokens, in base units."""
        return await self._reader.token_balance(self._settings.payer().address)

    async def channel(self, payee: Address, signer: Address) -> ChannelSlot:
        """Return the payer's channel to a payee."""
        return await self._reader.channel(self._settings.payer().address, payee, signer)

    async def open_channel(self, payee: Address, signer: Address, amount: int) -> None:
        """Open a channel with a deposit."""
        await self._writing().open_channel(payee, signer, amount)

    async def top_up(self, payee: Address, signer: Address, amount: int) -> None:
        """Add to a channel's deposit."""
        await self._writing().top_up(payee, signer, amount)

    async def claims(self, channel: Hash) -> list[Claim]:
        """Return a channel's claims, oldest first."""
        found: list[Claim] = []
        for event in await self._events("Channels", ["VoucherClaimed"], channel):
            receipt = await self._reader.rpc.receipt(event.log.tx)
            found.append(
                Claim(
                    jobs=event.values["jobs"],
                    root=Hash(event.values["receiptsRoot"]),
                    transaction=event.log.tx,
                    block=event.log.block,
                    gas_used=receipt.gas_used if receipt else 0,
                )
            )
        return found

    async def heads(self) -> tuple[Block, int]:
        """Return the newest block and the number of the newest final one."""
        head = await self._reader.block()
        try:
            final = await self._reader.rpc.block("finalized")
        except RpcRefusedError:
            final = None
        return head, final.number if final else max(0, head.number - _FINALITY_BLOCKS)

    async def submit_request(self, order: Order, ids: list[int]) -> TxResult:
        """Send an on-chain request."""
        return await self._writing().submit_request(order, ids)

    async def submit_commitment(self, order: Order, prompt: Hash, input_tokens: int) -> TxResult:
        """Send an on-chain request with a commitment to its prompt."""
        return await self._writing().submit_commitment(order, prompt, input_tokens)

    async def asked(self, number: int) -> Asked | None:
        """Return what an on-chain request asked for, None for a number that no request has."""
        events = await self._events("Requests", ["Requested"], _word(number))
        return asked_from(events[-1].values) if events else None

    async def cancel(self, number: int, parameters: RequestParameters) -> TxResult:
        """End one of the payer's on-chain requests after its exclusive period."""
        return await self._writing().cancel(number, parameters)

    async def refund(self, number: int, parameters: RequestParameters) -> TxResult:
        """Send the fee of an on-chain request back after its deadline."""
        return await self._writing().refund(number, parameters)

    async def ended(self, number: int) -> Fulfilment | Ending | None:
        """Return how an on-chain request ended, None while it is open."""
        events = await self._events("Requests", ["Fulfilled", "Cancelled", "Refunded"], _word(number))
        if not events:
            return None
        event = events[-1]
        match event.name:
            case "Cancelled":
                return Ending(how="cancelled", fee=event.values["fee"], transaction=event.log.tx)
            case "Refunded":
                return Ending(how="refunded", fee=event.values["fee"], transaction=event.log.tx)
            case _:
                return await self._fulfilment(event)

    async def close(self) -> None:
        """Close the connections."""
        await self._reader.close()

    async def _fulfilment(self, event: DecodedEvent) -> Fulfilment:
        receipt = await self._reader.rpc.receipt(event.log.tx)
        arguments = await self._fulfil_arguments(event)
        return Fulfilment(
            model=Hash(arguments["params"]["model"]),
            receipt=Hash(event.values["receipt"]),
            output=bytes(arguments["output"]),
            transaction=event.log.tx,
            gas_used=receipt.gas_used if receipt else 0,
        )

    async def _fulfil_arguments(self, event: DecodedEvent) -> dict[str, Any]:
        found = await self._reader.rpc.request("eth_getTransactionByHash", to_hex(event.log.tx))
        text = cast("dict[str, object]", found).get("input") if isinstance(found, dict) else None
        try:
            data = bytes.fromhex(str(text).removeprefix("0x"))
            arguments = artifact("Requests").functions["fulfil"].decode_inputs(data)
        except ValueError as error:
            raise VerificationError("output", "the transaction does not carry the answer itself") from error
        if keccak(arguments["output"]) != event.values["outputHash"]:
            raise VerificationError("output", "the transaction's token ids are not those of its event")
        return arguments

    async def _events(self, contract: str, names: Sequence[str], first_indexed: Hash) -> list[DecodedEvent]:
        head = await self._reader.block()
        kinds = [artifact(contract).event(name).topic for name in names]
        found: list[DecodedEvent] = []
        ranges = read_logs(
            self._reader.rpc,
            addresses=[self._deployment.address(contract)],
            first=self._deployment.block,
            last=head.number,
            topics=[kinds, [first_indexed]],
        )
        async for each in ranges:
            found += [event for log in each.logs if (event := decode(self._deployment, log))]
        return found

    def _writing(self) -> ChainWriter:
        self._settings.payer()
        if self._writer is None:
            raise AssertionError("a key was checked above")
        return self._writer


def asked_from(event: Mapping[str, Any]) -> Asked:
    """Read a `Requested` event."""
    return Asked(request=Hash(event["request"]), parameters=RequestParameters.from_event(event["params"]))


def _word(number: int) -> Hash:
    return Hash(number.to_bytes(32, "big"))
