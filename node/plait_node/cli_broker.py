"""`plait node broker` and `plait node dead-letters`: a broker's users, streams, and the jobs nobody could take."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from plait.cli.program import EXIT_FAILED, EXIT_USAGE, fail
from plait.protocol.codec import signed_from_pb
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import address, hash32, to_hex
from plait.protocol.messages import Request
from plait_node.broker import BrokerAccess, BrokerError
from plait_node.broker.cluster import ClusterPlan, ServerPlan, WorkerPlan, write_cluster
from plait_node.broker.connection import Connection
from plait_node.broker.dead import DeadLetters
from plait_node.broker.face import DeadLetter
from plait_node.broker.jetstream import ensure_streams
from plait_node.config import load
from plait_node.errors import ConfigError, NodeError

__all__ = ["broker", "dead_letters"]

broker = typer.Typer(no_args_is_help=True, help="A broker's servers, users and streams.")
dead_letters = typer.Typer(no_args_is_help=True, help="Jobs that no worker could take, kept for a week.")

T = TypeVar("T")

_PATIENCE_S = 10.0
_LEAST_PREFIX = 4

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of a node: use its [broker].")]
Url = Annotated[str | None, typer.Option("--broker", help="Address of the broker; commas separate its servers.")]
Ca = Annotated[Path | None, typer.Option("--ca", help="Authority of the servers' certificates, PEM.")]
NkeyFile = Annotated[Path | None, typer.Option("--nkey", help="Seed of the operator's key.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Names = Annotated[list[str], typer.Argument(help="Requests, as `list` shows them; a unique beginning will do.")]


class BrokerCommandError(NodeError):
    """The broker did not do what was asked; the text says what to do."""

    code = "broker"


@broker.command("init")
def init_broker(
    folder: Annotated[
        Path, typer.Argument(help="Folder for the files; written again, it keeps keys and certificates.")
    ],
    server: Annotated[
        list[str], typer.Option("--server", help="NAME=HOST:PORT:CLUSTER_PORT of a server; give it once for each.")
    ],
    gateway: Annotated[list[str] | None, typer.Option("--gateway", help="Owner of gateways.")] = None,
    worker: Annotated[
        list[str] | None, typer.Option("--worker", help="OWNER:MODEL:DEVICE of a worker, the device as in its config.")
    ] = None,
    listen: Annotated[str, typer.Option("--listen", help="Address on which the servers listen.")] = "0.0.0.0",  # noqa: S104 - as in ServerPlan
) -> None:
    """Write the configuration of a cluster: TLS, and a key with its own permissions for each user."""
    with _wrong_usage():
        plan = ClusterPlan(
            servers=[_server(text, listen) for text in server],
            gateways=[address(owner) for owner in gateway or ()],
            workers=[_worker(text) for text in worker or ()],
        )
        write_cluster(folder, plan)
    typer.echo(f"servers     {', '.join(f'{folder / each.name}' for each in plan.servers)}")
    typer.echo(f"seeds       {folder / 'seeds'}\noperator    {folder / 'operator'}")


@broker.command("streams")
def make_streams(*, config: ConfigFile = None, url: Url = None, ca: Ca = None, nkey: NkeyFile = None) -> None:
    """Make the broker's streams, or bring them to their plan: once after `init`, and after each update."""

    async def make(connection: Connection) -> None:
        await ensure_streams(connection)

    _with_broker(make, config=config, url=url, ca=ca, nkey=nkey)
    typer.echo("streams are there")


@dead_letters.command("list")
def list_letters(
    *, config: ConfigFile = None, url: Url = None, ca: Ca = None, nkey: NkeyFile = None, as_json: Json = False
) -> None:
    """List them, oldest first."""
    letters = _with_broker(_all, config=config, url=url, ca=ca, nkey=nkey)
    if as_json:
        typer.echo(json.dumps([_facts(letter) for letter in letters], indent=2))
        return
    for letter in letters:
        typer.echo(f"{to_hex(letter.request)}  {letter.at[:19]}  {letter.deliveries} deliveries  {letter.reason}")
    typer.echo(f"{len(letters)} dead letters")


@dead_letters.command("show")
def show_letter(
    request: Annotated[str, typer.Argument(help="A request, as `list` shows it; a unique beginning will do.")],
    *,
    config: ConfigFile = None,
    url: Url = None,
    ca: Ca = None,
    nkey: NkeyFile = None,
    as_json: Json = False,
) -> None:
    """Show one: whose job it was, what it asked for, why it was given up. Its prompt is sealed."""
    (letter,) = _chosen(_with_broker(_all, config=config, url=url, ca=ca, nkey=nkey), [request])
    facts = _facts(letter)
    typer.echo(json.dumps(facts, indent=2) if as_json else "\n".join(f"{name:<12} {facts[name]}" for name in facts))


@dead_letters.command("requeue")
def requeue_letters(
    requests: Names, *, config: ConfigFile = None, url: Url = None, ca: Ca = None, nkey: NkeyFile = None
) -> None:
    """Give jobs to their groups again. A payer who heard that the job was given up has turned away from it."""

    async def requeue(connection: Connection) -> list[DeadLetter]:
        letters = DeadLetters(connection)
        chosen = _chosen(await letters.all(), requests)
        for letter in chosen:
            _check_deadline(letter)
        for letter in chosen:
            await letters.requeue(letter)
        return chosen

    for letter in _with_broker(requeue, config=config, url=url, ca=ca, nkey=nkey):
        typer.echo(f"queued again {to_hex(letter.request)} group {letter.group.hex()} priority {letter.priority}")


