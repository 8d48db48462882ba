"""Text to token ids and back, with the files a manifest names; their publisher is not trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from plait.protocol.errors import ManifestError, TokenizerError
from plait.protocol.ids import keccak
from plait.protocol.manifest import Manifest

MAX_TEMPLATE = 64 * 1_024
MAX_TOKENIZER = 64 * 1_024 * 1_024
MAX_RENDERED = 4 * 1_024 * 1_024
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Decodes(Protocol):
    """The part of `ChatTokenizer` that stop strings need."""

    def decode(self, ids: Sequence[int], /) -> str:
        """Return the text of token ids."""
        ...


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox without the two operators that make huge values out of a short template."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401 as in jinja2
        if operator == "**" or not isinstance(left, int | float) or not isinstance(right, int | float):
            raise TemplateError("a chat template multiplies numbers only, and takes no powers")
        return super().call_binop(context, operator, left, right)


class ChatTokenizer:
    """Renders a chat as `transformers` does, counts, encodes and decodes."""

    def __init__(
        self,
        tokenizer_json: bytes,
        chat_template: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if len(tokenizer_json) > MAX_TOKENIZER or len(chat_template.encode()) > MAX_TEMPLATE:
            raise TokenizerError("the tokenizer or chat template is too large")
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json.decode())
        except Exception as error:  # tokenizers raises bare Exception
            raise TokenizerError("tokenizer.json is no tokenizer that `tokenizers` can read") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._words = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = _environment(now).from_string(chat_template)
        except TemplateError as error:
            raise TokenizerError(f"the chat template does not compile: {error}") from error

    @classmethod
    def of(cls, manifest: Manifest, *, tokenizer_json: bytes, chat_template: bytes) -> ChatTokenizer:
        """Make the tokenizer a manifest names; raise `ManifestError` when a file's hash differs."""
        if keccak(tokenizer_json) != manifest.tokenizer or keccak(chat_template) != manifest.chat_template:
            raise ManifestError("the tokenizer or chat template is not the one the manifest names")
        try:
            template = chat_template.decode()
        except UnicodeDecodeError as error:
            raise TokenizerError("the chat template is no UTF-8 text") from error
        return cls(tokenizer_json, template, bos_token=manifest.bos_token, eos_token=manifest.eos_token)

    def render_text(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the chat as text that ends where the assistant's turn begins; raise `TokenizerError`."""
        chat = [{str(key): str(value) for key, value in message.items()} for message in messages]
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(messages=chat, add_generation_prompt=True, **self._words):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_RENDERED:
                    raise TokenizerError(f"the rendered chat exceeds {MAX_RENDERED} characters")
        except TokenizerError:
            raise
        except Exception as error:  # a template can fail in any way Python can
            raise TokenizerError(f"the chat template refuses these messages: {error}") from error
        return "".join(pieces)

    def render(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the chat as token ids."""
        return self.encode(self.render_text(messages))

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids; special tokens in it count, none are added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        try:
            return self._tokenizer.decode(list(ids), skip_special_tokens=True)
        except Exception as error:  # tokenizers raises bare Exception, OverflowError and more
            raise TokenizerError("these token ids do not decode") from error

    def stream(self) -> IncrementalDecoder:
        """Return a decoder for ids that arrive bit by bit."""
        return IncrementalDecoder(self)


class IncrementalDecoder:
    """Decodes ids as they arrive; what it returned, joined, is the decoding of them all."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0  # decoding begins here, so that a token's text sees its left neighbour
        self._read = 0  # ids before here are already in the returned text
        self._emitted: list[str] = []

    @property
    def ids(self) -> list[int]:
        """Return all ids so far."""
        return list(self._ids)

    def push(self, ids: Iterable[int]) -> str:
        """Return the text that became certain with these ids."""
        self._ids.extend(ids)
        known = self._tokenizer.decode(self._ids[self._context : self._read])
        whole = self._tokenizer.decode(self._ids[self._context :])
        if len(whole) <= len(known) or whole.endswith(_REPLACEMENT):
            return ""
        self._context, self._read = self._read, len(self._ids)
        self._emitted.append(whole[len(known) :])
        return self._emitted[-1]

    def finish(self) -> str:
        """Return the rest; raise `TokenizerError` when the text so far is not how the ids decode."""
        emitted, whole = "".join(self._emitted), self._tokenizer.decode(self._ids)
        if not whole.startswith(emitted):
            raise TokenizerError("the streamed text is not how the ids decode as a whole")
        self._emitted.append(whole[len(emitted) :])
        return self._emitted[-1]


def _environment(now: Callable[[], datetime]) -> ImmutableSandboxedEnvironment:
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], autoescape=False)

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def strftime_now(pattern: str) -> str:
        return now().strftime(pattern)

    def tojson(value: Any, indent: int | None = None) -> str:  # noqa: ANN401 any JSON value
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment.filters["tojson"] = tojson
    extra: dict[str, Any] = {"raise_exception": raise_exception, "strftime_now": strftime_now}
    environment.globals.update(extra)
    return environment
