"""Two gateway processes of one operator: the one that streams is killed, or stopped, and the other carries on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from chain_tests.live.network import CLAIMED_S, MODEL, TOKEN, UP_S, LiveNetwork, launch, talk, until

from plait.chain import GATEWAY, WORKER
from plait.client.core import AsyncStream
from plait.protocol.ids import Address, to_hex
from plait.protocol.typed import Key
from plait_node.home import Home
from plait_node.ports import free_port
from plait_node.swarm import DhtKey

pytestmark = pytest.mark.timeout(900)

QUESTION, TOKENS, ACT_AT = "Tell me a long story about a river and a stone.", 100, 40


@dataclass(slots=True, kw_only=True)
class Process:
    """One node of the operator."""

    home: Path
    log: Path
    process: subprocess.Popen[bytes]

    def text(self) -> str:
        """Return its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@dataclass(slots=True, kw_only=True)
class Operator:
    """An owner with two gateways that serve at once, and a worker."""

    owner: Address
    both: list[Process]

    def streaming(self, request: str) -> tuple[Process, Process]:
        """Return the gateway that took a job, and the other one."""
        first, second = self.both
        return (first, second) if f"job taken request={request}" in first.text() else (second, first)


@pytest.fixture
async def operator(net: LiveNetwork, tmp_path: Path) -> AsyncGenerator[Operator]:
    ports, keys = [free_port(), free_port()], [Key.generate() for _ in range(3)]
    owner, seed = await net.wallet(tokens=1_000 * TOKEN), os.urandom(32)
    async with net.writer(owner) as writer:
        urls = " ".join(f"http://127.0.0.1:{port}" for port in ports)
        endpoint = f"{urls} dht://127.0.0.1:{free_port()}"
        await writer.register_node(GATEWAY | WORKER, endpoint, DhtKey(seed).public)
        await writer.stake(500 * TOKEN)
        for key in keys:
            await writer.add_service_key(key)
            await net.call("anvil_setBalance", to_hex(key.address), hex(10**19))
        for stage in (node for name, node in net.nodes.items() if name.startswith("stage")):
            await writer.open_channel(stage.owner, keys[2].address, 50 * TOKEN)
    faces = [f'[gateway]\nlisten = "127.0.0.1:{port}"' for port in ports]
    work = f"[worker]\nmodel = {json.dumps(to_hex(net.model))}\ninput_price = 2000000\noutput_price = 8000000"
    sections = {"a": faces[0], "b": faces[1], "worker": work}
    nodes = [
        started(net, Home.create(tmp_path / name, service=key, dht_seed=seed), owner.address, section)
        for (name, section), key in zip(sections.items(), keys, strict=True)
    ]
    try:
        for each in nodes:
            await until(lambda each=each: (each.home / "ready.json").exists(), "a node was not up", within_s=UP_S)
        yield Operator(owner=owner.address, both=nodes[:2])
    finally:
        for each in nodes:
            with suppress(ProcessLookupError):
                os.kill(each.process.pid, signal.SIGCONT)
                each.process.kill()
            each.process.wait()


def started(net: LiveNetwork, home: Home, owner: Address, section: str) -> Process:
    """Start one node in its folder."""
    text = json.dumps
    lines = [
        'home = "."',
        f"rpc = {text(net.rpc)}",
        f"deployment = {text(str(net.deployment_file))}",
        f"owner = {text(to_hex(owner))}",
        f"roles = [{text(section[1 : section.index(']')])}]",
        f"models = {text(str(net.folder_of('models')))}",
        f"broker = {text(net.broker)}",
        f'[dht]\nlisten = "127.0.0.1:{free_port()}"',
        section,
    ]
    (home.path / "node.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    log = home.path.with_suffix(".log")
    return Process(home=home.path, log=log, process=launch(home.path / "node.toml", log))


async def told(stream: AsyncStream, operator: Operator | None = None, how: signal.Signals = signal.SIGKILL) -> str:
    """Return the text of an answer; in its middle send a signal to the gateway that streams it."""
    text = ""
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        if operator is not None and stream.usage.completion_tokens >= ACT_AT:
            operator.streaming(stream.id)[0].process.send_signal(how)
            operator = None
    return text


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_answer_goes_on_at_the_other_gateway_and_every_job_is_claimed_once(
    net: LiveNetwork, operator: Operator, tmp_path: Path, how: signal.Signals
) -> None:
    ask = {"model": MODEL, "messages": talk(QUESTION), "max_tokens": TOKENS, "temperature": 0, "stream": True}
    async with net.payer(tmp_path / "payer", gateway=to_hex(operator.owner)) as client:
        undisturbed = await client.chat.completions.create(**ask)
        text = await told(undisturbed)
        stream = await client.chat.completions.create(**ask)
        gone, successor = operator.streaming(stream.id)

        assert await told(stream, operator, how) == text

        answer = stream.completion
        assert (answer.acknowledged, answer.paid) == (True, undisturbed.completion.paid)
        assert "channel taken over" in successor.text()
        if how is signal.SIGSTOP:
            gone.process.send_signal(signal.SIGCONT)
            await until(lambda: "the lease lapsed" in gone.text(), "the old owner did not notice")
        after = await client.chat.completions.create(**(ask | {"max_tokens": 8}))
        await told(after)
        assert f"job taken request={after.id}" in successor.text()

        total = 2 * answer.paid + after.completion.paid
        channel = (await client.purse()).channel(operator.owner).id
        deadline = time.monotonic() + CLAIMED_S
        while (claims := await net.claims(channel))[-1:] == [] or claims[-1].cumulative < total:
            assert time.monotonic() < deadline, f"{total} base units are not claimed: {claims}"
            await asyncio.sleep(0.2)
        assert [each.cumulative for each in claims] == [answer.paid, 2 * answer.paid, total]
        assert [job.status for job in await client.jobs.list()] == ["claimed"] * 3
