"""Compare contract storage with what the logs say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from eth_abi.abi import encode as abi_encode

from plait.chain.abi import artifact
from plait.chain.reader import ChainReader
from plait.protocol.ids import ADDRESS_ZERO, keccak, to_hex
from plait_audit.load import Replay
from plait_audit.state import Account, Channel, Finding, Node, Place, Request, State

_CHECK = "storage-equals-logs"


async def storage_equals_replay(reader: ChainReader, replay: Replay) -> AsyncIterator[Finding]:
    """Find every channel, account, node, key, model and request whose storage differs from its replay."""
    for part in (_channels, _accounts, _nodes, _keys, _models, _requests):
        async for finding in part(reader, replay):
            yield finding


def _differ(what: str, place: Place | None, stored: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> Iterator[Finding]:
    for name, value in rebuilt.items():
        if stored[name] != value:
            text = f"{what}: {name} is {_shown(stored[name])} in storage, {_shown(value)} by the logs"
            yield Finding(check=_CHECK, text=text, place=place)


def _shown(value: object) -> str:
    return to_hex(value) if isinstance(value, bytes) else str(value)


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "deposit": channel.deposit,
        "claimed": channel.claimed,
        "exitAt": channel.exit_at,
        "jobs": channel.jobs,
    }


async def _channels(reader: ChainReader, replay: Replay) -> AsyncIterator[Finding]:
    for number, channel in replay.state.channels.items():
        (stored,) = await reader.view("Channels", "channel", number, where=replay.block.number)
        for finding in _differ(f"channel {to_hex(number)}", channel.place, stored, _channel(channel)):
            yield finding


def _account(account: Account) -> dict[str, Any]:
    return {
        "previous": account.previous,
        "current": account.current,
        "epoch": account.epoch,
        "earned": account.earned,
        "fee": account.fee,
        "rows": account.rows,
        "released": account.released,
        "forfeited": account.forfeited,
        "burned": account.burned,
        "releasedNow": account.released_now,
        "releaseEpoch": account.release_epoch,
    }


async def _accounts(reader: ChainReader, replay: Replay) -> AsyncIterator[Finding]:
    for payee, account in replay.state.accounts.items():
        (stored,) = await reader.view("Channels", "accountOf", payee, where=replay.block.number)
        for finding in _differ(f"account of {to_hex(payee)}", account.place, stored, _account(account)):
            yield finding
        if account.unaccrued:
            text = f"account of {to_hex(payee)}: {account.unaccrued} base units were claimed and never accrued"
            yield Finding(check="earnings", text=text, place=account.place)
        verdicts = node.verdicts if (node := replay.state.nodes.get(payee)) else 0
        (score,) = await reader.view("Reputation", "scoreOf", payee, where=replay.block.number)
        for finding in _differ(
            f"reputation of {to_hex(payee)}", account.place, {"score": score}, {"score": _score(account, verdicts)}
        ):
            yield finding


def _score(account: Account, verdicts: int) -> int:
    """Restate `Reputation.scoreOf`: the fee burned by settled work, less the forfeited share, halved per verdict."""
    net = account.earned - account.fee
    kept = account.fee * (net - account.forfeited) // net if account.forfeited else account.fee
    return kept >> verdicts


def _node(node: Node) -> dict[str, Any]:
    return {
        "roles": node.roles,
        "endpoint": node.endpoint,
        "dhtKey": node.dht_key,
        "stake": node.stake,
        "unbonding": node.unbonding,
        "unbondedAt": node.unbonded_at,
        "jailedUntil": node.jailed_until,
        "verdicts": node.verdicts,
    }


async def _nodes(reader: ChainReader, replay: Replay) -> AsyncIterator[Finding]:
    for owner, node in replay.state.nodes.items():
        (stored,) = await reader.view("NodeRegistry", "nodeOf", owner, where=replay.block.number)
        for finding in _differ(f"node {to_hex(owner)}", node.place, stored, _node(node)):
            yield finding


async def _keys(reader: ChainReader, replay: Replay) -> AsyncIterator[Finding]:
    for address, key in replay.state.keys.items():
        stored = await reader.view("NodeRegistry", "serviceKey", address, where=replay.block.number)
        rebuilt = (key.owner, key.valid_from, key.revoked_at)
        for finding in _differ(f"service key {to_hex(address)}", key.place, _named(stored), _named(rebuilt)):
            yield finding


def _named(key: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("owner", "validFrom", "revokedAt"), key, strict=True))


async def _models(reader: ChainReader, replay: Replay) -> AsyncIterator[Finding]:
    for number, model in replay.state.models.items():
        (stored,) = await reader.view("ModelRegistry", "modelOf", number, where=replay.block.number)
        rebuilt = {"publisher": model.publisher, "blocks": model.blocks, "profiles": model.profiles, "uri": model.uri}
        for finding in _differ(f"model {to_hex(number)}", model.place, stored, rebuilt):
            yield finding


async def _requests(reader: ChainReader, replay: Replay) -> AsyncIterator[Finding]:
    where = replay.block.number
    for number, request in replay.state.requests.items():
        (stored,) = await reader.view("Requests", "openRequest", number, where=where)
        pair = {"open": stored}, {"open": params_hash(request) if request.status == "open" else bytes(32)}
        for finding in _differ(f"request {number}", request.place, *pair):
            yield finding
    async for finding in _counts(reader, replay.state, where):
        yield finding


def params_hash(request: Request) -> bytes:
    """Restate what `Requests` keeps of an open request: keccak256(abi.encode(params))."""
    struct = next(field.type for field in artifact("Requests").event("Requested").fields if field.name == "params")
    return keccak(abi_encode([struct], [tuple(request.params.values())]))


async def _counts(reader: ChainReader, state: State, where: int) -> AsyncIterator[Finding]:
    (requests,) = await reader.view("Requests", "requestCount", where=where)
    (models,) = await reader.view("ModelRegistry", "modelCount", where=where)
    (listed,) = await reader.view("NodeRegistry", "nodeCount", where=where)
    (minimum,) = await reader.view("NodeRegistry", "minStake", where=where)
    staked = sum(node.stake >= minimum for owner, node in state.nodes.items() if owner != ADDRESS_ZERO)
    stored = {"requests": requests, "models": models, "listed nodes": listed}
    rebuilt = {"requests": len(state.requests), "models": len(state.models), "listed nodes": staked}
    for finding in _differ("count", None, stored, rebuilt):
        yield finding