@dead_letters.command("drop")
def drop_letters(
    requests: Names, *, config: ConfigFile = None, url: Url = None, ca: Ca = None, nkey: NkeyFile = None
) -> None:
    """Forget jobs for good."""

    async def drop(connection: Connection) -> list[DeadLetter]:
        letters = DeadLetters(connection)
        chosen = _chosen(await letters.all(), requests)
        for letter in chosen:
            await letters.drop(letter)
        return chosen

    for letter in _with_broker(drop, config=config, url=url, ca=ca, nkey=nkey):
        typer.echo(f"dropped {to_hex(letter.request)}")


async def _all(connection: Connection) -> list[DeadLetter]:
    return await DeadLetters(connection).all()


def _with_broker(
    act: Callable[[Connection], Coroutine[object, object, T]],
    *,
    config: Path | None,
    url: str | None,
    ca: Path | None,
    nkey: Path | None,
) -> T:
    """Connect, act, disconnect; raise a `NodeError`."""
    where, access = _broker_of(config, url, BrokerAccess(ca=ca, nkey=nkey))

    async def run() -> T:
        connection = await Connection.open(where, name="plait-operator", timeout_s=_PATIENCE_S, access=access)
        try:
            return await act(connection)
        finally:
            await connection.close()

    try:
        return asyncio.run(run())
    except BrokerError as error:
        raise BrokerCommandError(str(error)) from error


def _broker_of(config: Path | None, url: str | None, access: BrokerAccess) -> tuple[str, BrokerAccess]:
    found = load(config).broker if config is not None else None
    if found is not None:
        access = BrokerAccess(ca=access.ca or found.ca, nkey=access.nkey or found.nkey)
    where = url or (found.url if found is not None else None)
    if where is None:
        raise ConfigError("say which broker: --broker URL, or --config FILE of a node that has one")
    return where, access


def _chosen(letters: Sequence[DeadLetter], names: Sequence[str]) -> list[DeadLetter]:
    """Return the letters that the names mean; raise `ConfigError` for a name that means none or several."""
    chosen: list[DeadLetter] = []
    for name in names:
        beginning = name.removeprefix("0x").lower()
        found = [letter for letter in letters if letter.request.hex().startswith(beginning)]
        if len(beginning) < _LEAST_PREFIX or len(found) != 1:
            raise ConfigError(f"{name} is {len(found)} dead letters; `plait node dead-letters list` shows them")
        chosen += [letter for letter in found if letter not in chosen]
    return chosen


def _check_deadline(letter: DeadLetter) -> None:
    late = time.time() - letter.call.request.message.deadline
    if late >= 0:
        raise ConfigError(
            f"the deadline of {to_hex(letter.request)} passed {late:.0f} s ago, no worker takes it; drop it"
        )


def _facts(letter: DeadLetter) -> dict[str, object]:
    facts: dict[str, object] = {
        "request": to_hex(letter.request),
        "givenUp": letter.at,
        "reason": letter.reason,
        "deliveries": letter.deliveries,
        "group": letter.group.hex(),
        "priority": letter.priority,
    }
    try:
        asked = signed_from_pb(letter.call.request, Request).message
    except MalformedMessageError as error:
        return facts | {"call": f"unreadable ({error.text})"}
    return facts | {
        "payer": to_hex(asked.payer),
        "gateway": to_hex(asked.gateway),
        "model": to_hex(asked.model),
        "inputTokens": asked.input_tokens,
        "maxTokens": asked.max_tokens,
        "maxPrice": asked.max_price,
        "deadline": asked.deadline,
        "secondsLeft": round(asked.deadline - time.time()),
        "sealedPrompt": f"{len(letter.call.prompt)} bytes",
        "capsules": len(letter.call.capsules),
    }


@contextmanager
def _wrong_usage() -> Generator[None]:
    """Say in one line what is wrong with what was asked, and end with status 2."""
    try:
        yield
    except (ConfigError, MalformedMessageError) as error:
        fail(error, EXIT_USAGE)
    except (BrokerError, OSError) as error:
        fail(BrokerCommandError(str(error)), EXIT_FAILED)


def _server(text: str, listen: str) -> ServerPlan:
    name, separator, rest = text.partition("=")
    host, *ports = rest.rsplit(":", 2)
    simple = name.replace("-", "").isalnum() and name.isascii() and host and not set(host) & set('"\\ \n')
    if not (separator and simple and len(ports) == 2 and all(port.isdecimal() for port in ports)):
        raise ConfigError(f"--server {text!r} is not NAME=HOST:PORT:CLUSTER_PORT, for example n1=n1.example:4222:6222")
    port, cluster_port = (int(port) for port in ports)
    return ServerPlan(name=name, host=host, port=port, cluster_port=cluster_port, listen=listen)


def _worker(text: str) -> WorkerPlan:
    parts = text.split(":")
    if len(parts) != 3 or not parts[2].isidentifier():
        raise ConfigError(f"--worker {text!r} is not OWNER:MODEL:DEVICE, for example 0xAB..:0xCD..:cpu")
    return WorkerPlan(owner=address(parts[0]), model=hash32(parts[1]), device=parts[2])
