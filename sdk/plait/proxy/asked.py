"""A call as an OpenAI client makes it, read and checked; what plait cannot do is refused by its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from plait.client.call import MOST_TEMPERATURE
from plait.protocol.errors import SealingError
from plait.protocol.sealing import check_stop
from plait.proxy.errors import ParameterError
from plait.proxy.fields import IGNORED, NEUTRAL, Fields

COMPLETION_TOKENS = 16  # of /v1/completions when the call names no number, as OpenAI's API has it
MOST_TOKENS = (1 << 32) - 1
MOST_SEED = (1 << 63) - 1
LEAST_TOP_P = 1e-6  # 0 asks for the likeliest token alone, and so does this
MOST_NAME = 256
_HASH = re.compile("0x[0-9a-fA-F]{64}")
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A checked call: either `messages`, or a raw `prompt` as text or token ids."""

    model: str
    messages: tuple[dict[str, str], ...] = ()
    prompt: str | tuple[int, ...] = ""
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool

    @property
    def chat(self) -> bool:
        """Say whether this is a chat."""
        return bool(self.messages)


def read_chat(body: object) -> Asked:
    """Return a call of /v1/chat/completions; raise `ParameterError`."""
    fields = Fields(body)
    model = _model(fields)
    messages = tuple(_message(value, f"messages[{at}].") for at, value in enumerate(fields.entries("messages")))
    if not messages:
        raise fields.missing("messages")
    most = _most_tokens(fields)
    return _rest(fields, model=model, messages=messages, max_tokens=most)


def read_completion(body: object) -> Asked:
    """Return a call of /v1/completions; raise `ParameterError`."""
    fields = Fields(body)
    model = _model(fields)
    prompt = _prompt(fields)
    most = fields.whole("max_tokens", least=1, most=MOST_TOKENS)
    return _rest(fields, model=model, prompt=prompt, max_tokens=COMPLETION_TOKENS if most is None else most)


def _rest(
    fields: Fields,
    *,
    model: str,
    messages: tuple[dict[str, str], ...] = (),
    prompt: str | tuple[int, ...] = "",
    max_tokens: int | None,
) -> Asked:
    top_p = fields.number("top_p", most=1)
    seed = fields.whole("seed", least=-MOST_SEED - 1, most=MOST_SEED)
    asked = Asked(
        model=model,
        messages=messages,
        prompt=prompt,
        max_tokens=max_tokens,
        temperature=fields.number("temperature", most=MOST_TEMPERATURE),
        top_p=None if top_p is None else max(top_p, LEAST_TOP_P),
        top_k=fields.whole("top_k", least=0, most=MOST_TOKENS),
        seed=None if seed is None else seed % (1 << 64),
        stop=_stop(fields),
        stream=fields.flag("stream"),
        include_usage=_include_usage(fields),
    )
    fields.refuse_the_rest(ignored=IGNORED, neutral=NEUTRAL)
    return asked


def _model(fields: Fields) -> str:
    model = fields.text("model")
    if not model:
        raise fields.missing("model")
    if len(model) > MOST_NAME or (model.startswith("0x") and len(model) == 66 and not _HASH.fullmatch(model)):
        raise ParameterError("model", "model is a name, or an id of 0x and 64 hex digits")
    return model


def _most_tokens(fields: Fields) -> int | None:
    old = fields.whole("max_tokens", least=1, most=MOST_TOKENS)
    new = fields.whole("max_completion_tokens", least=1, most=MOST_TOKENS)
    if old is not None and new is not None and old != new:
        raise ParameterError("max_tokens", "max_tokens and max_completion_tokens differ; give one of them")
    return new if old is None else old


def _include_usage(fields: Fields) -> bool:
    given = fields.take("stream_options")
    options = Fields({} if given is None else given, "stream_options.")
    options.take("include_obfuscation")  # pads events; ours say what their sizes say
    wanted = options.flag("include_usage")
    options.refuse_the_rest()
    return wanted


def _stop(fields: Fields) -> tuple[str, ...]:
    value = fields.take("stop")
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in cast("list[object]", stops)):
        raise ParameterError("stop", "stop is a string or a list of strings")
    try:
        return tuple(check_stop(cast("list[str]", stops)))
    except SealingError as error:
        raise ParameterError("stop", f"stop: {error.text}") from error


def _prompt(fields: Fields) -> str | tuple[int, ...]:
    value = fields.take("prompt")
    if value is None:
        raise fields.missing("prompt")
    several = _list(value)
    if several and isinstance(several[0], str | list):
        if len(several) > 1:
            text = "prompt holds several prompts; plait answers one in each call"
            raise ParameterError("prompt", text, reason="unsupported_parameter")
        value = cast("object", several[0])
    if isinstance(value, str):
        return value
    ids = _list(value)
    if not ids or not all(isinstance(each, int) and not isinstance(each, bool) for each in ids):
        raise ParameterError("prompt", "prompt is a string or a list of token ids")
    return tuple(cast("list[int]", ids))


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _message(value: object, path: str) -> dict[str, str]:
    fields = Fields(value, path)
    role = fields.text("role")
    if role not in _ROLES:
        text = f"{path}role is one of {', '.join(_ROLES)}; plait has no tools"
        raise ParameterError(f"{path}role", text, reason="unsupported_parameter" if role else "invalid_value")
    found = {"role": _ROLES[role], "content": _content(fields)}
    name = fields.text("name")
    if name is not None:
        found["name"] = name  # the model's own template decides whether to show it
    for empty in ("tool_calls", "annotations"):  # as clients send an answer back that had none
        _empty(fields, empty)
    fields.refuse_the_rest()
    return found


def _content(fields: Fields) -> str:
    value = fields.take("content")
    if value is None:
        raise fields.missing("content")
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ParameterError(fields.name("content"), f"{fields.name('content')} is a string or a list of text parts")
    parts = cast("list[object]", value)
    return "".join(_part(part, f"{fields.name('content')}[{at}].") for at, part in enumerate(parts))


def _part(value: object, path: str) -> str:
    fields = Fields(value, path)
    kind = fields.text("type")
    if kind != "text":
        text = f"{path}type is text; plait reads no images, sound or files"
        raise ParameterError(f"{path}type", text, reason="unsupported_parameter")
    text = fields.text("text")
    if text is None:
        raise fields.missing("text")
    fields.refuse_the_rest()
    return text


def _empty(fields: Fields, name: str) -> None:
    if fields.entries(name):
        text = f"{fields.name(name)} is not supported: plait has no tools"
        raise ParameterError(fields.name(name), text, reason="unsupported_parameter")
