"""`plait audit`: replay a deployment's logs and report what does not add up."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from plait.chain.deployments import Deployment
from plait.chain.reader import ChainReader
from plait.chain.rpc import Rpc
from plait_audit.report import Report, audit, show

app = typer.Typer()


async def _run(url: str, deployment: Path | None, last: int | None) -> Report:
    if deployment is None:
        async with Rpc(url) as rpc:
            deployment = Path("deployments") / f"{await rpc.chain_id()}.json"
    async with await ChainReader.connect(url, Deployment.load(deployment)) as reader:
        return await audit(reader, last=last)


@app.command("audit")
def run(
    rpc: Annotated[str, typer.Option("--rpc", help="JSON-RPC URL of the chain.", envvar="PLAIT_RPC")],
    deployment: Annotated[
        Path | None,
        typer.Option(
            "--deployment",
            help="Deployment file of the contracts; default: deployments/<chain id>.json.",
            envvar="PLAIT_DEPLOYMENT",
        ),
    ] = None,
    last: Annotated[
        int | None, typer.Option("--to-block", help="Last block to look at; the head if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rebuild every balance, channel and stake from logs alone and compare with storage; exit 1 on findings."""
    report = asyncio.run(_run(rpc, deployment, last))
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        show(report, Console())
    raise typer.Exit(0 if report.clean else 1)
