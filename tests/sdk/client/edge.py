"""A chain in memory, as the client's edge sees it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.sdk.swarm import DOMAIN, NOW, Swarm

from plait.chain.abi import artifact
from plait.chain.orders import Order, RequestParameters
from plait.chain.reader import GATEWAY, ChannelSlot, ModelInfo, NodeInfo
from plait.chain.values import Block
from plait.client.edge import Asked, Claim, Ending, Fulfilment, asked_from
from plait.protocol.commitments import prompt_commitment
from plait.protocol.ids import ADDRESS_ZERO, Address, Hash, channel_id, keccak
from plait.protocol.sealing import ContentKey

URL = "http://gateway.test"
PARAMS = [part.name for part in artifact("Requests").functions["fulfil"].inputs[1].parts]


@dataclass(slots=True, kw_only=True)
class FakeEdge:
    """A chain in memory with one gateway and one wallet."""

    swarm: Swarm
    payer: Address
    wallet: int = 10_000_000
    slots: dict[Hash, ChannelSlot] = field(default_factory=dict)
    found_claims: list[Claim] = field(default_factory=list)
    endings: dict[int, Fulfilment | Ending] = field(default_factory=dict)
    requests: dict[int, Asked] = field(default_factory=dict)
    taken_back: list[tuple[str, int, RequestParameters]] = field(default_factory=list)
    orders: list[object] = field(default_factory=list)
    endpoint: str = URL
    head: int = NOW
    final: int = 0
    transactions: list[str] = field(default_factory=list)
    closed: bool = False

    domain = DOMAIN
    identity = keccak(b"deployment")

    @property
    def directory(self) -> object:
        return self.swarm.directory

    async def gateways(self) -> list[NodeInfo]:
        return [self.node_info(self.swarm.gateway.owner)]

    async def node(self, owner: Address) -> NodeInfo | None:
        return self.node_info(owner) if owner == self.swarm.gateway.owner else None

    async def reputation(self, owner: Address) -> int:
        return 77

    async def model(self, model: Hash) -> ModelInfo | None:
        if model != self.swarm.manifest.model_id:
            return None
        return ModelInfo(id=model, publisher=Address(b"\1" * 20), blocks=30, published_at=1, profiles=(), uri="")

    async def balance(self) -> int:
        return self.wallet

    async def channel(self, payee: Address, signer: Address) -> ChannelSlot:
        return self.slots.get(
            channel_id(self.payer, payee, signer), ChannelSlot(deposit=0, claimed=0, exit_at=0, jobs=0)
        )

    async def open_channel(self, payee: Address, signer: Address, amount: int) -> None:
        self.transactions.append("open")
        self.add(payee, signer, amount)

    async def top_up(self, payee: Address, signer: Address, amount: int) -> None:
        self.transactions.append("top up")
        self.add(payee, signer, amount)

    def add(self, payee: Address, signer: Address, amount: int) -> None:
        name = channel_id(self.payer, payee, signer)
        slot = self.slots.get(name, ChannelSlot(deposit=0, claimed=0, exit_at=0, jobs=0))
        self.slots[name] = replace(slot, deposit=slot.deposit + amount)
        self.wallet -= amount

    async def claims(self, channel: Hash) -> list[Claim]:
        return self.found_claims

    async def heads(self) -> tuple[Block, int]:
        raw = {"number": "0x64", "hash": "0x" + "11" * 32, "parentHash": "0x" + "22" * 32}
        block = Block.model_validate({**raw, "timestamp": hex(self.head), "gasLimit": "0x1"})
        return block, self.final

    async def submit_request(self, order: Order, ids: list[int]) -> object:
        self.orders.append((order, ids))
        return self.made(order, prompt_commitment(ContentKey.public(), ids), len(ids))

    async def submit_commitment(self, order: Order, prompt: Hash, input_tokens: int) -> object:
        self.orders.append((order, prompt))
        return self.made(order, prompt, input_tokens)

    def made(self, order: Order, prompt: Hash, input_tokens: int) -> object:
        values = [self.payer, *order.encodable()]
        values[4:4], values[8:8] = [prompt], [input_tokens]
        event = {"id": 7, "request": keccak(b"request 7"), "params": dict(zip(PARAMS, values, strict=True))}
        self.requests[7] = asked_from(event)
        return type("Sent", (), {"event": staticmethod(lambda name: event if name == "Requested" else None)})()

    async def ended(self, number: int) -> Fulfilment | Ending | None:
        return self.endings.get(number)

    async def asked(self, number: int) -> Asked | None:
        return self.requests.get(number)

    async def cancel(self, number: int, parameters: RequestParameters) -> object:
        return self.take_back("cancel", number, parameters)

    async def refund(self, number: int, parameters: RequestParameters) -> object:
        return self.take_back("refund", number, parameters)

    def take_back(self, how: str, number: int, parameters: RequestParameters) -> object:
        self.taken_back.append((how, number, parameters))
        return type("Sent", (), {"hash": Hash(bytes([len(self.taken_back)]) * 32)})()

    async def close(self) -> None:
        self.closed = True

    def node_info(self, owner: Address) -> NodeInfo:
        return NodeInfo(
            owner=owner,
            service_key=ADDRESS_ZERO,
            roles=GATEWAY,
            active=True,
            jailed=False,
            stake=5,
            unbonding=0,
            unbonded_at=0,
            jailed_until=0,
            registered_at=1,
            verdicts=0,
            dht_key=bytes(32),
            endpoint=self.endpoint,
        )
