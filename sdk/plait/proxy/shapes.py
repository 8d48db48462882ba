"""What OpenAI's API answers with, made of what plait's client returns; `plait` in it holds job, cost and checks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

from plait.client.answers import Usage
from plait.proxy.answer import Begun, Ended, Piece
from plait.proxy.desk import ListedModel
from plait.proxy.errors import Refusal

DONE = b"data: [DONE]\n\n"
ALIVE = b": alive\n\n"

Json = dict[str, object]


def whole(begun: Begun, ended: Ended, *, chat: bool) -> Json:
    """Return the body of an answer that is not streamed."""
    text = ended.whole.choices[0].message.content
    said: Json = {"message": {"role": "assistant", "content": text, "refusal": None}} if chat else {"text": text}
    return {
        "id": begun.id,
        "object": "chat.completion" if chat else "text_completion",
        "created": begun.created,
        "model": begun.model,
        "system_fingerprint": ended.fingerprint,
        "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": ended.finish}],
        "usage": usage(ended.whole.usage),
        "plait": proof(ended),
    }


def usage(used: Usage) -> Json:
    """Return token counts; the client counted them itself."""
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.total_tokens,
    }


def proof(ended: Ended) -> Json:
    """Return what an OpenAI answer has no field for: who answered, what was checked, what it cost in base units."""
    answer = ended.whole
    return {
        "job": answer.id,
        "gateway": answer.gateway,
        "worker": answer.job.worker,
        "profile": answer.job.profile,
        "method": answer.job.method,
        "level": answer.verification.level,
        "checks": list(answer.verification.checks),
        "cost": str(ended.cost),
    }


class Chunks:
    """The events of one streamed answer, as bytes of server-sent events."""

    def __init__(self, begun: Begun, *, chat: bool, include_usage: bool) -> None:
        self._begun, self._chat, self._include_usage = begun, chat, include_usage
        self._first = True

    def piece(self, piece: Piece) -> bytes:
        """Return an event with more text."""
        return _event(self._chunk(piece.fingerprint, self._said(piece.text), None))

    def ended(self, ended: Ended) -> Iterator[bytes]:
        """Yield the last events: why it ended, the usage if it was asked for, and the end mark."""
        said = self._said("" if self._first else None)
        yield _event(self._chunk(ended.fingerprint, said, ended.finish) | {"plait": proof(ended)})
        if self._include_usage:
            last = self._chunk(ended.fingerprint, None, None)
            yield _event(last | {"usage": usage(ended.whole.usage)})
        yield DONE

    def failed(self, refusal: Refusal) -> bytes:
        """Return the event that says why there is no more; no end mark follows it."""
        return _event(refusal.envelope())

    def _said(self, text: str | None) -> Json:
        first, self._first = self._first, False
        if not self._chat:
            return {"text": text or ""}
        role: Json = {"role": "assistant"} if first else {}
        return {"delta": role if text is None else role | {"content": text}}

    def _chunk(self, fingerprint: str, said: Json | None, finish: Literal["stop", "length"] | None) -> Json:
        choice = None if said is None else {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        unused: Json = {"usage": None} if self._include_usage else {}
        return {
            "id": self._begun.id,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": self._begun.created,
            "model": self._begun.model,
            "system_fingerprint": fingerprint,
            "choices": [] if choice is None else [choice],
            **unused,
        }


def model(listed: ListedModel) -> Json:
    """Return one model; its owner is who published it."""
    return {
        "id": listed.name,
        "object": "model",
        "created": listed.created,
        "owned_by": listed.publisher,
        "plait": {"model": listed.id, "gateways": list(listed.gateways)},
    }


def _event(body: Json) -> bytes:
    # In ASCII: some readers of event streams also end a line at U+0085 and U+2028.
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"
