"""A contract asks the swarm: the shipped example, a prompt that strangers try to spoil, and fees that come back."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from chain_tests.anvil import Anvil
from chain_tests.live.network import MODEL, LiveNetwork, talk

from plait.chain import ChainReader, ChainWriter, Lane, Order, RequestParameters, artifact, decode
from plait.client import PreparedPrompt
from plait.protocol.commitments import ids_bytes
from plait.protocol.ids import HASH_ZERO, Address, Hash, keccak
from plait.protocol.pb import gateway_pb2
from plait.protocol.sealing import CAPSULE_BYTES, X25519, ContentKey, seal_prompt
from plait.protocol.typed import Key
from plait_audit import audit

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).resolve().parents[2]
FEE, CALLBACK_GAS = 5_000, 100_000
EXCLUSIVE_S, DEADLINE_S = 300, 600
REFUNDED = Hash(bytes(31) + b"\x01")
QUESTION = "Name one ocean."


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request of the contract."""

    number: int
    digest: Hash
    parameters: RequestParameters


class Keeper:
    """An `AnswerKeeper` on the chain, and its owner."""

    def __init__(self, reader: ChainReader, key: Key) -> None:
        self.reader = reader
        self._writer = ChainWriter(reader, key)
        self._lane = Lane(reader.rpc, key, reader.deployment.chain_id)
        self._code = artifact("AnswerKeeper")
        self.at = Address(bytes(20))

    async def deploy(self) -> None:
        """Put it on the chain, with tokens for two requests."""
        receipt = await self._lane.send(None, self._code.deployment(self.reader.deployment.address("Requests")))
        assert receipt.contract is not None
        self.at = receipt.contract
        await self._writer.transfer(self.at, 2 * FEE)

    async def ask(self, prompt: PreparedPrompt) -> Asked:
        """Ask by commitment, counted from the newest block's time: a copy of a chain has a clock of its own."""
        now = (await self.reader.block()).timestamp
        order = Order(
            gateway=prompt.gateway,
            model=prompt.model,
            profile=prompt.profile,
            max_tokens=8,
            fee=FEE,
            exclusive_until=now + EXCLUSIVE_S,
            deadline=now + DEADLINE_S,
            callback_gas=CALLBACK_GAS,
        )
        data = self._code.functions["askByCommitment"].encode(order.encodable(), prompt.commitment, prompt.input_tokens)
        events = [decode(self.reader.deployment, log) for log in (await self._lane.send(self.at, data)).logs]
        values = next(each.values for each in events if each and each.name == "Requested")
        parameters = RequestParameters.from_event(values["params"])
        return Asked(number=values["id"], digest=Hash(values["request"]), parameters=parameters)

    async def give_up(self, asked: Asked) -> None:
        data = self._code.functions["giveUp"].encode(asked.number, asked.parameters.encodable())
        await self._lane.send(self.at, data)

    async def kept(self, asked: Asked) -> Hash:
        answers = self._code.functions["answers"]
        return Hash(answers.decode(await self.reader.rpc.call(self.at, answers.encode(asked.number)))[0])


async def test_example_of_a_contract_that_asks_runs_on_the_network(net: LiveNetwork, tmp_path: Path) -> None:
    key = await net.wallet()
    settings = {
        "PLAIT_RPC": net.rpc,
        "PLAIT_DEPLOYMENT": str(net.deployment_file),
        "PLAIT_KEY": key.secret_hex(),
        "PLAIT_HOME": str(tmp_path),
    }
    example = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / "03_onchain_request.py"),
        env={**os.environ, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(200):
        output, _ = await example.communicate()

    said = output.decode()
    assert example.returncode == 0, said
    assert said.count("= keccak256 of the answer's token ids") == 2, said
    assert "Paris" in said
    assert "committed to as 0x" in said
    async with net.reader() as reader:
        report = await audit(reader)
        assert (report.findings, report.to_dict()["counts"]["failedCallbacks"]) == ((), 0)


async def test_contract_s_prompt_reaches_the_node_whatever_strangers_bring_before_and_after(
    net: LiveNetwork, tmp_path: Path
) -> None:
    key = await net.wallet()
    async with net.payer(tmp_path, key=key) as client, net.reader() as reader, httpx.AsyncClient() as http:
        keeper = Keeper(reader, key)
        await keeper.deploy()
        prompt = await client.requests.prepare(model=MODEL, messages=talk(QUESTION))
        asked = await keeper.ask(prompt)

        async def spoil(digest: Hash = asked.digest, *, number: int = asked.number) -> int:
            call = garbage(net, digest).SerializeToString()
            return (await http.post(f"{net.gateway_url}/v1/requests/{number}/prompt", content=call)).status_code

        assert [await spoil(), await spoil()] == [202, 202]
        assert await spoil(Hash(secrets.token_bytes(32))) == 404
        assert await spoil(number=asked.number + 1) == 404
        await client.requests.deliver_prompt(asked.number, ids=prompt.ids, content_key=prompt.content_key)
        await spoil()
        answer = await client.requests.wait(asked.number, timeout=200)

        assert await keeper.kept(asked) == keccak(ids_bytes(answer.ids))
        assert await reader.token_balance(keeper.at) == FEE
        assert await spoil() == 404  # settled
        await client.requests.deliver_prompt(asked.number, ids=prompt.ids, content_key=prompt.content_key)
        assert (await audit(reader)).findings == ()


def garbage(net: LiveNetwork, request: Hash) -> gateway_pb2.PromptCall:
    """Return what looks like a sealed prompt and opens for nobody."""
    capsule = gateway_pb2.PromptCapsule(
        node=net.owner("worker"),
        prekey=secrets.token_bytes(32),
        sealed=secrets.token_bytes(CAPSULE_BYTES[X25519]),
    )
    prompt = seal_prompt(ContentKey.generate(), request, [1, 2, 3])
    return gateway_pb2.PromptCall(request=request, capsules=[capsule], prompt=prompt)


async def test_contract_that_nobody_answers_has_its_fees_back_and_is_told(net: LiveNetwork, tmp_path: Path) -> None:
    key = await net.wallet()
    async with net.payer(tmp_path, key=key) as client:
        prompt = await client.requests.prepare(model=MODEL, messages=talk(QUESTION))
    state = await net.call("anvil_dumpState")
    with Anvil() as copy:
        assert copy.rpc("anvil_loadState", state)
        async with await ChainReader.connect(copy.url, net.deployment) as reader:
            keeper, stranger = Keeper(reader, key), Key.generate()
            copy.fund(stranger.address)
            await keeper.deploy()
            cancelled, refunded = await keeper.ask(prompt), await keeper.ask(prompt)
            assert await reader.token_balance(keeper.at) == 0

            copy.increase_time(EXCLUSIVE_S + 1)
            await keeper.give_up(cancelled)
            assert (await keeper.kept(cancelled), await keeper.kept(refunded)) == (REFUNDED, HASH_ZERO)

            copy.increase_time(DEADLINE_S - EXCLUSIVE_S)
            await ChainWriter(reader, stranger).refund(refunded.number, refunded.parameters)
            assert await keeper.kept(refunded) == REFUNDED
            assert await reader.token_balance(keeper.at) == 2 * FEE
            report = await audit(reader)
            assert (report.findings, report.to_dict()["counts"]["failedCallbacks"]) == ((), 0)
