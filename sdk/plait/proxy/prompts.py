"""Token ids of what is asked: a chat in the model's own template, or a raw prompt as its tokenizer begins one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from plait.client.catalogue import Served
from plait.protocol.errors import ManifestError, TokenizerError
from plait.protocol.ids import Hash, keccak, to_hex
from plait.proxy.asked import Asked
from plait.proxy.errors import ParameterError

_PROBE = "a"


class Prompts:
    """Renders prompts; `folder` holds the files of models by their hash, as the client keeps them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._openings: dict[Hash, tuple[int, ...]] = {}

    def ids(self, asked: Asked, served: Served) -> list[int]:
        """Return the ids; raise `ParameterError` for what the model cannot be asked."""
        if asked.chat:
            field, found = "messages", _chat(asked, served)
        else:
            field, found = "prompt", self._raw(asked.prompt, served)
        if not found:
            raise ParameterError(field, f"{field} holds no token; ask something")
        return found

    def _raw(self, prompt: str | Sequence[int], served: Served) -> list[int]:
        if not isinstance(prompt, str):
            most = served.manifest.vocabulary
            if not all(0 <= token < most for token in prompt):
                raise ParameterError("prompt", f"prompt holds an id beyond the model's; they go from 0 to {most - 1}")
            return list(prompt)
        found = served.tokenizer.encode(prompt)
        opening = self._opening(served)
        return found if tuple(found[: len(opening)]) == opening else [*opening, *found]

    def _opening(self, served: Served) -> tuple[int, ...]:
        """Return what the tokenizer itself puts before a text, such as a token for its beginning."""
        name = served.manifest.tokenizer
        if name not in self._openings:
            data = (self._folder / to_hex(name)).read_bytes()
            if keccak(data) != name:
                raise ManifestError(f"the file {to_hex(name)} in {self._folder} was changed; delete it")
            tokenizer = Tokenizer.from_str(data.decode())
            whole = list(tokenizer.encode(_PROBE, add_special_tokens=True).ids)
            bare = list(tokenizer.encode(_PROBE, add_special_tokens=False).ids)
            count = len(whole) - len(bare)
            self._openings[name] = tuple(whole[:count]) if whole[count:] == bare else ()
        return self._openings[name]


def _chat(asked: Asked, served: Served) -> list[int]:
    try:
        return served.tokenizer.render(asked.messages)
    except TokenizerError as error:
        raise ParameterError("messages", error.text) from error
