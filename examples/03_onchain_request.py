"""A contract asks a model on chain: first with a public prompt, then with one that only the node gets to read.

Start a network with `make up`, export the three variables that it prints, and run this with .venv/bin/python. The
contract is contracts/examples/AnswerKeeper.sol, from the bytecode that ships with plait: it pays the fee, is called
back in the transaction that answers, and keeps the answer's hash.
"""

from __future__ import annotations

import asyncio
import time

from plait import AsyncPlait
from plait.chain import ChainReader, Lane, Order, Receipt, artifact, decode
from plait.client import OnChainAnswer, PreparedPrompt
from plait.protocol.commitments import ids_bytes
from plait.protocol.ids import Address, Hash, keccak, to_hex

FEE = 10_000  # base units of the token
CALLBACK_GAS = 100_000  # the node pays for it: it refuses what its operator finds too much
EXCLUSIVE_S, DEADLINE_S = 300, 600
PUBLIC = [{"role": "user", "content": "What is the capital of France?"}]
PRIVATE = [{"role": "user", "content": "Say one kind sentence to Ada, who was born on the tenth of December."}]


class Keeper:
    """An AnswerKeeper of ours on the chain."""

    def __init__(self, reader: ChainReader, lane: Lane) -> None:
        self._reader, self._lane = reader, lane
        self._code = artifact("AnswerKeeper")
        self.address = Address(bytes(20))

    async def deploy(self, *, tokens: int) -> None:
        """Put it on the chain and give it tokens to pay fees with."""
        requests = self._reader.deployment.address("Requests")
        placed = (await self._lane.send(None, self._code.deployment(requests))).contract
        if placed is None:
            raise SystemExit("the transaction placed no contract")
        self.address = placed
        transfer = artifact("Token").functions["transfer"].encode(self.address, tokens)
        await self._lane.send(self._reader.deployment.address("Token"), transfer)

    async def ask(self, prompt: PreparedPrompt) -> int:
        """Ask with the prompt itself, for everybody to read; return the request's number."""
        return self._number(await self._send("ask", order(prompt), prompt.public_ids))

    async def ask_by_commitment(self, prompt: PreparedPrompt) -> int:
        """Ask with a commitment to the prompt; return the request's number."""
        return self._number(await self._send("askByCommitment", order(prompt), prompt.commitment, prompt.input_tokens))

    async def kept(self, number: int) -> Hash:
        """Return what the contract keeps of a request."""
        answers = self._code.functions["answers"]
        return Hash(answers.decode(await self._reader.rpc.call(self.address, answers.encode(number)))[0])

    async def _send(self, function: str, *arguments: object) -> Receipt:
        return await self._lane.send(self.address, self._code.functions[function].encode(*arguments))

    def _number(self, receipt: Receipt) -> int:
        events = [event for log in receipt.logs if (event := decode(self._reader.deployment, log))]
        return next(int(event.values["id"]) for event in events if event.name == "Requested")


def order(prompt: PreparedPrompt) -> tuple[object, ...]:
    """Return what the contract orders: until `exclusive_until` nobody but the node can end the request."""
    now = int(time.time())
    return Order(
        gateway=prompt.gateway,
        model=prompt.model,
        profile=prompt.profile,
        max_tokens=24,
        fee=FEE,
        exclusive_until=now + EXCLUSIVE_S,
        deadline=now + DEADLINE_S,
        callback_gas=CALLBACK_GAS,
    ).encodable()


async def show(keeper: Keeper, answer: OnChainAnswer) -> None:
    """Print an answer, and that the contract was called back with exactly this one."""
    kept = await keeper.kept(answer.request)
    print(f"answer    {answer.content!r}")
    print(f"          in transaction {answer.transaction}, for {answer.gas_used:,} gas")
    print(f"kept      {to_hex(kept)}")
    if kept != keccak(ids_bytes(answer.ids)):
        raise SystemExit("the contract keeps another hash than that of the answer's token ids")
    print("          = keccak256 of the answer's token ids")


async def main() -> None:
    async with (
        AsyncPlait() as client,
        await ChainReader.connect(client.settings.rpc, client.settings.deployment) as reader,
    ):
        lane = Lane(reader.rpc, client.settings.payer(), reader.deployment.chain_id)
        keeper = Keeper(reader, lane)
        await keeper.deploy(tokens=2 * FEE)
        print(f"contract  {to_hex(keeper.address)}")
        model = (await client.models.list())[0].name

        prompt = await client.requests.prepare(model=model, messages=PUBLIC)
        number = await keeper.ask(prompt)
        print(f"request   {number}: {PUBLIC[0]['content']}")
        await show(keeper, await client.requests.wait(number, timeout=EXCLUSIVE_S))

        prompt = await client.requests.prepare(model=model, messages=PRIVATE)
        number = await keeper.ask_by_commitment(prompt)
        print(f"request   {number}: committed to as {to_hex(prompt.commitment)}")
        # A backend that may stop here keeps ids and content key first: without them nobody can answer.
        await client.requests.deliver_prompt(number, ids=prompt.ids, content_key=prompt.content_key)
        await show(keeper, await client.requests.wait(number, timeout=EXCLUSIVE_S))


if __name__ == "__main__":
    asyncio.run(main())
