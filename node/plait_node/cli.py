"""`plait node`: what an operator types."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from plait.chain.deployments import Deployment
from plait.chain.reader import ChainReader
from plait.chain.writer import ChainWriter
from plait.protocol.ids import address, to_hex
from plait.protocol.manifest import FP32_STRICT, PROFILES
from plait.protocol.typed import Key
from plait_node.cli_broker import broker, dead_letters
from plait_node.cli_selector import bench_methods, pin, select
from plait_node.config import load
from plait_node.errors import ConfigError, DrainError
from plait_node.home import Home
from plait_node.node_status import node_lines, read_numbers
from plait_node.running import drain, running
from plait_node.selector_status import read_local, selector_lines

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

app.command("bench-methods")(bench_methods)
app.command("select")(select)
app.command("pin")(pin)
app.add_typer(broker, name="broker")
app.add_typer(dead_letters, name="dead-letters")

Rpc = Annotated[str, typer.Option("--rpc", help="JSON-RPC URL of the chain.", envvar="PLAIT_RPC")]
DeploymentFile = Annotated[
    Path, typer.Option("--deployment", help="Deployment file of the contracts.", envvar="PLAIT_DEPLOYMENT")
]
OwnerKey = Annotated[Path, typer.Option("--owner-key-file", help="File with the owner's key; a node never needs it.")]
ConfigFile = Annotated[Path, typer.Option("--config", help="The node's TOML file.")]
_ROLES = {"gateway": 1, "worker": 2, "stage": 4}


def _key(path: Path) -> Key:
    try:
        return Key.from_hex(path.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such key file") from None


@app.command()
def init(home: Annotated[Path, typer.Argument(help="Folder for keys and journal; must hold none yet.")]) -> None:
    """Make a node's folder with a fresh service key and DHT key."""
    made = Home.create(home)
    typer.echo(f"service key {to_hex(made.service_key().address)}\nfolder      {home}")


@app.command()
def publish(
    model: Annotated[
        str, typer.Argument(help="Name of an embedded model, or path of a GGUF file or a folder of safetensors.")
    ],
    models: Annotated[Path, typer.Option("--models", help="Folder that gets the model's manifest and tokenizer.")],
    rpc: Rpc,
    deployment: DeploymentFile,
    owner_key_file: OwnerKey,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            help="Numerics it may be served under: fp32-strict (default), bf16, int8, int4; on slow links also "
            "WEIGHTS-prefill-CODEC, as fp32-prefill-int8: prompt rows travel in bf16 or int8. May be repeated."
        ),
    ] = None,
    uri: Annotated[str, typer.Option(help="Base URL at which nodes that join may fetch it; goes on chain.")] = "",
) -> None:
    """Build a model's manifest from its weights and register it on chain."""
    unknown = sorted(set(profile or ()) - set(PROFILES))
    if unknown:
        raise ConfigError(f"unknown profile {', '.join(unknown)}; there are {', '.join(PROFILES)}")
    chosen = [PROFILES[name] for name in dict.fromkeys(profile or [FP32_STRICT.name])]
    from plait_node.models import publish as publish_model  # noqa: PLC0415 -- torch loads for the commands that run a model

    async def run() -> None:
        async with await ChainReader.connect(rpc, Deployment.load(deployment)) as reader:
            writer = ChainWriter(reader, _key(owner_key_file))
            done = await publish_model(model, models, writer, uri=uri, profiles=chosen)
            typer.echo(f"{to_hex(done.model_id)}")

    asyncio.run(run())


@app.command()
def stake(
    home: Annotated[Path, typer.Argument(help="The node's folder, from `plait node init`.")],
    roles: Annotated[str, typer.Option(help="Comma-separated: gateway, worker, stage.")],
    endpoint: Annotated[
        str, typer.Option(help="URIs with a space between: http://, dht://, weights:// and host:port.")
    ],
    amount: Annotated[int, typer.Option(help="Stake in base units of the token.")],
    rpc: Rpc,
    deployment: DeploymentFile,
    owner_key_file: OwnerKey,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
) -> None:
    """Register the owner as a node, stake, and bind the folder's service key."""
    node, owner = Home(home), _key(owner_key_file)
    unknown = sorted(set(roles.split(",")) - set(_ROLES))
    if unknown:
        raise ConfigError(f"unknown role {', '.join(unknown)}; there are {', '.join(_ROLES)}")
    bits = sum(_ROLES[role] for role in set(roles.split(",")))
    service = node.service_key()
    steps = f"owner {to_hex(owner.address)}: register roles {roles}, stake {amount}, add key {to_hex(service.address)}"
    typer.echo(steps)
    if dry_run:
        return
    dht_key = Ed25519PrivateKey.from_private_bytes(node.dht_seed()).public_key().public_bytes_raw()

    async def run() -> None:
        async with await ChainReader.connect(rpc, Deployment.load(deployment)) as reader:
            writer = ChainWriter(reader, owner)
            if await reader.node(owner.address) is None:
                await writer.register_node(bits, endpoint, dht_key)
            await writer.stake(amount)
            if await reader.service_key(service.address) is None:
                await writer.add_service_key(service)

    asyncio.run(run())


