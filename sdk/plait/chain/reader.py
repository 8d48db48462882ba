"""Read the contracts of one deployment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self, cast

from plait.chain.abi import artifact
from plait.chain.deployments import Deployment
from plait.chain.errors import ChainError, ContractError, RpcAnswerError, RpcRefusedError
from plait.chain.rpc import CALL_DEADLINE_S, Rpc, Where
from plait.chain.values import Block
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import ADDRESS_ZERO, Address, Hash, channel_id

GATEWAY, WORKER, STAGE, JUROR = 1, 2, 4, 8  # bits of a node's roles
_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """A node as the registry has it; amounts in base units, times in Unix seconds."""

    owner: Address
    service_key: Address  # the key added last, zero when there is none or it is revoked
    roles: int
    active: bool
    jailed: bool
    stake: int
    unbonding: int
    unbonded_at: int
    jailed_until: int
    registered_at: int
    verdicts: int  # how often the arbiter slashed it; each one halves its reputation
    dht_key: bytes
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceKey:
    """Whose service key a key is, for ever; times in Unix seconds, `revoked_at` 0 while it is valid."""

    owner: Address
    valid_from: int
    revoked_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSlot:
    """A channel as stored; amounts in base units, `exit_at` in Unix seconds, 0 while no exit runs."""

    deposit: int
    claimed: int
    exit_at: int
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Earnings:
    """Where a payee's money is, in base units; totals only grow."""

    earned: int
    fee: int
    released: int
    forfeited: int
    burned: int
    rows: int
    maturing: int
    mature: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A published model; `uri` is a hint, the id decides."""

    id: Hash
    publisher: Address
    blocks: int
    published_at: int
    profiles: tuple[Hash, ...]
    uri: str


class ChainReader:
    """Answers what the chain says now. Make it with `connect`, which checks that it is the right chain."""

    def __init__(self, rpc: Rpc, deployment: Deployment, *, clock: Callable[[], float] = time.time) -> None:
        self.rpc = rpc
        self.deployment = deployment
        self._clock = clock

    @classmethod
    async def connect(
        cls,
        rpc_url: str,
        deployment: Deployment,
        *,
        timeout_s: float = CALL_DEADLINE_S,
        clock: Callable[[], float] = time.time,
    ) -> ChainReader:
        """Connect; raise `RpcDownError`, `WrongChainError`, `WrongCodeError` or `ReorgError` when it does not fit."""
        rpc = Rpc(rpc_url, timeout_s=timeout_s)
        try:
            await deployment.check(rpc)
        except BaseException as error:
            await rpc.close()
            raise _first(error) from error
        return cls(rpc, deployment, clock=clock)

    async def close(self) -> None:
        """Close the connections."""
        await self.rpc.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def block(self, where: Where = "latest") -> Block:
        """Return a block's head."""
        found = await self.rpc.block(where)
        if found is None:
            raise RpcAnswerError(self.rpc.url, method="eth_getBlockByNumber", why=f"it has no block {where}")
        return found

    async def node(self, owner: Address) -> NodeInfo | None:
        """Return a node, None when nobody registered under this address."""
        (raw,) = await self.view("NodeRegistry", "nodeOf", owner)
        return self._node(raw) if raw["registeredAt"] else None

    async def nodes(self, role: int = 0) -> list[NodeInfo]:
        """Return the listed nodes (those with the minimum stake) that have all bits of `role`, at one block."""
        where = (await self.block()).number
        found: list[NodeInfo] = []
        while True:
            (page,) = await self.view("NodeRegistry", "nodes", len(found), _PAGE, where=where)
            found += [self._node(raw) for raw in page]
            if len(page) < _PAGE:
                return [node for node in found if node.roles & role == role]

    async def active(self, owner: Address) -> bool:
        """Say whether the node holds the minimum stake and is not jailed."""
        return (await self.view("NodeRegistry", "isActive", owner))[0]

    async def serves(self, owner: Address, roles: int) -> bool:
        """Say whether the node is active and has all these roles."""
        return (await self.view("NodeRegistry", "serves", owner, roles))[0]

    async def service_key(self, key: Address) -> ServiceKey | None:
        """Return whose service key this is, None for a key nobody ever added."""
        owner, valid_from, revoked_at = await self.view("NodeRegistry", "serviceKey", key)
        if owner == ADDRESS_ZERO:
            return None
        return ServiceKey(owner=owner, valid_from=valid_from, revoked_at=revoked_at)

    async def service_keys_of(self, owner: Address) -> tuple[Address, ...]:
        """Return all keys a node ever had, oldest first, revoked ones included."""
        return (await self.view("NodeRegistry", "serviceKeysOf", owner))[0]

    async def channel(self, payer: Address, payee: Address, signer: Address, *, where: Where = "latest") -> ChannelSlot:
        """Return a channel; all zero when it was never opened."""
        return await self.channel_by_id(channel_id(payer, payee, signer), where=where)

    async def channel_by_id(self, channel: Hash, *, where: Where = "latest") -> ChannelSlot:
        """Return a channel by its id; all zero when it was never opened."""
        (raw,) = await self.view("Channels", "channel", channel, where=where)
        return ChannelSlot(deposit=raw["deposit"], claimed=raw["claimed"], exit_at=raw["exitAt"], jobs=raw["jobs"])

    async def earnings(self, payee: Address) -> Earnings:
        """Return what a payee earned and where it is."""
        where = (await self.block()).number
        (raw,) = await self.view("Channels", "accountOf", payee, where=where)
        maturing, mature = await self.view("Channels", "pendingOf", payee, where=where)
        names = ("earned", "fee", "released", "forfeited", "burned", "rows")
        return Earnings(**{name: raw[name] for name in names}, maturing=maturing, mature=mature)

    async def pending(self, payee: Address) -> int:
        """Return what a payee earned and was not paid yet, in base units."""
        return sum(await self.view("Channels", "pendingOf", payee))

    async def model(self, model: Hash) -> ModelInfo | None:
        """Return a model, None when nobody published it."""
        (raw,) = await self.view("ModelRegistry", "modelOf", model)
        if raw["publisher"] == ADDRESS_ZERO:
            return None
        return ModelInfo(
            id=model,
            publisher=raw["publisher"],
            blocks=raw["blocks"],
            published_at=raw["publishedAt"],
            profiles=tuple(Hash(each) for each in raw["profiles"]),
            uri=raw["uri"],
        )

    async def models(self) -> list[Hash]:
        """Return the ids of all published models, at one block."""
        where = (await self.block()).number
        found: list[Hash] = []
        while True:
            (page,) = await self.view("ModelRegistry", "models", len(found), _PAGE, where=where)
            found += page
            if len(page) < _PAGE:
                return found

    async def reputation(self, owner: Address) -> int:
        """Return a node's score, in base units of fee that its settled work burned, halved for each verdict."""
        return (await self.view("Reputation", "scoreOf", owner))[0]

    async def tier(self, owner: Address) -> int:
        """Return a node's tier, 0 to 15."""
        return (await self.view("Reputation", "tierOf", owner))[0]

    async def tiers(self, owners: Iterable[Address], /) -> dict[Address, int]:
        """Return the tiers of nodes, 0 to 15, all at one block."""
        where = (await self.block()).number
        return {owner: (await self.view("Reputation", "tierOf", owner, where=where))[0] for owner in owners}

    async def token_balance(self, account: Address) -> int:
        """Return an account's tokens, in base units."""
        return (await self.view("Token", "balanceOf", account))[0]

    async def allowance(self, owner: Address, spender: Address) -> int:
        """Return what `spender` may take from `owner`, in base units."""
        return (await self.view("Token", "allowance", owner, spender))[0]

    async def token_separator(self) -> Hash | None:
        """Return the EIP-712 domain separator of what token holders sign, None when the token answers none."""
        word = await self._token_word("DOMAIN_SEPARATOR")
        return Hash(word) if word else None

    async def permit_nonce(self, owner: Address) -> int | None:
        """Return the nonce of an account's next ERC-2612 permit, None when the token answers none."""
        word = await self._token_word("nonces", owner)
        return int.from_bytes(word, "big") if word else None

    async def open_request(self, number: int) -> Hash | None:
        """Return the hash of an open on-chain request's parameters, None for a settled or unknown one."""
        stored = (await self.view("Requests", "openRequest", number))[0]
        return Hash(stored) if any(stored) else None

    async def view(self, contract: str, function: str, *arguments: object, where: Where = "latest") -> tuple[Any, ...]:
        """Call a view of a contract and return its results."""
        called = artifact(contract).functions[function]
        data = await self.rpc.call(self.deployment.address(contract), called.encode(*arguments), where=where)
        try:
            return called.decode(data)
        except MalformedMessageError as error:
            raise RpcAnswerError(self.rpc.url, method=f"{contract}.{function}", why=str(error)) from error

    async def _token_word(self, function: str, *arguments: object) -> bytes | None:
        """Return 32 bytes; None for a token without the function, which refuses, or whose fallback takes any call."""
        data = artifact("Token").functions[function].encode(*arguments)
        try:
            answer = await self.rpc.call(self.deployment.address("Token"), data)
        except (ContractError, RpcRefusedError):  # the oldest tokens end in an invalid instruction, not in a revert
            return None
        return answer if len(answer) == 32 else None

    def _node(self, raw: dict[str, Any]) -> NodeInfo:
        return NodeInfo(
            owner=raw["owner"],
            service_key=raw["serviceKey"],
            roles=raw["roles"],
            active=raw["active"],
            jailed=raw["jailedUntil"] > self._clock(),
            stake=raw["stake"],
            unbonding=raw["unbonding"],
            unbonded_at=raw["unbondedAt"],
            jailed_until=raw["jailedUntil"],
            registered_at=raw["registeredAt"],
            verdicts=raw["verdicts"],
            dht_key=raw["dhtKey"],
            endpoint=raw["endpoint"],
        )


def _first(error: BaseException) -> BaseException:
    """Return the first error of a group of parallel calls; they fail for the same reason."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        chain = [each for each in group.exceptions if isinstance(each, ChainError)]
        return _first((chain or group.exceptions)[0])
    return error
