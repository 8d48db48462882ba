"""`plait proxy`: OpenAI clients on this machine ask the swarm; the user's channel pays, within the user's limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from plait.client import AsyncPlait
from plait.client.settings import DEFAULT_DEPOSIT, DEFAULT_TIMEOUT_S
from plait.protocol.ids import to_hex
from plait.proxy import Access, Desk, Limits, Spending, serve
from plait.proxy.access import is_loopback

_MONEY, _LISTEN, _CHAIN = "Limits, in base units of the token", "Who may call", "Chain and wallet"

MaxTotal = Annotated[
    int, typer.Option(min=0, help="Most that all requests may cost while this process lives.", rich_help_panel=_MONEY)
]
MaxPerRequest = Annotated[int, typer.Option(min=0, help="Most that one request may cost.", rich_help_panel=_MONEY)]
Deposit = Annotated[
    int,
    typer.Option(
        min=0, help="What a channel is opened or topped up with; never more than --max-total.", rich_help_panel=_MONEY
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=_LISTEN)]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on.", rich_help_panel=_LISTEN)]
ApiKey = Annotated[
    str | None,
    typer.Option(
        help="Key that calls must bring; needed where other machines can call.",
        envvar="PLAIT_PROXY_KEY",
        rich_help_panel=_LISTEN,
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(help="Another name under which this machine is called; may be given again.", rich_help_panel=_LISTEN),
]
Rpc = Annotated[
    str | None,
    typer.Option("--rpc", help="JSON-RPC URL of the chain.", envvar="PLAIT_RPC", rich_help_panel=_CHAIN),
]
DeploymentFile = Annotated[
    Path | None,
    typer.Option(
        "--deployment",
        help="Deployment file of the contracts.",
        envvar="PLAIT_DEPLOYMENT",
        rich_help_panel=_CHAIN,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the payer's key; PLAIT_KEY holds one too.",
        exists=True,
        dir_okay=False,
        rich_help_panel=_CHAIN,
    ),
]
Gateway = Annotated[
    str | None,
    typer.Option(help="Owner's address of the one gateway to ask.", show_default="any", rich_help_panel=_CHAIN),
]
Profile = Annotated[
    list[str] | None,
    typer.Option(
        help="Numerics that requests may run under, the best one first; may be repeated.",
        show_default="any",
        rich_help_panel=_CHAIN,
    ),
]
Timeout = Annotated[float, typer.Option(help="Seconds that an answer may take.", rich_help_panel=_CHAIN)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    make: Callable[[], AsyncPlait]
    limits: Limits
    access: Access
    host: str
    port: int


def _proxy(
    max_total: MaxTotal = DEFAULT_DEPOSIT,
    max_per_request: MaxPerRequest = DEFAULT_DEPOSIT // 10,
    deposit: Deposit = DEFAULT_DEPOSIT,
    host: Host = "127.0.0.1",
    port: Port = 8780,
    api_key: ApiKey = None,
    allow_host: AllowHost = None,
    rpc: Rpc = None,
    deployment: DeploymentFile = None,
    key_file: KeyFile = None,
    gateway: Gateway = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    profile: Profile = None,
) -> None:
    """Serve OpenAI's API on this machine: each answer is checked, and paid from your channel within your limits.

    Point a client at http://127.0.0.1:8780/v1, with any API key unless you set one. GET /spending says what was spent.
    """
    if not is_loopback(host) and not api_key:
        raise typer.BadParameter(f"others can call {host}, and you pay: set --api-key, too", param_hint="--host")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("httpx", "uvicorn"):  # they name every call and connection
        logging.getLogger(name).setLevel(logging.WARNING)
    options = _Options(
        make=lambda: AsyncPlait(
            rpc=rpc,
            deployment=deployment,
            key=key_file.read_text(encoding="utf-8").strip() if key_file else None,
            gateway=gateway,
            deposit=min(deposit, max_total),
            timeout=timeout,
            profiles=profile,
        ),
        limits=Limits(per_request=max_per_request, total=max_total),
        access=Access(hosts=frozenset(each.casefold() for each in allow_host or ()), key=api_key or None),
        host=host,
        port=port,
    )
    asyncio.run(_run(options))


async def _run(options: _Options) -> None:
    """Serve until a signal ends it; then say what was spent."""
    spending = Spending(options.limits)
    async with options.make() as client:
        payer = to_hex(client.settings.payer().address)

        def ready(port: int) -> None:
            typer.echo(f"proxy ready on http://{_shown(options.host)}:{port}/v1  payer {payer}")
            typer.echo(f"it may spend {spending.left} base units, {options.limits.per_request} for one request")

        served = asyncio.get_running_loop().create_task(
            serve(Desk(client, spending), options.access, host=options.host, port=options.port, ready=ready)
        )
        with _ended_by_signals(served), contextlib.suppress(asyncio.CancelledError):
            await served
    typer.echo(f"proxy ended; {spending.requests} requests cost {spending.spent} base units")


@contextlib.contextmanager
def _ended_by_signals(task: asyncio.Task[None]) -> Generator[None]:
    """Cancel the task when this process is told to end."""
    loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


proxy = typer.Typer()
proxy.command("proxy")(_proxy)
