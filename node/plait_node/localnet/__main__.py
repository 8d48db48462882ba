"""`python -m plait_node.localnet up|down`: a local network that stays until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from plait_node.errors import LocalnetError
from plait_node.localnet.network import Network

_UP_S = 400.0
_DOWN_S = 30.0
_FOLDER = Path("build/local")
_MARK = ".plait-localnet"  # what this program may delete

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Folder = Annotated[Path, typer.Option("--folder", help="Where the network keeps its files and logs.")]


@app.command()
def serve(
    folder: Folder = _FOLDER,
    *,
    restart: Annotated[
        bool, typer.Option(help="Start the worker again when it ends, as a service manager does.")
    ] = True,
) -> None:
    """Start a network and keep it until SIGTERM or Ctrl-C, or until whoever started it is gone."""
    folder = folder.resolve()
    try:
        _make_fresh(folder)
        asyncio.run(_serve(folder, restart=restart))
    except LocalnetError as error:
        print(f"localnet: {error.text}", file=sys.stderr)
        raise typer.Exit(1) from None


def _make_fresh(folder: Path) -> None:
    """Empty the folder of an earlier network; raise `LocalnetError` rather than touch a folder of anything else."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / _MARK).is_file():
            raise LocalnetError(f"{folder} holds something else than a local network: name a new folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()


async def _serve(folder: Path, *, restart: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    network = Network(folder=folder, restart=restart, say=lambda text: print(text, flush=True))
    starting = asyncio.create_task(network.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            print(f"up        {network.summary_file}", flush=True)
            await stopping
    finally:
        # The one who stops must not be the one who is cancelled: every child is ended, whatever was under way.
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await network.stop()


@app.command()
def up(folder: Folder = _FOLDER) -> None:
    """Start a network in the background and print its URLs and a funded key."""
    if (pid := _supervisor(folder)) is not None:
        print(f"already up (supervisor {pid}); `make down` stops it")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "plait_node.localnet", "serve", "--folder", str(folder)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + _UP_S
    while "\nup " not in log.read_text(encoding="utf-8"):
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            print(f"the network did not come up:\n{log.read_text(encoding='utf-8')}", file=sys.stderr)
            raise typer.Exit(1)
        time.sleep(0.2)
    print(log.read_text(encoding="utf-8"), end="")
    facts = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    print(f"export PLAIT_RPC={facts['rpc']}\nexport PLAIT_DEPLOYMENT={facts['deployment']}")
    print(f"export PLAIT_KEY={facts['payerKey']}  # worthless outside this network")
    print('ask: .venv/bin/plait ask "Why is the sky blue?"    stop: make down')


@app.command()
def down(folder: Folder = _FOLDER) -> None:
    """Stop the network that `up` started."""
    pid = _supervisor(folder)
    if pid is None:
        print("nothing is up")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_S
    while _supervisor(folder) is not None:
        if time.monotonic() > deadline:
            print(f"supervisor {pid} does not stop; end it with kill -9 {pid}", file=sys.stderr)
            raise typer.Exit(1)
        time.sleep(0.1)
    print("down")


def _supervisor(folder: Path) -> int | None:
    """Return the pid of the folder's supervisor if that very program still runs."""
    try:
        pid = int(json.loads((folder / "network.json").read_text(encoding="utf-8"))["supervisor"])
        command = Path(f"/proc/{pid}/cmdline").read_bytes() if sys.platform == "linux" else b"plait_node.localnet"
        os.kill(pid, 0)
    except (OSError, ValueError, KeyError):
        return None
    return pid if b"plait_node.localnet" in command else None


if __name__ == "__main__":
    app()
