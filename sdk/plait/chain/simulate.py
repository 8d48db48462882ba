"""What a deployment costs and what code it makes, found out without sending anything."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from plait.chain.deployments import Deployment
from plait.chain.errors import ContractError, DeploymentError, RpcAnswerError, RpcRefusedError
from plait.chain.plan import ExternalToken, Plan, Step, contract_address, plan_of
from plait.chain.rpc import Rpc
from plait.chain.values import Data, Quantity
from plait.protocol.ids import Address, to_hex

CODE_LIMIT = 24_576  # bytes, EIP-170
_PROBE_AT = Address(b"plait" * 4)
_PROBE = "0x602a5f5260205ff3"  # returns 42
_EMPTY: dict[str, object] = {"code": "0x", "nonce": "0x0", "state": {}}
_DATA: TypeAdapter[bytes] = TypeAdapter(Data)
_QUANTITY: TypeAdapter[int] = TypeAdapter(Quantity)

Overrides = dict[str, dict[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a step costs and makes; `code` is None where the endpoint cannot simulate and `gas` is a guess."""

    gas: int
    code: bytes | None


async def simulate(rpc: Rpc, plan: Plan) -> tuple[Made, ...]:
    """Return what each step would cost and make, as if none were on the chain; raise `DeploymentError`.

    Each step is one `eth_call` and one `eth_estimateGas` in which the contracts before it stand already
    (state overrides). `eth_simulateV1` could do all at once, but fewer endpoints have it, and anvil's creates no
    contract up to 1.7.1.
    """
    if not await _can_override(rpc):
        return tuple(Made(gas=guessed_gas(step.code), code=None) for step in plan.steps)
    state: Overrides = {to_hex(step.address): _EMPTY for step in plan.steps}
    made: list[Made] = []
    for step in plan.steps:
        state[to_hex(plan.deployer)] = {"nonce": hex(step.nonce)}
        made.append(await _made(rpc, plan.deployer, step, state))
        state[to_hex(step.address)] = {"code": to_hex(made[-1].code or b"")}
    return tuple(made)


async def foreign_code(rpc: Rpc, deployment: Deployment) -> tuple[str, ...]:
    """Return which contracts hold other code than this package makes of the deployment's parameters.

    A token that the deployment found on the chain is not looked at. Raise `DeploymentError` when this cannot be found
    out: another deployer or order of contracts, or an endpoint that cannot simulate.
    """
    plan = await _replanned(rpc, deployment)
    made = await simulate(rpc, plan)
    if any(each.code is None for each in made):
        raise DeploymentError(f"{rpc.url} cannot simulate (state overrides of eth_call): use another endpoint")
    foreign: list[str] = []
    for step, each in zip(plan.steps, made, strict=True):
        at = deployment.addresses.get(step.contract)
        if at is None or at != step.address or await rpc.code(at) != each.code:
            foreign.append(step.contract)
    return tuple(foreign)


def guessed_gas(code: bytes) -> int:
    """Return about what it takes to place a contract, from the size of what the transaction carries.

    Nearly all of it stays on the chain at 200 gas a byte; what does not makes up for what the constructor does.
    """
    words = (len(code) + 31) // 32
    zeros = code.count(0)
    return 53_000 + 4 * zeros + 16 * (len(code) - zeros) + 2 * words + 200 * len(code)


async def _made(rpc: Rpc, deployer: Address, step: Step, state: Overrides) -> Made:
    call = {"from": to_hex(deployer), "input": to_hex(step.code)}
    try:
        code = _DATA.validate_python(await rpc.request("eth_call", call, "latest", state))
        gas = _QUANTITY.validate_python(await rpc.request("eth_estimateGas", call, "latest", state))
    except ContractError as error:
        raise DeploymentError(f"{step.contract} refuses its parameters ({error}); correct them") from error
    except ValidationError as error:
        raise RpcAnswerError(rpc.url, method="eth_call", why="neither code nor gas") from error
    if len(code) > CODE_LIMIT:
        raise DeploymentError(f"{step.contract} has {len(code):,} bytes of code; chains allow {CODE_LIMIT:,}")
    return Made(gas=gas, code=code)


async def _can_override(rpc: Rpc) -> bool:
    call = {"to": to_hex(_PROBE_AT), "input": "0x"}
    try:
        found = await rpc.request("eth_call", call, "latest", {to_hex(_PROBE_AT): {"code": _PROBE}})
    except RpcRefusedError:
        return False
    return found == to_hex((42).to_bytes(32, "big"))  # some endpoints ignore what they do not know


async def _replanned(rpc: Rpc, deployment: Deployment) -> Plan:
    placed, deployer = deployment.addresses, deployment.deployer
    sent = await rpc.nonce(deployer)
    found = next((each for each in range(sent) if contract_address(deployer, each) == placed["ModelRegistry"]), None)
    if found is None:
        raise DeploymentError(
            f"{to_hex(placed['ModelRegistry'])} was not placed by the deployer that the file names, "
            f"{to_hex(deployer)}; do not trust this file unless you trust who wrote it"
        )
    ours = found > 0 and contract_address(deployer, found - 1) == placed["Token"]
    token = None if ours else ExternalToken(address=placed["Token"], decimals=0, proxy=False)
    return plan_of(
        chain_id=deployment.chain_id,
        deployer=deployer,
        nonce=found - 1 if ours else found,
        parameters=deployment.parameters,
        token=token,
    )
