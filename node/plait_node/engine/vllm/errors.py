"""What a whole model behind vLLM refuses, and what its server does wrong.

EngineError
└── VllmError
    ├── ProfileRefusedError     the profile fixes numerics, which an engine of somebody else's cannot promise
    ├── FlagError               a method, or an amount of it, that no flag of vLLM stands for
    ├── ServedModelError        the server serves another model, or one too short or too small
    ├── SamplerMissingError     tokens shall be drawn, and the server did not load plait's sampler
    └── ServerError             `retry` says whether the same request may succeed later
        ├── ServerUnreachableError  nothing answers at the URL
        ├── ServerRefusedError      an answer other than 200, or an error within the stream
        ├── ServerSilentError       no token within the time allowed
        ├── ServerCutError          the stream ended before the answer did
        └── BadAnswerError          an answer that vLLM does not give: distrust the server
"""

from __future__ import annotations

from plait_node.engine.errors import EngineError

__all__ = [
    "BadAnswerError",
    "FlagError",
    "ProfileRefusedError",
    "SamplerMissingError",
    "ServedModelError",
    "ServerCutError",
    "ServerError",
    "ServerRefusedError",
    "ServerSilentError",
    "ServerUnreachableError",
    "VllmError",
]


class VllmError(EngineError):
    """Root of everything that this package raises by itself."""


class ProfileRefusedError(VllmError):
    """Only tokens can be promised here."""

    def __init__(self, profile: str) -> None:
        super().__init__(
            f"profile {profile!r} fixes how numbers are computed, and vLLM computes as it likes; "
            "serve the model under 'tokens-only', or run its blocks with plait's own engine"
        )
        self.profile = profile


class FlagError(VllmError):
    """No flag of vLLM stands for this."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(f"{method} cannot be mapped to vLLM's flags: {reason}")
        self.method = method
        self.reason = reason


class ServedModelError(VllmError):
    """The server cannot serve this manifest."""


class SamplerMissingError(VllmError):
    """The server would draw tokens that nobody can draw again."""

    def __init__(self) -> None:
        super().__init__(
            "the server did not load plait's sampler, so it can only serve temperature 0; install plait there, start "
            "it with --logits-processors plait_model.vllm_sampler:PlaitSampler and without speculation"
        )


class ServerError(VllmError):
    """The server did not give what it was asked for."""

    retry = True


class ServerUnreachableError(ServerError):
    """No connection, or one that broke before it answered."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"vLLM at {url} cannot be reached ({reason}); start it or correct the URL")
        self.url = url


class ServerRefusedError(ServerError):
    """The server answered with an error of its own."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"vLLM answered {status}: {text or 'no text'}; its log says more")
        self.status = status
        self.retry = status in {408, 429} or status >= 500


class ServerSilentError(ServerError):
    """No token came in time."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(f"vLLM gave no token for {waited_s:g} s; it is overloaded or stuck, see its log")
        self.waited_s = waited_s


class ServerCutError(ServerError):
    """The stream ended early."""

    def __init__(self, tokens: int, reason: str) -> None:
        super().__init__(f"vLLM's answer ended after {tokens} tokens ({reason}); go on from there or ask again")
        self.tokens = tokens


class BadAnswerError(ServerError):
    """What came is nothing that vLLM says."""

    retry = False

    def __init__(self, what: str) -> None:
        super().__init__(f"the server's answer is not vLLM's: {what}; check what listens at the URL")