@app.command()
def status(
    owner: Annotated[str | None, typer.Argument(help="The node owner's address.")] = None,
    rpc: Annotated[str | None, typer.Option("--rpc", help="JSON-RPC URL of the chain.", envvar="PLAIT_RPC")] = None,
    deployment: Annotated[
        Path | None,
        typer.Option("--deployment", help="Deployment file of the contracts.", envvar="PLAIT_DEPLOYMENT"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="The TOML file of a node on this machine, in place of the others.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option("--home", help="Folder of a node on this machine: show what it does.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a node's stake, earnings and reputation as the chain has them, and what a local node and its selector do."""
    if config is not None:
        node = load(config)
        owner, rpc, deployment, home = to_hex(node.owner), node.rpc, node.deployment, node.home
    if owner is None and home is None:
        raise ConfigError("say whose status: an OWNER with --rpc and --deployment, --config FILE, or --home FOLDER")
    facts: dict[str, object] = {}
    if owner is not None:
        if rpc is None or deployment is None:
            raise ConfigError("the chain is asked by --rpc URL and --deployment FILE")
        facts = asyncio.run(_on_chain(owner, rpc, deployment))
    local = _local(Home(home)) if home is not None else None
    if as_json:
        typer.echo(json.dumps(facts if local is None else {**facts, **local}, indent=2))
        return
    lines = [f"{name:<11} {facts[name]}" for name in facts]
    typer.echo("\n".join([*lines, *(_local_lines(local) if local is not None else ())]))


def _local(home: Home) -> dict[str, Any]:
    word = running(home.lock_file)
    process = word.model_dump(include={"pid", "state"}) if word is not None else None
    numbers = read_numbers(home.metrics_file) if word is not None else None  # one that was killed leaves its last
    return {"process": process, "numbers": numbers, **read_local(home.selector_folder)}


def _local_lines(local: dict[str, Any]) -> list[str]:
    return [*node_lines(local["process"], local["numbers"]), *selector_lines(local)]


async def _on_chain(owner: str, rpc: str, deployment: Path) -> dict[str, object]:
    async with await ChainReader.connect(rpc, Deployment.load(deployment)) as reader:
        node = await reader.node(address(owner))
        if node is None:
            raise ConfigError(f"{owner} is not registered; `plait node stake` registers a node")
        earnings = await reader.earnings(node.owner)
        return {
            "owner": owner,
            "active": node.active,
            "roles": [name for name, bit in _ROLES.items() if node.roles & bit],
            "endpoint": node.endpoint,
            "stake": str(node.stake),
            "earned": str(earnings.earned),
            "pending": str(earnings.maturing + earnings.mature),
            "released": str(earnings.released),
            "reputation": str(await reader.reputation(node.owner)),
            "verdicts": node.verdicts,
        }


@app.command("drain")
def drain_node(
    config: Annotated[Path | None, typer.Option("--config", help="The node's TOML file.")] = None,
    home: Annotated[Path | None, typer.Option("--home", help="The node's folder, in place of --config.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait; more than its drain_s.")] = 60.0,
) -> None:
    """Have a node on this machine finish its jobs and stop, as SIGTERM does, and wait until it has."""
    if (config is None) == (home is None):
        raise ConfigError("say which node: --config FILE, or --home FOLDER")
    folder = load(config).home if config is not None else home
    word = drain(Home(folder or Path()).lock_file, timeout_s=timeout)
    if word.state != "ended":
        raise DrainError(
            "the node ended at once, before its jobs did; others of its group and other stages go on with them"
        )
    if word.jobs_left:
        raise DrainError(
            "the node ended at its drain_s with jobs left; others of its group and other stages go on with them"
        )
    typer.echo("node ended, no jobs left")


@app.command()
def run(config: ConfigFile) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from plait_node.app import serve  # noqa: PLC0415 -- as above

    serve(load(config))
