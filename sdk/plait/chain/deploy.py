"""Deploy all contracts from the bytecode that ships: no compiler, no script.

`prepare` decides, `carry_out` sends, `deploy` does both. A run that was stopped goes on from its journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from plait.chain.abi import artifact
from plait.chain.deployments import Deployment, Parameters, Placed
from plait.chain.draft import Journal
from plait.chain.errors import ContractError, DeploymentError, NonceTakenError, ReorgError, WrongCodeError
from plait.chain.lane import Lane, Patience, Transaction
from plait.chain.plan import ExternalToken, Plan, Step, plan_of
from plait.chain.rpc import Rpc
from plait.chain.values import HashData, Receipt
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import ADDRESS_ZERO, HASH_ZERO, Address, Hash, keccak, to_hex
from plait.protocol.typed import Key

LOCAL_CHAINS = (1_337, 31_337)
_NONCE_LOOKS = 10
_NONCE_PAUSE_S = 0.5
_EIP1967 = b"eip1967.proxy.implementation", b"eip1967.proxy.beacon"
_PROXY_SLOTS = (
    *(int.from_bytes(keccak(each), "big") - 1 for each in _EIP1967),
    int.from_bytes(keccak(b"org.zeppelinos.proxy.implementation"), "big"),  # before EIP-1967: USDC has it
)
_SLOT: TypeAdapter[Hash] = TypeAdapter(HashData)


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """A contract that is on the chain; `earlier` when the run before this one sent it."""

    step: Step
    receipt: Receipt
    earlier: bool


Say = Callable[[Landed], None]


async def deploy(
    rpc_url: str,
    key: Key,
    parameters: Parameters | None = None,
    *,
    token: Address | None = None,
    patience: Patience | None = None,
) -> Deployment:
    """Deploy all contracts with the key's money, and return where they are.

    Without `token` a worthless one is deployed too, on local chains only. Contracts that name each other get addresses
    predicted from deployer and nonce. Run nothing else with this key meanwhile: raise `DeploymentError` when its nonce
    moves.
    """
    async with Rpc(rpc_url) as rpc:
        found = await find_token(rpc, token) if token else None
        plan = await prepare(rpc, key.address, parameters or Parameters(), token=found)
        return await carry_out(rpc, key, plan, Journal(plan), patience=patience)


async def prepare(
    rpc: Rpc,
    deployer: Address,
    parameters: Parameters,
    *,
    token: ExternalToken | None = None,
    test_token: bool = False,
    nonce: int | None = None,
) -> Plan:
    """Return what a deployment would send, its first transaction with `nonce` (the account's next if not given).

    Raise `DeploymentError` when it would put a test token, which is worth nothing, on a chain that is not local,
    unless `test_token` says that this is meant.
    """
    chain_id = await rpc.chain_id()
    if token is None and not test_token and chain_id not in LOCAL_CHAINS:
        raise DeploymentError(
            f"chain {chain_id} is no local chain, and no token is named: name an ERC-20 that payments are made in "
            "(--token 0x...), or say that a token which anybody may mint is meant (--test-token)"
        )
    if nonce is None:
        nonce = await rpc.nonce(deployer, "pending")
    return plan_of(chain_id=chain_id, deployer=deployer, nonce=nonce, parameters=parameters, token=token)


async def find_token(rpc: Rpc, at: Address) -> ExternalToken:
    """Return the ERC-20 at an address; raise `DeploymentError` when there is none."""
    if not await rpc.code(at):
        raise DeploymentError(f"{to_hex(at)} holds no contract; name the address of an ERC-20 on this chain")
    functions = artifact("Token").functions
    try:
        (decimals,) = functions["decimals"].decode(await rpc.call(at, functions["decimals"].encode()))
        functions["balanceOf"].decode(await rpc.call(at, functions["balanceOf"].encode(ADDRESS_ZERO)))
    except (ContractError, MalformedMessageError) as error:
        raise DeploymentError(
            f"{to_hex(at)} answers decimals() or balanceOf() not as an ERC-20 does; name the address of one"
        ) from error
    return ExternalToken(address=at, decimals=decimals, proxy=await _is_proxy(rpc, at))


async def carry_out(
    rpc: Rpc, key: Key, plan: Plan, journal: Journal, *, patience: Patience | None = None, say: Say | None = None
) -> Deployment:
    """Send what is planned and not yet sent, and return where the contracts are.

    `say` gets each contract as it lands. Raise `DeploymentError` when the account's nonce is not the planned one.
    """
    lane = Lane(rpc, key, plan.chain_id, patience=patience)
    if await rpc.nonce(plan.deployer) < plan.nonce and any(journal.variants(step) for step in plan.steps):
        raise DeploymentError(
            f"the deployment was begun at nonce {plan.nonce} and the account's next one is lower: "
            f"the local chain was restarted; {journal.anew}"
        )
    journal.keep()
    landed: list[Landed] = []
    for step in plan.steps:
        landed.append(await _land(rpc, lane, step, journal))
        if say:
            say(landed[-1])
    return await _recorded(rpc, plan, landed[0].receipt)


async def _land(rpc: Rpc, lane: Lane, step: Step, journal: Journal) -> Landed:
    def note(tx: Transaction) -> None:  # called before a transaction is handed to the endpoint
        if tx.nonce != step.nonce:
            raise _moved(step, journal, tx.nonce)
        journal.add(step, tx)

    if not (variants := journal.variants(step)):
        if (nonce := await _next_nonce(rpc, lane.account, expected=step.nonce)) != step.nonce:
            raise _moved(step, journal, nonce)
        return Landed(step=step, receipt=await lane.send(None, step.code, journal=note), earlier=False)
    try:
        return Landed(step=step, receipt=await lane.resume(variants, journal=note), earlier=True)
    except NonceTakenError as error:
        raise _moved(step, journal, step.nonce + 1) from error
    except ContractError as error:
        raise DeploymentError(
            f"the transaction that places {step.contract} failed ({error}); {journal.anew}"
        ) from error


async def _next_nonce(rpc: Rpc, account: Address, *, expected: int) -> int:
    for _ in range(_NONCE_LOOKS):  # behind one URL there may be machines that lag behind each other
        if await rpc.nonce(account, "pending") >= expected:
            break
        await asyncio.sleep(_NONCE_PAUSE_S)
    return await rpc.nonce(account, "pending")


def _moved(step: Step, journal: Journal, nonce: int) -> DeploymentError:
    found = f"{step.contract} needs the nonce {step.nonce}, and the account's next one is {nonce}"
    if nonce < step.nonce:
        return DeploymentError(
            f"{found}: the endpoint lags behind, run it again; if that does not help, {journal.anew}"
        )
    return DeploymentError(f"{found}: something else was sent with this key; {journal.anew}")


async def _recorded(rpc: Rpc, plan: Plan, first: Receipt) -> Deployment:
    placed: dict[str, Placed] = {}
    for name, at in plan.addresses.items():
        code = await rpc.code(at)
        if not code:
            raise WrongCodeError(name, at, empty=True)
        placed[name] = Placed(address=at, code_hash=keccak(code))
    block = await rpc.block(first.block)
    if block is None or block.hash != first.block_hash:
        raise ReorgError(first.block, expected=first.block_hash, found=block.hash if block else None)
    return Deployment(
        chain_id=plan.chain_id,
        block=first.block,
        block_hash=first.block_hash,
        deployer=plan.deployer,
        contracts=placed,
        parameters=plan.parameters,
    )


async def _is_proxy(rpc: Rpc, at: Address) -> bool:
    for slot in _PROXY_SLOTS:
        found = await rpc.request("eth_getStorageAt", to_hex(at), hex(slot), "latest")
        try:
            if _SLOT.validate_python(found) != HASH_ZERO:
                return True
        except ValidationError:
            continue  # an endpoint that answers oddly here costs a warning, not the deployment
    return False
