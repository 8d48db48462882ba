"""transformers' own `generate`, in a process of its own, so that its threads and memory are not ours.

Requests that come together are one static batch of equally long prompts, which is more than a server could assume.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .face import Peer, PeerError, PeerMissingError
from .models import Dtype, weights_of

__all__ = ["TransformersPeer"]

_ENDS_S = 20.0


class TransformersPeer(Peer):
    """`generate` with its default cache on one folder of weights."""

    def __init__(self, folder: Path, *, model: str, dtype: Dtype = "bfloat16", threads: int = 2) -> None:
        try:
            self.name = f"transformers {version('transformers')} generate"
        except PackageNotFoundError as error:
            raise PeerMissingError("transformers", "make setup") from error
        self.model = model
        self.weights = weights_of(dtype)
        self.threads = threads
        self.settings = "defaults, one static batch"
        self.vocabulary = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        self._arguments = [str(folder), dtype, str(threads)]

    def __enter__(self) -> Self:
        """Start the process and load the weights; `pid` is its process id."""
        child = Path(__file__).with_name("transformers_child.py")
        self._process = subprocess.Popen(
            [sys.executable, str(child), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(self.threads), "HF_HUB_OFFLINE": "1"},
        )
        self.pid = self._process.pid
        try:
            self._hear()
        except PeerError:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the process."""
        self._end()

    def complete(self, prompts: Sequence[Sequence[int]], new_tokens: int, *, together: bool) -> list[list[int]]:
        """Return the ids that `generate` gave."""
        asked = {"prompts": [list(prompt) for prompt in prompts], "new_tokens": new_tokens, "together": together}
        pipe = self._process.stdin
        if pipe is None:
            raise PeerError(f"{self.name} was not started; use it as a context manager")
        pipe.write(json.dumps(asked) + "\n")
        pipe.flush()
        return self._hear()["tokens"]

    def _hear(self) -> Mapping[str, Any]:
        pipe = self._process.stdout
        line = pipe.readline() if pipe else ""
        if not line:
            raise PeerError(f"{self.name} ended with {self._process.poll()}; its own words are on stderr")
        return json.loads(line)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_ENDS_S)
