"""Read a vLLM completion as it streams, from a server that may send anything."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from plait_node.engine.errors import NumericsError
from plait_node.engine.vllm.errors import BadAnswerError, ServerCutError, ServerRefusedError

__all__ = ["Answer", "events", "json_object"]

_TEXT = 300  # characters of a server's own words that are passed on


@dataclass(slots=True, kw_only=True)
class Answer:
    """One completion: every event is checked against what was asked before its ids are believed."""

    prompt: Sequence[int]
    max_tokens: int
    vocabulary: int
    end_tokens: frozenset[int]
    finished: bool = False
    tokens: int = 0
    _ended: bool = field(default=False, init=False)  # its last id is an end token

    def take(self, data: bytes) -> list[int]:
        """Return the ids of one event, none for an event without; `finished` is set by the last one.

        Raises:
            BadAnswerError: no JSON of vLLM's, ids outside the vocabulary, more tokens than asked, tokens after the end.
            NumericsError: the server drew from NaN or infinity.
            ServerCutError: the server gave up.
            ServerRefusedError: an error instead of an event.
        """
        value = json_object(data)
        if "error" in value:
            raise _refusal(value["error"])
        choices = value.get("choices")
        if choices == []:
            return []  # usage, which some servers add
        choice = _first(choices)
        if choice.get("prompt_token_ids") not in (None, list(self.prompt)):
            raise BadAnswerError("it answers another prompt")
        ids = self._ids(choice.get("token_ids"))
        _check_numerics(choice.get("logprobs"), len(ids))
        self._finish(choice.get("finish_reason"))
        return ids

    def _ids(self, given: object) -> list[int]:
        ids = cast("list[object]", given) if isinstance(given, list) else None
        if ids is None or not all(type(one) is int and 0 <= one < self.vocabulary for one in ids):
            raise BadAnswerError(f"token_ids holds no ids below {self.vocabulary}")
        found = cast("list[int]", ids)
        if found and (self._ended or self.finished or any(one in self.end_tokens for one in found[:-1])):
            raise BadAnswerError("tokens follow the end of the answer")
        self.tokens += len(found)
        if self.tokens > self.max_tokens:
            raise BadAnswerError(f"more than the {self.max_tokens} tokens asked for")
        self._ended = found[-1] in self.end_tokens if found else self._ended
        return found

    def _finish(self, reason: object) -> None:
        match reason:
            case None:
                return
            case "stop" if self._ended:
                self.finished = True
            case "length" if self.tokens == self.max_tokens:
                self.finished = True
            case "abort" | "error":
                raise ServerCutError(self.tokens, str(reason))
            case _:
                raise BadAnswerError(f"it finished for {str(reason)[:20]!r} after {self.tokens} tokens")


async def events(chunks: AsyncIterator[bytes], *, limit: int) -> AsyncGenerator[bytes]:
    """Yield the data of server-sent events; raise `BadAnswerError` for one of more than `limit` bytes."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        *lines, tail = rest.split(b"\n")
        if len(tail) > limit or any(len(line) > limit for line in lines):
            raise BadAnswerError(f"an event of more than {limit} bytes")
        rest = tail
        for line in lines:
            if line.startswith(b"data:"):
                yield bytes(line[5:].strip())


def json_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object; raise `BadAnswerError` for anything else."""
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadAnswerError("no JSON") from error
    if not isinstance(value, dict):
        raise BadAnswerError("no JSON object")
    return cast("dict[str, Any]", value)


def _first(choices: object) -> dict[str, Any]:
    found = cast("list[object]", choices) if isinstance(choices, list) else []
    if len(found) != 1 or not isinstance(found[0], dict):
        raise BadAnswerError("an event has not exactly one choice")
    choice = cast("dict[str, Any]", found[0])
    if choice.get("index") != 0:
        raise BadAnswerError("an event of another choice")
    return choice


def _check_numerics(logprobs: object, count: int) -> None:
    """See that each token has a log-probability: a row with a NaN or +inf has none, and vLLM says null for it."""
    if count == 0:
        return
    value = cast("dict[str, object]", logprobs).get("token_logprobs") if isinstance(logprobs, dict) else None
    found = cast("list[object]", value) if isinstance(value, list) else []
    if len(found) != count:
        raise BadAnswerError("not one log-probability per token")
    if not all(isinstance(one, int | float) and -math.inf < one < math.inf for one in found):
        raise NumericsError("vLLM drew a token from NaN or infinity; the job fails, run it elsewhere")


def _refusal(error: object) -> ServerRefusedError:
    told = cast("dict[str, object]", error) if isinstance(error, dict) else {"message": error}
    code = told.get("code")
    return ServerRefusedError(code if type(code) is int else 500, str(told.get("message", ""))[:_TEXT])
