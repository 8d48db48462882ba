"""The fields of a call's body, taken one by one; what is left over at the end was asked for and is not served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn, cast

from plait.proxy.errors import BodyError, ParameterError

# Says who asks or how the call is kept; changes no answer.
IGNORED = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
# Fields that plait does not serve, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}


class Fields:
    """A JSON object; null counts as absent, as in OpenAI's API. `path` is where it stands in the body."""

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise ParameterError(path.removesuffix("."), f"{path.removesuffix('.') or 'the body'} is a JSON object")
        given = cast("dict[str, object]", value)
        self._left = {name: each for name, each in given.items() if each is not None}
        self._path = path

    def take(self, name: str) -> object | None:
        """Return a field as it is."""
        return self._left.pop(name, None)

    def name(self, name: str) -> str:
        """Return a field's path in the body."""
        return self._path + name

    def text(self, name: str) -> str | None:
        """Return a string."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            self._wrong(name, "a string")
        return value

    def flag(self, name: str) -> bool:
        """Return a truth value, False when it is absent."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self._wrong(name, "true or false")
        return bool(value)

    def whole(self, name: str, *, least: int, most: int) -> int | None:
        """Return a whole number from `least` to `most`."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._wrong(name, f"a whole number from {least} to {most}")
        return value

    def number(self, name: str, *, most: float) -> float | None:
        """Return a number from 0 to `most`."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            self._wrong(name, f"a number from 0 to {most:g}")
        return value

    def entries(self, name: str) -> list[object]:
        """Return a list, empty when it is absent."""
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            self._wrong(name, "a list")
        return cast("list[object]", value or [])

    def missing(self, name: str) -> ParameterError:
        """Return the error for a field that must be there."""
        text = f"{self.name(name)} is missing, and must be there"
        return ParameterError(self.name(name), text, reason="missing_required_parameter")

    def refuse_the_rest(
        self, *, ignored: frozenset[str] = frozenset(), neutral: Mapping[str, tuple[object, ...]] | None = None
    ) -> None:
        """Raise `ParameterError` for the first field left over that is neither ignored nor of a neutral value."""
        known = neutral or {}
        for name, value in self._left.items():
            if name in ignored or any(_same(value, each) for each in known.get(name, ())):
                continue
            if name in known:
                text = f"{self.name(name)} is not supported with this value; leave it out, plait answers in plain text"
                raise ParameterError(self.name(name), text, reason="unsupported_parameter")
            shown = self.name(name)[:100]
            raise ParameterError(shown, f"no such parameter: {shown}", reason="unknown_parameter")

    def _wrong(self, name: str, what: str) -> NoReturn:
        raise ParameterError(self.name(name), f"{self.name(name)} is {what}")


def read_json(data: bytes) -> object:
    """Return a body's JSON value; raise `BodyError` when it is none, or holds text that is no Unicode."""
    try:
        value: object = json.loads(data, parse_constant=_no_number)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate fails here, and not where it is rendered
    except RecursionError as error:
        raise BodyError("the body is nested too deeply") from error
    except ValueError as error:
        raise BodyError(f"the body is no JSON in UTF-8 ({str(error)[:100]})") from error
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)
