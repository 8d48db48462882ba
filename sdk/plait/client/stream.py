"""An answer as it comes: text piece by piece, and the checked whole at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from plait.client.answers import (
    FINISH_REASONS,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    Choice,
    ChoiceDelta,
    ChunkChoice,
    FinishReason,
    JobInfo,
    Usage,
)
from plait.client.errors import ClientError
from plait.client.run import Run
from plait.client.stops import StopCutter
from plait.protocol.ids import to_hex
from plait.protocol.messages import Job


class AsyncStream:
    """Chunks of one answer. Leaving it early cancels the job; `completion` is there once it ended."""

    def __init__(self, run: Run, *, created: int) -> None:
        self._run = run
        self._created = created
        self._completion: ChatCompletion | None = None
        self._told: tuple[Job, JobInfo] | None = None  # the record that was asked for last, as callers see it
        self._chunks = self._follow()
        self.id = to_hex(run.request)

    @property
    def usage(self) -> Usage:
        """Return the tokens so far."""
        prompt = self._run.prepared.request.input_tokens
        return Usage(prompt_tokens=prompt, completion_tokens=len(self._run.verifier.ids))

    @property
    def job(self) -> JobInfo | None:
        """Return who works on the answer now, None before the first record; the method comes with the whole."""
        job = self._run.verifier.job
        if job is None:
            return None
        if self._told is None or self._told[0] is not job:
            self._told = job, JobInfo.of(job, None)
        return self._told[1]

    @property
    def verified_tokens(self) -> int:
        """Return how many tokens of the answer have passed L0."""
        return self._run.verifier.verified

    @property
    def paid(self) -> int:
        """Return what was signed away for this answer so far, in base units."""
        return self._run.paid

    @property
    def completion(self) -> ChatCompletion:
        """Return the whole answer; raise `ClientError` before its end."""
        if self._completion is None:
            raise ClientError("the answer has not ended; read the stream to its end first")
        return self._completion

    def price_of(self, tokens: int) -> int:
        """Return the price of the prompt and `tokens` tokens of answer under the quote, in base units."""
        return self._run.price_of(tokens)

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self._chunks

    async def __anext__(self) -> ChatCompletionChunk:
        return await anext(self._chunks)

    async def close(self) -> None:
        """Stop the answer if it still runs, and pay what was checked of it."""
        await self._chunks.aclose()
        if self._completion is None:
            await self._run.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _follow(self) -> AsyncGenerator[ChatCompletionChunk]:
        run = self._run
        decoder = run.prepared.served.tokenizer.stream()
        cutter = StopCutter(run.prepared.call.stop)
        pieces: list[str] = []
        shown: list[str] = []
        begun = False
        async with aclosing(run.events()) as events:
            async for ids in events:
                pieces.append(decoder.push(ids))
                shown.append(cutter.push(pieces[-1]))
                if shown[-1]:
                    yield self._chunk(shown[-1], first=not begun)
                    begun = True
        pieces.append(decoder.finish())
        run.verifier.check_text("".join(pieces))
        shown.append(cutter.push(pieces[-1]) + cutter.finish())
        if shown[-1]:
            yield self._chunk(shown[-1], first=not begun)
        self._completion = self._whole("".join(shown))
        yield self._last(self._completion)

    def _chunk(self, text: str, *, first: bool) -> ChatCompletionChunk:
        delta = ChoiceDelta(role="assistant" if first else None, content=text)
        return ChatCompletionChunk(
            id=self.id, created=self._created, model=self._model, choices=(ChunkChoice(delta=delta),)
        )

    def _last(self, whole: ChatCompletion) -> ChatCompletionChunk:
        choice = ChunkChoice(delta=ChoiceDelta(), finish_reason=whole.choices[0].finish_reason)
        return ChatCompletionChunk(
            id=self.id, created=self._created, model=self._model, choices=(choice,), usage=whole.usage
        )

    @property
    def _model(self) -> str:
        return self._run.prepared.served.manifest.name

    def _whole(self, text: str) -> ChatCompletion:
        run, verifier = self._run, self._run.verifier
        verification = verifier.report()
        if verifier.receipt is None or verifier.job is None:
            raise AssertionError("a report needs a receipt, and that a job")
        receipt = verifier.receipt.message
        reason: FinishReason = FINISH_REASONS[receipt.finish]
        message = ChatCompletionMessage(content=text)
        return ChatCompletion(
            id=self.id,
            created=self._created,
            model=self._model,
            choices=(Choice(message=message, finish_reason=reason),),
            usage=self.usage,
            receipt=receipt,
            signed_receipt=verifier.receipt,
            verification=verification,
            job=JobInfo.of(verifier.job, verifier.note),
            gateway=to_hex(run.prepared.offer.gateway.owner),
            paid=run.paid,
            acknowledged=run.acknowledged,
        )
