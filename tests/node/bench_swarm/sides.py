"""Processes on hosts: one that gives back what it gets, one that asks it again and again and says how long it took."""

from __future__ import annotations

import asyncio
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from bench.swarm.hosts import Hosts

ECHO = """
import asyncio, sys
async def main():
    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
    server = await asyncio.start_server(echo, sys.argv[1], 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
ASKS = """
import socket, sys, time
sys.stdin.readline()
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    began = time.monotonic()
    line.sendall(b".")
    line.recv(1)
    print(time.monotonic() - began, flush=True)
    time.sleep(0.02)
"""


@asynccontextmanager
async def running(hosts: Hosts, host: str, program: str, *arguments: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run a program on a host for as long as the block lasts."""
    command = hosts.command(host, [sys.executable, "-c", program, *arguments])
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    hosts.claim(host, process.pid)
    try:
        yield process
    finally:
        process.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@asynccontextmanager
async def echo_on(hosts: Hosts, host: str) -> AsyncGenerator[tuple[str, int]]:
    """Run an echo on a host; yield where the others reach it."""
    async with running(hosts, host, ECHO, hosts.address(host)) as process:
        yield await hosts.door(host, int(await heard(process, deadline_s=60)))


async def heard(process: asyncio.subprocess.Process, *, deadline_s: float) -> bytes:
    """Return the next line of a process."""
    assert process.stdout is not None
    return await asyncio.wait_for(process.stdout.readline(), deadline_s)


@asynccontextmanager
async def line_to(place: tuple[str, int]) -> AsyncGenerator[tuple[StreamReader, StreamWriter]]:
    """Connect from here."""
    reader, writer = await asyncio.wait_for(asyncio.open_connection(*place), 60)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ping_s(line: tuple[StreamReader, StreamWriter], *, deadline_s: float = 60.0) -> float:
    """Return the seconds until a byte has come back."""
    reader, writer = line
    began = asyncio.get_running_loop().time()
    writer.write(b".")
    assert await asyncio.wait_for(reader.readexactly(1), deadline_s) == b"."
    return asyncio.get_running_loop().time() - began
