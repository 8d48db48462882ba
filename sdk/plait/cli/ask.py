"""`plait ask` and `plait job`: one question from a shell, and what became of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from plait.client import Plait

Rpc = Annotated[str | None, typer.Option("--rpc", help="JSON-RPC URL of the chain.", envvar="PLAIT_RPC")]
Deployment = Annotated[
    Path | None, typer.Option("--deployment", help="Deployment file of the contracts.", envvar="PLAIT_DEPLOYMENT")
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="File with the payer's key; PLAIT_KEY holds one too.", exists=True, dir_okay=False),
]


Profile = Annotated[
    list[str] | None,
    typer.Option(help="Numerics it may run under, the best one first; may be repeated.", show_default="any"),
]


def _client(
    rpc: str | None, deployment: Path | None, key_file: Path | None, *, profiles: list[str] | None = None
) -> Plait:
    key = key_file.read_text(encoding="utf-8").strip() if key_file else None
    return Plait(rpc=rpc, deployment=deployment, key=key, profiles=profiles)


def _ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option(help="Name or id of a served model.")] = "smollm2-135m",
    max_tokens: Annotated[int, typer.Option(help="Most tokens of the answer.")] = 128,
    temperature: Annotated[float, typer.Option(help="0: the likeliest token each time; above: sampled.")] = 0.0,
    profile: Profile = None,
    rpc: Rpc = None,
    deployment: Deployment = None,
    key_file: KeyFile = None,
) -> None:
    """Ask a question; the answer streams to stdout, what was checked and paid to stderr."""
    with _client(rpc, deployment, key_file, profiles=profile) as client:
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=max_tokens,
            temperature=temperature,
            stream=True,
        )
        for chunk in stream:
            typer.echo(chunk.choices[0].delta.content or "", nl=False)
        typer.echo()
        answer = stream.completion
        typer.echo(
            f"job {answer.id}  {answer.verification.level}: {', '.join(answer.verification.checks)}  "
            f"price {answer.receipt.price} base units",
            err=True,
        )


def _job(
    request: Annotated[str, typer.Argument(help="A job's id, as `plait ask` printed it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    rpc: Rpc = None,
    deployment: Deployment = None,
    key_file: KeyFile = None,
) -> None:
    """Show whether a job's receipt is signed, claimed or final."""
    with _client(rpc, deployment, key_file) as client:
        job = client.jobs.get(request)
    if as_json:
        typer.echo(json.dumps(job.to_dict(), indent=2))
    else:
        typer.echo(f"{request} {job.status}" + (f" in transaction {job.transaction}" if job.transaction else ""))


ask = typer.Typer()
ask.command("ask")(_ask)
job = typer.Typer()
job.command("job")(_job)
