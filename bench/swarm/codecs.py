"""What rows in fewer bytes are worth on a slow line, and what they cost in tokens: fp32, bf16 and int8 for the prompt.

Three stages of SmolLM2, each behind a line of some Mbit/s in a proxy of this process, which counts what came for it.
Behind the prompt rows are fp32 under all three profiles. A token agrees that stands where fp32 has it too, with
nothing but such tokens before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import takewhile
from statistics import fmean
from typing import Any, Final

from bench.swarm.engines import SLOW_LINKS, SMOLLM2
from bench.swarm.failover import kills
from bench.swarm.figure import Found, Part, Setting, Values, interleaved
from bench.swarm.hosts import Weather, opened_hosts
from bench.swarm.network import Swarm, swarm
from bench.swarm.proxy import Proxies
from bench.swarm.texts import ids_of, made_up

from plait.protocol.manifest import FP32_STRICT, Profile
from plait_node.selector.tasks import asks
from plait_node.wire import row_bytes

__all__ = ["PART"]

_CUTS: Final = (0, 10, 20, 30)
_PROFILES: Final = (FP32_STRICT, *SLOW_LINKS)
_LINE: Final = Weather(rtt_s=0.02, bytes_s=1e6)  # 8 Mbit/s
_ROWS: Final = 500
_FRAME: Final = 128  # rows
_KINDS: Final = ("chat", "code", "summarise", "extract", "rewrite")
_OF_A_KIND: Final = 4
_TOKENS: Final = 32


async def measure(setting: Setting) -> Found:
    """Measure the time to the first token over slow lines, the bytes of a prompt's token, and whose tokens agree."""
    async with AsyncExitStack() as stack:
        slow = {profile.name: await _slow(stack, setting, profile) for profile in _PROFILES}
        found = await interleaved({name: each.first_s for name, each in slow.items()}, repeats=setting.repeats)
        bytes_ = {name: each.bytes_a_token for name, each in slow.items()}
    answers = {profile.name: await _answers(setting, profile) for profile in _PROFILES}
    made = _found(found, bytes_, answers, width={each.name: _width(slow, each) for each in _PROFILES})
    return await _with_kills(made, setting)


async def _with_kills(made: Found, setting: Setting) -> Found:
    """Add how many answers came out the same whose stages were killed or frozen on the way, ten under each codec."""
    ratios, details = dict(made.ratios), dict(made.details)
    for profile in SLOW_LINKS:
        folder = setting.folder / f"{profile.name}-kills"
        got = await kills(replace(setting, folder=folder, repeats=1), profile)
        ratios[f"codec_{profile.prefill_codec}_failover_same_tokens"] = got.ratios["failover_same_tokens"]
        details[folder.name] = got.details
    return Found(ratios=ratios, details=details)


class _Slow:
    """A swarm behind slow lines."""

    def __init__(self, over: Swarm, hosts: Proxies) -> None:
        self.over, self._hosts = over, hosts
        self.bytes_a_token: list[float] = []

    async def first_s(self, repeat: int) -> float:
        """Return the seconds until the first token of a prompt that no stage has seen, and count what its rows took."""
        prompt = made_up(_ROWS, seed=f"codecs {repeat}", vocabulary=self.over.manifest.vocabulary)
        before = self._carried()
        took = await self.over.worker.answer(prompt, 1, chunk=_FRAME)
        self.bytes_a_token.append((self._carried() - before) / _ROWS)
        await self.over.worker.settled()
        return took.first_s

    def _carried(self) -> int:
        """Return what came for the last stage: rows and leaves of the one before, a little of the worker."""
        return self._hosts.carried(f"stage-{len(_CUTS) - 1}")


async def _slow(stack: AsyncExitStack, setting: Setting, profile: Profile) -> _Slow:
    names = [f"stage-{number}" for number in range(1, len(_CUTS))]
    hosts = await stack.enter_async_context(opened_hosts(names, _LINE, proxy=True))
    if not isinstance(hosts, Proxies):  # unreachable: they were asked for
        raise TypeError(hosts.how)
    folder = setting.folder / profile.name
    opened = swarm(folder, SMOLLM2, _CUTS, threads=setting.threads, hosts=hosts, profile=profile)
    return _Slow(await stack.enter_async_context(opened), hosts)


def _width(slow: Mapping[str, _Slow], profile: Profile) -> int:
    return row_bytes(profile.prefill_codec, slow[profile.name].over.manifest.hidden)


async def _answers(setting: Setting, profile: Profile) -> list[tuple[int, ...]]:
    """Return greedy answers to twenty prompts, over lines that are quick."""
    folder = setting.folder / f"{profile.name}-answers"
    async with swarm(folder, SMOLLM2, _CUTS, threads=setting.threads, profile=profile) as over:
        answers = [(await over.worker.answer(prompt, _TOKENS)).ids for prompt in _prompts()]
        await over.worker.settled()
        return answers


def _prompts() -> list[list[int]]:
    texts = (f"{each.shared}{each.own}" for kind in _KINDS for each in asks(kind, count=_OF_A_KIND, seed=7))
    return [ids_of(SMOLLM2, f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n") for text in texts]


def _found(
    first_s: Mapping[str, Values],
    bytes_: Mapping[str, Sequence[float]],
    answers: Mapping[str, Sequence[tuple[int, ...]]],
    *,
    width: Mapping[str, int],
) -> Found:
    strict = FP32_STRICT.name
    ratios: dict[str, float] = {}
    for profile in SLOW_LINKS:
        name, codec = profile.name, profile.prefill_codec
        ratios[f"codec_{codec}_first_token_gain"] = first_s[strict].median / first_s[name].median
        ratios[f"codec_{codec}_wire_bytes"] = fmean(bytes_[name]) / fmean(bytes_[strict])
        ratios[f"codec_{codec}_tokens_agree"] = _agreement(answers[strict], answers[name])
    details: dict[str, Any] = {
        name: values.told()
        | {
            "row_bytes": width[name],
            "wire_bytes_a_prompt_token": round(fmean(bytes_[name]), 1),
            "same_answers": sum(a == b for a, b in zip(answers[strict], answers[name], strict=True)),
        }
        for name, values in first_s.items()
    }
    details |= {"unit": "s", "line": str(_LINE), "rows": _ROWS, "frame": _FRAME}
    details |= {"prompts": [len(each) for each in _prompts()], "tokens_an_answer": _TOKENS}
    return Found(ratios=ratios, details=details)


def _agreement(right: Sequence[tuple[int, ...]], got: Sequence[tuple[int, ...]]) -> float:
    """Return the share of tokens that agree."""
    same = (len(list(takewhile(bool, map(int.__eq__, a, b)))) for a, b in zip(right, got, strict=True))
    return sum(same) / sum(len(ids) for ids in right)


PART: Final = Part(name="codecs", bars={}, measure=measure)
