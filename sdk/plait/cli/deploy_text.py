"""What `plait deploy` says: the same facts for a person and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from plait.chain.deploy import Landed
from plait.chain.plan import Plan, Step
from plait.chain.simulate import CODE_LIMIT, Made
from plait.protocol.ids import ADDRESS_ZERO, to_hex

_TIMES = {"unbondingDelay", "epochLength", "exitDelay"}
_AMOUNTS = {"minStake", "tierUnit"}
_TEST_DECIMALS = 6
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a deployment would do and what it would cost; balance and fees in wei, `landed` is how many steps did."""

    plan: Plan
    made: tuple[Made, ...]
    balance: int
    base_fee: int
    landed: int

    @property
    def gas(self) -> int:
        """Return the gas of what is left to send."""
        return sum(made.gas for made in self.made[self.landed :])

    @property
    def cost(self) -> int:
        """Return what that gas costs at the base fee, in wei."""
        return self.gas * self.base_fee

    @property
    def simulated(self) -> bool:
        """Say whether the gas was simulated; guessed if not."""
        return all(made.code is not None for made in self.made)

    def warnings(self) -> Iterator[str]:
        """Yield what the deployer should know."""
        if self.plan.token is None:
            yield "the test token is worth nothing: anybody may mint it"
        elif self.plan.token.proxy:
            yield "the token is a proxy: its owner may exchange its code while address and code hash stay the same"
        if not self.simulated:
            yield "this endpoint cannot simulate: gas is guessed from the size of the code, whose own size is unknown"
        if self.balance < self.cost:
            yield f"the deployer holds {coins(self.balance)}, less than this costs at the current base fee"

    def to_dict(self) -> dict[str, object]:
        """Return the facts for JSON; amounts above 2^53 as text."""
        return {
            "chainId": self.plan.chain_id,
            "deployer": to_hex(self.plan.deployer),
            "balanceWei": str(self.balance),
            "nonce": self.plan.nonce,
            "baseFeeWei": self.base_fee,
            "token": to_hex(self.plan.addresses["Token"]),
            "contracts": [self._contract(at) for at in range(len(self.made))],
            "gas": self.gas,
            "gasIs": "simulated" if self.simulated else "guessed",
            "costWei": str(self.cost),
            "warnings": list(self.warnings()),
        }

    def _contract(self, at: int) -> dict[str, object]:
        step, made = self.plan.steps[at], self.made[at]
        return {
            "contract": step.contract,
            "nonce": step.nonce,
            "address": to_hex(step.address),
            "arguments": {name: _plain(value) for name, value in step.arguments.items()},
            "codeBytes": None if made.code is None else len(made.code),
            "gas": made.gas,
            "sentBefore": at < self.landed,
        }

    def lines(self) -> Iterator[str]:
        """Yield the facts for a person."""
        plan = self.plan
        about = "" if self.simulated else "about "
        yield f"chain     {plan.chain_id}"
        yield f"deployer  {to_hex(plan.deployer)}  balance {coins(self.balance)}  nonce {plan.nonce}"
        yield f"token     {to_hex(plan.addresses['Token'])}  {self._token()}"
        yield ""
        for at, (step, made) in enumerate(zip(plan.steps, self.made, strict=True)):
            size = "" if made.code is None else f"{len(made.code):>6,} bytes"
            gas = "sent before" if at < self.landed else f"{about}{made.gas:,} gas"
            yield f"{step.nonce:>5}  {step.contract:<14} {to_hex(step.address)}  {size}  {gas:>15}"
            yield from (f"         {name:<15}{self._words(name, value)}" for name, value in step.arguments.items())
        yield ""
        if self.simulated:
            largest = max(len(made.code or b"") for made in self.made)
            yield f"code      {largest:,} bytes at most; chains allow {CODE_LIMIT:,}"
        yield f"gas       {about}{self.gas:,} in all"
        fee = f"{Decimal(self.base_fee) / 10**9:,f} gwei"
        yield f"cost      {about}{coins(self.cost)} at the base fee of {fee}, without tips and rollups' data fees"
        yield from (f"note      {warning}" for warning in self.warnings())

    def _token(self) -> str:
        if self.plan.token is None:
            return "a test token, deployed here"
        return f"on the chain already, {self.plan.token.decimals} decimals"

    def _words(self, name: str, value: object) -> str:
        if isinstance(value, bytes):
            return self._address(name, value)
        number = value if isinstance(value, int) else 0
        if name in _TIMES:
            return f"{number:,} s{_time(number)}"
        if name in _AMOUNTS:
            decimals = self.plan.token.decimals if self.plan.token else _TEST_DECIMALS
            shown = _decimal(number, decimals)
            return f"{number:,} base units = {shown} token{'' if shown == '1' else 's'}"
        if name == "feeBps":
            return f"{number:,} = {_decimal(number, 2)} % of each claim"
        return f"{number:,}"

    def _address(self, name: str, value: bytes) -> str:
        if name == "arbiter" and value == ADDRESS_ZERO:
            return "none: nobody may jail, slash or forfeit"
        known = next((contract for contract, at in self.plan.addresses.items() if at == value), None)
        return to_hex(value) + (f" ({known})" if known else "")


def landed_line(landed: Landed) -> str:
    """Return the line about a contract that is on the chain."""
    step, receipt = landed.step, landed.receipt
    when = "  sent before" if landed.earlier else ""
    return f"{step.contract:<14} {to_hex(step.address)}  {receipt.gas_used:>9,} gas  tx {to_hex(receipt.tx)}{when}"


def landed_dict(landed: Landed) -> dict[str, object]:
    """Return the facts about a contract that is on the chain."""
    step: Step = landed.step
    return {
        "contract": step.contract,
        "address": to_hex(step.address),
        "transaction": to_hex(landed.receipt.tx),
        "block": landed.receipt.block,
        "gasUsed": landed.receipt.gas_used,
        "feeWei": str(landed.receipt.gas_used * landed.receipt.gas_price),
        "sentBefore": landed.earlier,
    }


def coins(wei: int) -> str:
    """Return an amount of the chain's own coin."""
    return f"{Decimal(wei) / 10**18:,.6f} coins"


def _plain(value: object) -> object:
    return to_hex(value) if isinstance(value, bytes) else str(value)


def _decimal(number: int, decimals: int) -> str:
    shown = f"{Decimal(number).scaleb(-decimals):,f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def _time(seconds: int) -> str:
    for size, name in _UNITS:
        if seconds and seconds % size == 0:
            count = seconds // size
            return f" = {count:,} {name}{'' if count == 1 else 's'}"
    return ""
