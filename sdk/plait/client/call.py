"""One call as the dApp makes it: arguments checked and turned into what the protocol counts in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plait.client.errors import InvalidArgumentError
from plait.protocol.commitments import stop_commitment
from plait.protocol.errors import SealingError
from plait.protocol.ids import Hash
from plait.protocol.messages import Sampling
from plait.protocol.money import MILLION
from plait.protocol.sealing import ContentKey, check_stop
from plait.protocol.typed import random_hash

ChatMessage = Mapping[str, str]
MOST_TEMPERATURE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A checked call; `temperature` and `top_p` in millionths, `max_price` in base units."""

    model: str
    messages: tuple[dict[str, str], ...]
    max_tokens: int | None
    temperature: int
    top_p: int
    top_k: int
    seed: Hash
    stop: tuple[str, ...]
    max_price: int | None
    timeout_s: float

    def sampling(self, key: ContentKey) -> Sampling:
        """Return the call's Sampling under a content key."""
        stop = stop_commitment(key, self.stop)
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, stop=stop)


def check_call(
    *,
    model: str,
    messages: Sequence[ChatMessage],
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    seed: int | None,
    stop: str | Sequence[str] | None,
    max_price: int | None,
    timeout_s: float,
) -> Call:
    """Return the checked call; raise `InvalidArgumentError` saying which argument and what it may be."""
    if max_tokens is not None and not 1 <= max_tokens < 1 << 32:
        raise InvalidArgumentError("max_tokens is 1 or more")
    if top_k is not None and not 0 <= top_k < 1 << 32:
        raise InvalidArgumentError("top_k is a count, 0 for all")
    if seed is not None and not 0 <= seed < 1 << 256:
        raise InvalidArgumentError("seed is a whole number from 0 to 2^256 - 1")
    if max_price is not None and max_price < 0:
        raise InvalidArgumentError("max_price is base units, 0 or more")
    return Call(
        model=model,
        messages=_messages(messages),
        max_tokens=max_tokens,
        temperature=_millionths("temperature", temperature, default=MILLION, least=0, most=MOST_TEMPERATURE),
        top_p=_millionths("top_p", top_p, default=MILLION, least=1, most=1.0),
        top_k=top_k or 0,
        seed=random_hash() if seed is None else Hash(seed.to_bytes(32, "big")),
        stop=_stop(stop),
        max_price=max_price,
        timeout_s=timeout_s,
    )


def _messages(messages: Sequence[ChatMessage]) -> tuple[dict[str, str], ...]:
    found = tuple(dict(each) for each in messages)
    if not found:
        raise InvalidArgumentError("messages holds at least one {'role': ..., 'content': ...}")
    for each in found:
        values: Mapping[str, object] = each
        if not all(isinstance(values.get(name), str) for name in ("role", "content")):
            raise InvalidArgumentError("every message has a role and a content, both strings")
    return found


def _stop(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    try:
        return tuple(check_stop([stop] if isinstance(stop, str) else list(stop)))
    except SealingError as error:
        raise InvalidArgumentError(error.text) from error


def _millionths(name: str, value: float | None, *, default: int, least: int, most: float) -> int:
    if value is None:
        return default
    if not 0 <= value <= most:
        raise InvalidArgumentError(f"{name} lies between 0 and {most:g}")
    found = round(value * MILLION)
    if found < least:
        raise InvalidArgumentError(f"{name} is at least {least / MILLION:g}")
    return found
