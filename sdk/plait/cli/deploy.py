"""`plait deploy`: put the contracts on a chain, at addresses that are known before anything is sent."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from plait.chain.deploy import LOCAL_CHAINS, Landed, carry_out, find_token, prepare
from plait.chain.deployments import Deployment, Parameters
from plait.chain.draft import Draft, Journal
from plait.chain.errors import (
    DeploymentError,
    DeploymentFileError,
    GasMoneyError,
    ReorgError,
    RpcError,
    TransactionError,
    WrongCodeError,
)
from plait.chain.plan import Plan
from plait.chain.rpc import Rpc
from plait.chain.simulate import foreign_code, simulate
from plait.cli.deploy_text import Preview, coins, landed_dict, landed_line
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import ADDRESS_ZERO, Address, address
from plait.protocol.typed import Key

_FIXED = "Parameters, fixed for ever"
_USUAL = Parameters()


def _parsed(text: str) -> bytes:
    try:
        return address(text)
    except MalformedMessageError as error:
        raise typer.BadParameter(str(error)) from error


def _fixed(name: str, text: str) -> Any:  # noqa: ANN401 -- as typer's own function says
    return typer.Option(name, help=text, rich_help_panel=_FIXED)


def _fixed_address(name: str, text: str, *, without: str) -> Any:  # noqa: ANN401 -- as typer's own function says
    return typer.Option(
        name, help=text, parser=_parsed, metavar="<address>", show_default=without, rich_help_panel=_FIXED
    )


Url = Annotated[str, typer.Option("--rpc", help="JSON-RPC URL of the chain.", envvar="PLAIT_RPC")]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="File with the deployer's key; PLAIT_KEY holds one too.", exists=True, dir_okay=False),
]
Out = Annotated[Path | None, typer.Option(help="Deployment file to write.", show_default="deployments/<chain id>.json")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be sent and what it would cost; send nothing.")]
Check = Annotated[
    bool, typer.Option("--check", help="Send nothing; check that the file's contracts are those of this package.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; progress goes to stderr.")]
TestToken = Annotated[
    bool, typer.Option("--test-token", help="Deploy a token worth nothing on a chain that is not local, too.")
]
Token = Annotated[
    bytes | None,
    _fixed_address("--token", "ERC-20 that all is paid in.", without="a test token, on chains 1337 and 31337"),
]
Arbiter = Annotated[bytes | None, _fixed_address("--arbiter", "Who may jail, slash and forfeit.", without="nobody may")]
Feedback = Annotated[
    bytes | None,
    _fixed_address(
        "--erc8004-feedback", "ERC-8004 reputation registry that an AgentExport writes to.", without="no AgentExport"
    ),
]
MinStake = Annotated[int, _fixed("--min-stake", "Least stake of an active node, in base units of the token; above 0.")]
Unbonding = Annotated[
    int, _fixed("--unbonding-delay", "Seconds until stake is out; at least two epochs, at most 31536000.")
]
Epoch = Annotated[int, _fixed("--epoch-length", "Seconds of an epoch; earnings mature in one to two of them.")]
Exit = Annotated[int, _fixed("--exit-delay", "Seconds from a payer's exit to its money; 1 to 2592000.")]
Fee = Annotated[int, _fixed("--fee-bps", "Fee on claims in hundredths of a percent, burned; 0 to 1000.")]
TierUnit = Annotated[int, _fixed("--tier-unit", "Burned fees that make the first tier, in base units; above 0.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    rpc: str
    key: Key
    parameters: Parameters
    token: Address | None
    test_token: bool
    out: Path | None
    dry_run: bool
    as_json: bool

    def say(self, line: str) -> None:
        typer.echo(line, err=self.as_json)


def _deploy(
    rpc: Url,
    key_file: KeyFile = None,
    out: Out = None,
    dry_run: DryRun = False,
    check: Check = False,
    as_json: AsJson = False,
    test_token: TestToken = False,
    token: Token = None,
    arbiter: Arbiter = None,
    min_stake: MinStake = _USUAL.min_stake,
    unbonding_delay: Unbonding = _USUAL.unbonding_delay,
    epoch_length: Epoch = _USUAL.epoch_length,
    exit_delay: Exit = _USUAL.exit_delay,
    fee_bps: Fee = _USUAL.fee_bps,
    tier_unit: TierUnit = _USUAL.tier_unit,
    erc8004_feedback: Feedback = None,
) -> None:
    """Deploy the contracts and write the file that clients, nodes and auditors are given.

    Addresses are shown before anything is sent. Given again, the command goes on where it was stopped.
    """
    # budget: one line an option
    if check:
        _print(asyncio.run(_check(rpc, out)), as_json=as_json)
        return
    parameters = _parameters(
        arbiter=arbiter or ADDRESS_ZERO,
        min_stake=min_stake,
        unbonding_delay=unbonding_delay,
        epoch_length=epoch_length,
        exit_delay=exit_delay,
        fee_bps=fee_bps,
        tier_unit=tier_unit,
        erc8004_feedback=erc8004_feedback or ADDRESS_ZERO,
    )
    options = _Options(
        rpc=rpc,
        key=_key(key_file),
        parameters=parameters,
        token=Address(token) if token else None,
        test_token=test_token,
        out=out,
        dry_run=dry_run,
        as_json=as_json,
    )
    _print(asyncio.run(_run(options)), as_json=as_json)


def _print(facts: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    elif "said" in facts:
        typer.echo(facts["said"])


def _parameters(**chosen: object) -> Parameters:
    try:
        return Parameters.model_validate(chosen)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "unbondingDelay"  # the one that two bounds meet in
        option = "--" + re.sub(r"(?=[A-Z])", "-", field).replace("_", "-").lower()
        raise typer.BadParameter(first["msg"].removeprefix("Value error, "), param_hint=option) from error


def _key(file: Path | None) -> Key:
    text = file.read_text(encoding="utf-8") if file else os.environ.get("PLAIT_KEY")
    if not text:
        raise typer.BadParameter(
            "no key to deploy with; pass --key-file FILE or set PLAIT_KEY", param_hint="--key-file"
        )
    try:
        return Key.from_hex(text)
    except MalformedMessageError as error:
        raise typer.BadParameter(str(error), param_hint="--key-file") from error


async def _run(options: _Options) -> dict[str, object]:
    async with Rpc(options.rpc) as rpc:
        out = options.out or Path("deployments") / f"{await rpc.chain_id()}.json"
        draft_file = out.with_name(out.name + ".draft")
        draft = Draft.load(draft_file)
        if draft is None:
            await _not_overwriting(rpc, out)
        plan = await prepare(
            rpc,
            options.key.address,
            options.parameters,
            token=await find_token(rpc, options.token) if options.token else None,
            test_token=options.test_token,
            nonce=draft.nonce if draft else None,
        )
        journal = Journal(plan, draft_file, draft=draft)
        preview = await _preview(rpc, plan, journal)
        if not options.as_json:
            typer.echo("\n".join(preview.lines()) + "\n")
        if options.dry_run:
            options.say("dry run: nothing was sent")
            return {"dryRun": True, "file": str(out)} | preview.to_dict()
        if preview.balance < preview.cost:
            raise GasMoneyError(plan.deployer, f"it holds {coins(preview.balance)} and needs {coins(preview.cost)}")
        landed = await _send(rpc, options, plan, journal, out)
        return {"dryRun": False, "file": str(out)} | preview.to_dict() | {"landed": landed}


async def _send(rpc: Rpc, options: _Options, plan: Plan, journal: Journal, out: Path) -> list[dict[str, object]]:
    landed: list[Landed] = []

    def say(each: Landed) -> None:
        landed.append(each)
        options.say(landed_line(each))

    try:
        deployment = await carry_out(rpc, options.key, plan, journal, say=say)
    except (RpcError, TransactionError):
        options.say(f"{journal.path} keeps what was sent; the same command goes on from there")
        raise
    deployment.save(out)
    journal.discard()
    options.say(f"wrote {out}: give it to clients, nodes and auditors")
    return [landed_dict(each) for each in landed]


async def _preview(rpc: Rpc, plan: Plan, journal: Journal) -> Preview:
    used = await rpc.nonce(plan.deployer)
    block = await rpc.block()
    return Preview(
        plan=plan,
        made=await simulate(rpc, plan),
        balance=await rpc.balance(plan.deployer),
        base_fee=block.base_fee if block else 0,
        landed=sum(step.nonce < used and bool(journal.variants(step)) for step in plan.steps),
    )


async def _not_overwriting(rpc: Rpc, out: Path) -> None:
    """Raise unless the file is missing, or is of a local chain that was restarted since."""
    try:
        found = Deployment.load(out)
    except DeploymentFileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return
        raise
    try:
        await found.check(rpc)
    except (WrongCodeError, ReorgError):
        if found.chain_id in LOCAL_CHAINS:
            return
    raise DeploymentError(f"{out} holds a deployment already; to make another one, name another file with --out")


async def _check(url: str, out: Path | None) -> dict[str, object]:
    async with Rpc(url) as rpc:
        file = out or Path("deployments") / f"{await rpc.chain_id()}.json"
        deployment = Deployment.load(file)
        await deployment.check(rpc)
        foreign = await foreign_code(rpc, deployment)
    if foreign:
        raise DeploymentError(
            f"{', '.join(foreign)} in {file} hold other code than this package makes: "
            "they are of another version of plait, or not plait's at all; do not pay into them"
        )
    said = "all contracts hold the code that this package makes of the file's parameters"
    return {"file": str(file), "contracts": sorted(deployment.contracts), "said": said}


deploy = typer.Typer()
deploy.command("deploy")(_deploy)
