"""The sampler of PROTOCOL section 7 inside a vLLM server: draw the token, then leave vLLM no other to choose.

The server loads it by `--logits-processors plait_model.vllm_sampler:PlaitSampler`. It lives here and not beside the
node's engine because it runs in vLLM's environment, where only `plait` is installed: it imports the sampler alone.
A request asks for it by `Draw.arguments()` in `vllm_xargs`; a request without them is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import HASH_ZERO, Hash, hash32, to_hex
from plait.protocol.messages import Sampling
from plait_model.errors import BadLogitsError
from plait_model.sampler import sample

if TYPE_CHECKING:
    import torch

    class LogitsProcessor:
        """What vLLM wants a processor to be."""

else:
    try:
        from vllm.v1.sample.logits_processor import LogitsProcessor
    except ModuleNotFoundError:  # the node, which only writes the arguments, has no vLLM
        LogitsProcessor = object

__all__ = ["MARK", "Draw", "PlaitSampler"]

MARK = "plait/1"  # begins every refusal, so that a client knows who refused
_PREFIX = "plait_"
_NUMBERS = {"start": 2**31, "temperature": 2**32, "top_p": 1_000_001, "top_k": 2**32}  # each below this


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How the tokens of one request are drawn; `start` is the absolute output position of its first one."""

    seed: Hash
    request: Hash
    start: int
    sampling: Sampling

    def arguments(self) -> dict[str, str | int]:
        """Return the request's `vllm_xargs`."""
        return {
            "plait_seed": to_hex(self.seed),
            "plait_request": to_hex(self.request),
            "plait_start": self.start,
            "plait_temperature": self.sampling.temperature,
            "plait_top_p": self.sampling.top_p,
            "plait_top_k": self.sampling.top_k,
        }

    @classmethod
    def read(cls, arguments: Mapping[str, Any] | None) -> Self | None:
        """Return what a request asks for, None if it asks for nothing of ours; raise `ValueError` for half of it."""
        given = {key.removeprefix(_PREFIX): value for key, value in (arguments or {}).items() if key[:6] == _PREFIX}
        if not given:
            return None
        if given.keys() != {"seed", "request", *_NUMBERS}:
            raise ValueError(f"{MARK}: send seed, request, {', '.join(_NUMBERS)} and nothing else")
        for name, end in _NUMBERS.items():
            if type(given[name]) is not int or not 0 <= given[name] < end:
                raise ValueError(f"{MARK}: {name} is a whole number from 0 to {end - 1}")
        if given["temperature"] and not given["top_p"]:
            raise ValueError(f"{MARK}: top_p is 0 millionths; send 1 to 1000000")
        try:
            seed, request = hash32(given["seed"]), hash32(given["request"])
        except (MalformedMessageError, TypeError) as error:
            raise ValueError(f"{MARK}: seed and request are 0x and 64 hex digits") from error
        sampling = Sampling(
            temperature=given["temperature"], top_p=given["top_p"], top_k=given["top_k"], stop=HASH_ZERO
        )
        return cls(seed=seed, request=request, start=given["start"], sampling=sampling)


class _Parameters(Protocol):
    """The part of vLLM's `SamplingParams` that is read."""

    @property
    def extra_args(self) -> Mapping[str, Any] | None:
        """Return the request's `vllm_xargs`."""
        ...


class _Update(Protocol):
    """vLLM's `BatchUpdate`: rows are removed, then added, then moved; a move is one way (1) or a swap (2)."""

    @property
    def removed(self) -> Sequence[int]:
        """Return rows."""
        ...

    @property
    def added(self) -> Sequence[tuple[int, _Parameters, list[int] | None, list[int]]]:
        """Return row, parameters, prompt ids, and the running list of output ids."""
        ...

    @property
    def moved(self) -> Sequence[tuple[int, int, Any]]:
        """Return from, to, and how."""
        ...


class PlaitSampler(LogitsProcessor):
    """vLLM V1's processor; one for the server, with the draws of the requests in its batch."""

    @classmethod
    def validate_params(cls, sampling_params: _Parameters) -> None:
        """Refuse a request with half of our arguments; vLLM answers it with status 400."""
        Draw.read(sampling_params.extra_args)

    def __init__(self, vllm_config: object, device: object, is_pin_memory: bool) -> None:  # noqa: ARG002, FBT001 - vLLM calls it so
        self._rows: dict[int, tuple[Draw, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """Say that a greedy request is changed too: all of them are greedy for vLLM, the draw is ours."""
        return False

    def update_state(self, batch_update: _Update | None) -> None:
        """Follow the requests through the batch's rows."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, parameters, _, output in batch_update.added:
            draw = Draw.read(parameters.extra_args)
            self._put(row, (draw, output) if draw else None)
        for source, target, how in batch_update.moved:
            moved, stood = self._rows.pop(source, None), self._rows.pop(target, None)
            self._put(target, moved)
            if how.name == "SWAP":
                self._put(source, stood)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mask, in logits of shape (rows, vocabulary), all but the token that was drawn.

        A row that nothing can be drawn from stays: its NaN reaches the client as a log-probability that is none,
        while an exception here would end the server and everybody's requests with it.
        """
        for row, (draw, output) in self._rows.items():
            scores = logits[row].detach().float().cpu().numpy()
            try:
                token = sample(
                    scores,
                    seed=draw.seed,
                    request=draw.request,
                    position=draw.start + len(output),
                    sampling=draw.sampling,
                ).id
            except BadLogitsError:
                continue
            logits[row] = float("-inf")
            logits[row, token] = 0.0
        return logits

    def _put(self, row: int, state: tuple[Draw, list[int]] | None) -> None:
        self._rows.pop(row, None)
        if state:
            self._rows[row] = state
