"""The same small Llama on plait and on patched Petals, two servers each: tokens a second, and a server killed.

Both serve fp32 weights with one compute thread a process, halves of the blocks each. Ours is measured where users are:
SDK, gateway, broker, worker, two stages, over a chain, with sealing, checks, hashes and payments on; jobs run plainly,
nothing is guessed or kept. Petals' is measured at its client, which computes embedding and head itself. Both are up
and take turns, so that the machine's load falls on both; then the same with a network without compiled code. Rates are
of tokens after the first, on the asker's clock.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench.peers import PeerMissingError
from bench.peers.petals_swarm import NAME, PetalsClient, opened_petals, require_petals
from bench.swarm.figure import Bar, Found, Part, Setting, Values, interleaved
from bench.swarm.petals_kills import kills
from bench.swarm.petals_plait import PlaitClient, opened_plait, tokenizer_of

from plait.protocol.tokens import ChatTokenizer

__all__ = ["KILLS", "REAL", "TINY", "Asked", "Round", "composed", "not_measured", "questions", "rate"]

_TOKENS: Final = 96
_BLOCKS: Final = {"random-llama-14m": 4, "smollm2-135m-fp32": 30}
_TINY, _REAL = _BLOCKS
_PETALS, _COMPILED, _TORCH = "petals", "plait", "plait_without_compiler"


def not_measured(error: PeerMissingError, setting: Setting) -> Found:
    """Return an empty figure that says what to run; say it aloud."""
    setting.say(f"  not measured: run {error.command}")
    return Found(ratios={}, details={"not_measured": f"run {error.command}"})


def questions(model: str, count: int) -> list[str]:
    """Return one question a repeat, the same for everybody; the small model knows words w1 to w1023."""
    if model == _REAL:
        return [f"Write a long story about a lighthouse keeper and {3 + number} ships." for number in range(count)]
    draw = random.Random("petals")  # noqa: S311 - which words are asked is no secret
    return [" ".join(f"w{draw.randrange(1, 1_024)}" for _ in range(8)) for _ in range(count)]


def rate(at: Sequence[tuple[float, int]]) -> float:
    """Return tokens a second after the first moment, of pairs (seconds, tokens so far); 0 for less than two moments."""
    if len(at) < 2:
        return 0.0
    (began, first), (ended, last) = at[0], at[-1]
    return (last - first) / (ended - began)


@dataclass(slots=True)
class Asked:
    """What each way answered in each repeat, as text, and the seconds to its first token and to its last."""

    texts: dict[tuple[str, int], str] = field(default_factory=dict[tuple[str, int], str])
    tokens: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    first_s: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    methods: set[str] = field(default_factory=set[str])

    def note(self, way: str, repeat: int, text: str, at: Sequence[tuple[float, int]]) -> float:
        """Keep an answer; return its rate."""
        self.texts[way, repeat], self.tokens[way, repeat] = text.strip(), at[-1][1] if at else 0
        if repeat:
            self.first_s.setdefault(way, []).append(at[0][0] if at else 0.0)
        return rate(at)

    def same(self, way: str, other: str) -> tuple[int, int]:
        """Return how many repeats two ways answered with the same tokens, and of how many."""
        repeats = [repeat for name, repeat in self.texts if name == way and (other, repeat) in self.texts]
        return sum(
            self.texts[way, each] == self.texts[other, each] and self.tokens[way, each] == self.tokens[other, each]
            for each in repeats
        ), len(repeats)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one way of ours and Petals did in turns."""

    way: str
    values: Mapping[str, Values]
    asked: Asked

    def side(self, name: str) -> dict[str, Any]:
        """Return one side as JSON holds it."""
        values, firsts = self.values[name], sorted(self.asked.first_s.get(name, [0.0]))
        return values.told() | {
            "ms_a_token": round(1e3 / values.median, 3) if values.median else None,
            "first_token_s": round(firsts[len(firsts) // 2], 4),
        }


def composed(rounds: Sequence[Round], *, ratio: str) -> Found:
    """Return the figure: how many times as fast as Petals each way is, and whether tokens are the same."""
    details: dict[str, Any] = {"peer": NAME, "unit": "tokens/s after the first"}
    ratios: dict[str, float] = {}
    for each in rounds:
        suffix = "" if each.way == _COMPILED else "_without_compiler"
        same, of = each.asked.same(each.way, _PETALS)
        details[each.way] = {
            "plait": each.side(each.way),
            "petals": each.side(_PETALS),
            "same_tokens": f"{same} of {of}",
            "methods": sorted(each.asked.methods),
        }
        if each.values[_PETALS].median:
            ratios[f"{ratio}{suffix}"] = each.values[each.way].median / each.values[_PETALS].median
        ratios[f"{ratio}_same_tokens{suffix}"] = same / of if of else 0.0
    return Found(ratios=ratios, details=details)


@dataclass(slots=True, kw_only=True)
class _Asking:
    """Both sides, and the questions that they get in turns."""

    way: str
    petals: PetalsClient
    ours: PlaitClient
    texts: Sequence[str]
    tokenizer: ChatTokenizer
    asked: Asked = field(default_factory=Asked)

    async def round(self, repeats: int) -> Round:
        """Ask both in turns."""
        values = await interleaved({_PETALS: self._theirs, self.way: self._ours}, repeats=repeats)
        return Round(way=self.way, values=values, asked=self.asked)

    async def _theirs(self, repeat: int) -> float:
        prompt = self.tokenizer.render([{"role": "user", "content": self.texts[repeat]}])
        got = await self.petals.ask(prompt, _TOKENS)
        at = [(seconds, count) for count, seconds in enumerate(got.at, 1)]
        return self.asked.note(_PETALS, repeat, self.tokenizer.decode(got.ids), at)

    async def _ours(self, repeat: int) -> float:
        got = await self.ours.ask(self.texts[repeat], _TOKENS)
        self.asked.methods.add(got.method)
        return self.asked.note(self.way, repeat, got.text, got.at)


async def _compared(setting: Setting, model: str, *, ratio: str) -> Found:
    try:
        require_petals()
    except PeerMissingError as error:
        return not_measured(error, setting)
    from bench.peers.petals_models import llama  # noqa: PLC0415 - brings transformers

    weights, blocks, rounds = llama(model), _BLOCKS[model], list[Round]()
    tokenizer = tokenizer_of(weights, setting.folder / "tokenizer")
    texts = questions(model, setting.repeats + 1)
    async with opened_petals(weights, setting.folder / "petals", threads=setting.threads) as petals:
        await petals.serve("first", 0, blocks // 2)
        await petals.serve("second", blocks // 2, blocks)
        client = await petals.client("client")
        for way in (_COMPILED, _TORCH):
            folder = setting.folder / way
            async with opened_plait(weights, blocks, folder, compiled=way == _COMPILED, say=lambda _: None) as ours:
                asking = _Asking(way=way, petals=client, ours=ours, texts=texts, tokenizer=tokenizer)
                rounds.append(await asking.round(setting.repeats))
    return composed(rounds, ratio=ratio)


async def _tiny(setting: Setting) -> Found:
    return await _compared(setting, _TINY, ratio="decode_vs_petals")


async def _real(setting: Setting) -> Found:
    return await _compared(setting, _REAL, ratio="decode_vs_petals_smollm2")


async def _kills(setting: Setting) -> Found:
    try:
        require_petals()
    except PeerMissingError as error:
        return not_measured(error, setting)
    from bench.peers.petals_models import llama  # noqa: PLC0415 - brings transformers

    text = questions(_REAL, 1)[0]
    return await kills(setting, llama(_REAL), _BLOCKS[_REAL], text)


TINY: Final = Part(name="petals", bars={"decode_vs_petals": Bar(bound=3.0)}, measure=_tiny)
REAL: Final = Part(name="petals-smollm2", bars={}, measure=_real)
KILLS: Final = Part(name="petals-kills", bars={"petals_kills_plait_same_tokens": Bar(bound=1.0)}, measure=_kills)
