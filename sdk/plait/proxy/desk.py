"""Where calls are taken: the cheapest offer within the limits is asked, and each answer has a task that follows it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from plait.client.answers import Model
from plait.client.call import Call, check_call
from plait.client.core import AsyncPlait
from plait.client.run import CANCEL_PATIENCE_S
from plait.client.stream import AsyncStream
from plait.protocol.errors import UnknownModelError
from plait.protocol.ids import hash32, to_hex
from plait.proxy.answer import GRACE_S, Answer, Running
from plait.proxy.asked import Asked
from plait.proxy.errors import CrowdedError, StoppingError
from plait.proxy.prompts import Prompts
from plait.proxy.spending import Spending

MOST_RUNNING = 32  # each holds a connection; the client has 64
_STOPPING = "the proxy is going down; ask again when it is back"
_NO_CHAT = ({"role": "user", "content": ""},)  # a raw prompt's call; never rendered


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A model that is served now; `name` is what calls may name it, `created` its publication in Unix seconds."""

    name: str
    id: str
    publisher: str
    created: int
    gateways: tuple[str, ...]


class Desk:
    """Answers calls with a client's money, within limits."""

    def __init__(self, client: AsyncPlait, spending: Spending, *, most_running: int = MOST_RUNNING) -> None:
        self.spending = spending
        self._client = client
        self._most = most_running
        self._answers: dict[asyncio.Task[None], Answer] = {}
        self._listed: dict[str, tuple[str, int] | None] = {}  # publisher and time by model
        self._prompts = Prompts(client.settings.home / "files")
        self._stopping = False

    async def open(self) -> None:
        """Connect to the chain and open the journal, so that what is wrong shows at once, and calls share one purse."""
        await self._client.purse()
        await self._client.catalogue()

    async def close(self) -> None:
        """Refuse new calls, stop running answers, and wait until they are settled or a job's end is overdue."""
        self._stopping = True
        why = StoppingError(_STOPPING)
        why.moved = True  # a part may be paid already: its client is not to repeat the call by itself
        for answer in self._answers.values():
            answer.leave(why)
        if self._answers:
            await asyncio.wait(self._answers, timeout=GRACE_S + 2 * CANCEL_PATIENCE_S)

    def ask(self, asked: Asked) -> Answer:
        """Begin an answer; raise `CrowdedError` or `StoppingError`, other refusals come as its first event."""
        if self._stopping:
            raise StoppingError(_STOPPING)
        if len(self._answers) >= self._most:
            raise CrowdedError(f"{self._most} requests run already; wait for one of them")
        answer = Answer(lambda: self._begin(asked), clock=self._client.now)
        self._answers[answer.task] = answer
        answer.task.add_done_callback(self._answers.pop)
        return answer

    async def models(self) -> list[ListedModel]:
        """Return the models that can be asked now, by name; where two have the same name, by id."""
        served = await self._client.models.list()
        names = Counter(each.name.casefold() for each in served)
        found: list[ListedModel] = []
        for each in served:
            known = await self._published(each)
            if known is not None:
                name = each.name if names[each.name.casefold()] == 1 else each.id
                publisher, created = known
                found.append(
                    ListedModel(name=name, id=each.id, publisher=publisher, created=created, gateways=each.gateways)
                )
        return found

    async def model(self, name: str) -> ListedModel:
        """Return one model by name or id; raise `UnknownModelError`."""
        listed = await self.models()
        wanted = name.casefold()
        for each in listed:
            if wanted in (each.name.casefold(), each.id):
                return each
        names = ", ".join(each.name for each in listed) or "nothing"
        raise UnknownModelError(f"no gateway serves {name[:100]!r}; served now: {names}")

    async def _published(self, model: Model) -> tuple[str, int] | None:
        if self._listed.get(model.id) is None:
            edge = await self._client.edge()
            info = await edge.model(hash32(model.id))
            self._listed[model.id] = (to_hex(info.publisher), info.published_at) if info else None
        return self._listed[model.id]

    async def _begin(self, asked: Asked) -> Running:
        client = self._client
        run = await client.prepare(self._call(asked), lambda served: self._prompts.ids(asked, served))
        running = Running(
            run=run,
            stream=AsyncStream(run, created=int(client.now())),
            purse=await client.purse(),
            hold=self.spending.hold(run.prepared.offer.price),
        )
        try:
            await run.submit()
        except BaseException:
            running.settle()
            raise
        return running

    def _call(self, asked: Asked) -> Call:
        return check_call(
            model=asked.model,
            messages=asked.messages or _NO_CHAT,
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            seed=asked.seed,
            stop=asked.stop,
            max_price=None,
            timeout_s=self._client.settings.timeout_s,
        )
