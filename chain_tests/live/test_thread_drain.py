"""A node that is told to stop in the middle of an answer finishes it first: no other attempt, no other words."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from chain_tests.live.network import MODEL, LiveNetwork, Node, talk, until

from plait import AsyncPlait
from plait.client.answers import ChatCompletion
from plait.protocol.messages import Job

pytestmark = pytest.mark.timeout(900)

STORY = "Write a long story about a lighthouse keeper and the sea."
STOP_AFTER, LIMIT_S = 10, 100.0


async def ask(client: AsyncPlait, stop: Callable[[Job], None]) -> ChatCompletion:
    """Ask for a story, and call `stop` once some tokens are out."""
    stream = await client.chat.completions.create(
        model=MODEL, messages=talk(STORY), max_tokens=64, temperature=0, stream=True
    )
    stopped = False
    async for _ in stream:
        if not stopped and stream.usage.completion_tokens >= STOP_AFTER:
            job = stream._run.verifier.job
            assert job is not None
            stopped = True
            stop(job)
    return stream.completion


@pytest.mark.parametrize("role", ["stage", "worker", "gateway"])
async def test_node_told_to_stop_finishes_its_answer_and_then_stops(
    net: LiveNetwork, tmp_path: Path, role: str
) -> None:
    told: list[Node] = []

    def stop(job: Job) -> None:
        told.append(net.by_owner(job.route[1].node) if role == "stage" else net.nodes[role])
        os.kill(told[0].pid, signal.SIGTERM)

    async with net.payer(tmp_path) as client:
        undisturbed = await ask(client, lambda _: None)
        answer = await ask(client, stop)
        (node,) = told
        pid = node.pid
        assert answer.choices[0].message.content == undisturbed.choices[0].message.content
        assert answer.job.attempt == undisturbed.job.attempt
        assert answer.acknowledged
        await until(lambda: not node.alive, f"{node.name} did not stop", within_s=LIMIT_S)
        assert pid == node.pid
        assert "node stopping jobs_left=no" in node.text()
        await net.restart(node.name)
        again = await ask(client, lambda _: None)
        assert again.choices[0].message.content == undisturbed.choices[0].message.content


async def test_worker_says_where_its_swarm_is_weakest_and_is_drained_by_command(
    net: LiveNetwork, tmp_path: Path
) -> None:
    worker = net.nodes["worker"]
    drains: list[subprocess.Popen[str]] = []

    def stop(_: Job) -> None:
        drains.append(plait("node", "drain", "--config", str(worker.home / "node.toml"), "--timeout", str(LIMIT_S)))

    async with net.payer(tmp_path) as client:
        undisturbed = await ask(client, lambda _: None)
        status = plait("node", "status", "--home", str(worker.home))
        text, _ = await asyncio.to_thread(status.communicate, timeout=LIMIT_S)
        assert f"serving, process {worker.pid}" in text
        assert "fp32-strict: blocks" in text
        answer = await ask(client, stop)
        assert answer.choices[0].message.content == undisturbed.choices[0].message.content
        assert answer.job.attempt == undisturbed.job.attempt
        text, _ = await asyncio.to_thread(drains[0].communicate, timeout=2 * LIMIT_S)
        assert (drains[0].returncode, text.strip()) == (0, "node ended, no jobs left")
        assert not worker.ready
        await until(lambda: not worker.alive, "the worker's process did not end", within_s=LIMIT_S)


def plait(*words: str) -> subprocess.Popen[str]:
    """Type a command."""
    command = [sys.executable, "-c", "from plait.cli import main; main()", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
