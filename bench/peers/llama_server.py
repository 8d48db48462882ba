"""llama.cpp's server from the sources inside llama-cpp-python; tools/llama_env.sh builds it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from plait_model.gguf import GgufFile

from .face import PeerError, PeerMissingError
from .models import KEPT
from .server import ROOT, ServerPeer

__all__ = ["BINARIES", "LlamaServerPeer", "bf16"]

BINARIES = ROOT / "build" / "llama" / "bin"


class LlamaServerPeer(ServerPeer):
    """One llama-server; `slots` requests run together, and a slot keeps the prefix of its last request."""

    def __init__(
        self,
        gguf: Path,
        *,
        model: str,
        weights: str,
        threads: int = 2,
        slots: int = 8,
        slot_steps: int = 2_048,
        flags: Sequence[str] = ("--swa-full",),
    ) -> None:
        self.name = "llama-server (llama-cpp-python 0.3.36)"
        self.model = model
        self.weights = weights
        self.threads = threads
        self.settings = " ".join((f"--parallel {slots}", *flags))
        with GgufFile.open(gguf) as file:
            self.vocabulary = len(file.array("tokenizer.ggml.tokens") or ())
        self._gguf = gguf
        self._flags = [f"--parallel={slots}", f"--ctx-size={slots * slot_steps}", *flags]
        self._flags = [part for flag in self._flags for part in flag.split("=", 1)]

    def command(self, port: int) -> tuple[list[str], Mapping[str, str]]:
        """Return the server's command; raise `PeerMissingError` before it is built."""
        server = _built("llama-server")
        threads = ["--threads", str(self.threads), "--threads-batch", str(self.threads)]
        where = ["--host", "127.0.0.1", "--port", str(port), "--model", str(self._gguf), "--offline"]
        return [str(server), *where, *threads, *self._flags], {}

    async def ask(self, client: httpx.AsyncClient, prompt: Sequence[int], new_tokens: int) -> list[int]:
        """Return greedy ids through its own `/completion`, which takes and gives ids."""
        body = {
            "prompt": list(prompt),
            "n_predict": new_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": True,
            "return_tokens": True,
        }
        return (await self.post(client, "/completion", body))["tokens"]


def bf16(gguf: Path, *, name: str) -> Path:
    """Return a GGUF with the weights dequantised to bf16, written by llama-quantize once."""
    target = KEPT / f"{name}-bf16.gguf"
    if not target.is_file():
        KEPT.mkdir(parents=True, exist_ok=True)
        begun = target.with_suffix(".part")
        command = [str(_built("llama-quantize")), "--allow-requantize", str(gguf), str(begun), "BF16", "2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise PeerError(f"llama-quantize failed on {gguf.name}: {done.stderr[-500:]}")
        begun.rename(target)
    return target


def _built(name: str) -> Path:
    found = BINARIES / name
    if not found.is_file():
        raise PeerMissingError(name, "tools/llama_env.sh")
    return found
