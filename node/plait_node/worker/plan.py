"""Decide how a task is run: route, methods, and what of its prompt the stages may still hold."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Protocol

from plait.protocol import errors
from plait.protocol.choice import ChoiceNote
from plait.protocol.commitments import id_bytes
from plait.protocol.ids import Address, Hash
from plait.protocol.windows import WINDOW_STEPS, first_lineage, lineage, row_hash, window_root
from plait_node.selector import CHUNKED_PREFILL, PREFIX_CACHE, PROMPT_LOOKUP, Asked, OverBudgetError, Way, task_facts
from plait_node.selector.candidates import CHUNK
from plait_node.swarm.completion import NOTHING_KNOWN, Known
from plait_node.swarm.errors import NoRouteError
from plait_node.swarm.mending import mend
from plait_node.swarm.route import Blames, Needs, Route, plan, room_of
from plait_node.swarm.speeds import SpeedBook

if TYPE_CHECKING:
    from plait.protocol.manifest import Manifest
    from plait_node.selector import Choice, Ran, Trial
    from plait_node.swarm.directory import Directory
    from plait_node.swarm.records import NodeRecord
    from plait_node.worker.admission import Task

_REMEMBERED = 65_536
_USUAL_STEP_S = 0.1


class Chooser(Protocol):
    """The part of the selector that a worker uses."""

    def choose(self, asked: Asked, /) -> Choice:
        """Return one of the ways and the methods; raise `OverBudgetError`."""
        ...

    def learn(self, digest: bytes, trial: Trial | None, ran: Ran, /) -> None:
        """Take in how a job went that was answered to its end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Route and methods of one attempt; `lineage` are the first stage's keys of the prompt's whole windows."""

    route: Route
    choice: ChoiceNote
    lineage: tuple[Hash, ...]
    trial: Trial | None = None

    @property
    def reuses_prefix(self) -> bool:
        """Tell whether stages are asked for cached windows."""
        return PREFIX_CACHE in self.choice.methods and bool(self.lineage)

    @property
    def chunk(self) -> int:
        """Return how many prompt rows go into one frame; 0 for all of them."""
        return self.choice.amounts.get("chunk", 0) if CHUNKED_PREFILL in self.choice.methods else 0

    @property
    def busy(self) -> float:
        """Return the share of a step's expected time in which stages compute; the rest is on the way."""
        micros = sum(record.facts.step_micros for record in self.route.records)
        return min(1.0, micros / 1e6 / self.route.step_s) if micros and self.route.step_s else 1.0

    @property
    def depth(self) -> int:
        """Return how many ids are guessed at a time; 0 for none."""
        return self.choice.amounts.get("depth", 0) if PROMPT_LOOKUP in self.choice.methods else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What this worker knows of stages at one moment."""

    delays: Mapping[Address, float] = field(default_factory=dict["Address", float])
    known: Known = NOTHING_KNOWN


class PrefixMemory:
    """The prompt windows of recent jobs, per payer and route, least recently used forgotten first."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._keys: OrderedDict[tuple[Address, bytes, Hash], None] = OrderedDict()

    def shared(self, payer: Address, route: Route, keys: Sequence[Hash]) -> int:
        """Return how many of the leading windows were computed on this route for this payer."""
        stages = _name(route)
        count = 0
        for key in keys:
            if (payer, stages, key) not in self._keys:
                break
            count += 1
        return count

    def holders(self, payer: Address, keys: Sequence[Hash]) -> frozenset[Address]:
        """Return the owners of the route that last computed the first of these windows for this payer."""
        names = (name for owner, name, key in reversed(self._keys) if keys and owner == payer and key == keys[0])
        name = next(names, b"")
        return frozenset(Address(name[at : at + 20]) for at in range(0, len(name), 20))

    def remember(self, payer: Address, route: Route, keys: Sequence[Hash]) -> None:
        """Remember a prompt whose windows every stage signed."""
        stages = _name(route)
        for key in keys:
            self._keys[payer, stages, key] = None
            self._keys.move_to_end((payer, stages, key))
        while len(self._keys) > _REMEMBERED:
            self._keys.popitem(last=False)

    def forget(self, payer: Address, route: Route, keys: Sequence[Hash]) -> None:
        """Forget windows that the stages turned out not to hold."""
        for key in keys:
            self._keys.pop((payer, _name(route), key), None)


class Planner:
    """Chooses route and method together, within what the payer allowed."""

    def __init__(
        self,
        *,
        directory: Directory,
        manifest: Manifest,
        chooser: Chooser,
        max_price: Callable[[Task], int],
        clock: Callable[[], float],
        rtt_s: Callable[[Address], float | None] = lambda _: None,
        spare_s: float = 0.0,
        hesitation_s: Callable[[Address], float] = lambda _: 0.0,
    ) -> None:
        """Take stages from `directory`; `max_price` bounds a route, per 1,000,000 steps over all blocks.

        `rtt_s` tells the round trip to a stage whose link is up; answers are to be there `spare_s` before the deadline;
        `hesitation_s` is what a step over a stage counts longer because its channel is not funded.
        """
        self._directory = directory
        self._manifest = manifest
        self._chooser = chooser
        self._max_price = max_price
        self._clock = clock
        self._rtt_s = rtt_s
        self._spare_s = spare_s
        self._hesitation_s = hesitation_s
        self.blames = Blames()
        self.speeds = SpeedBook()
        self.prefixes = PrefixMemory()

    async def decide(
        self,
        task: Task,
        *,
        excluded: frozenset[Address] = frozenset(),
        profile: Hash | None = None,
        delivered: Sequence[int] = (),
    ) -> Decision:
        """Return route and methods, under `profile` if that is settled, for what follows the `delivered` ids.

        Raise the protocol's `NoRouteError`, `PromptTooLongError`, and `PriceTooLowError` for a budget too small.
        """
        request = task.request
        needs = self._needs(task, request.profiles if profile is None else (profile,), excluded)
        first = await self._route(needs)
        routes = await self._routes(task, needs, first)
        known = (*task.ids, *delivered)
        keys = [prompt_lineage(request.model, route.profile, known) for route in routes]
        ways = tuple(self._way(task, route, its_keys) for route, its_keys in zip(routes, keys, strict=True))
        asked = Asked(
            digest=task.digest,
            task=task_facts(task.ids, max_tokens=request.max_tokens),
            ways=ways,
            limit_s=request.deadline - self._clock() - self._spare_s,
        )
        try:
            choice = self._chooser.choose(asked)
        except OverBudgetError as error:
            raise errors.PriceTooLowError(str(error)) from error
        return Decision(route=routes[choice.way], choice=choice.note, lineage=keys[choice.way], trial=choice.trial)

    async def mend(
        self, task: Task, decision: Decision, *, lost: frozenset[Address], excluded: frozenset[Address]
    ) -> Decision | None:
        """Return the decision with others in place of the `lost` stages; None when nobody else serves their blocks."""
        route = decision.route
        needs, stages = self._needs(task, (route.profile,), excluded), list(route.records)
        announced = await self._directory.stages(self._manifest.model_id)
        seen = self._seen(announced)
        for place, record in reversed(list(enumerate(stages))):
            if record.owner in lost:
                kept = replace(route, records=tuple(stages)).stages()
                try:
                    stages[place : place + 1] = mend(
                        announced, kept, record.owner, needs, blamed_s=seen.delays, known=seen.known
                    )
                except NoRouteError:
                    return None
        note = replace(decision.choice, reason=f"{decision.choice.reason}; a stage that failed was replaced")
        return Decision(route=replace(route, records=tuple(stages)), choice=note, lineage=())

    async def passable(self, task: Task, *, profile: Hash, excluded: frozenset[Address]) -> bool:
        """Tell whether there is a route now without the `excluded` stages."""
        try:
            await self._route(self._needs(task, (profile,), excluded))
        except errors.PlaitError:
            return False
        return True

    def learn(self, task: Task, decision: Decision, ran: Ran) -> None:
        """Tell the selector, and the book of speeds, how a decision turned out."""
        self._chooser.learn(task.digest, decision.trial, ran)
        trips = self._trips(decision.route.records)
        if ran.accepted < 0 and ran.tokens > 1:  # steps of one row
            step_s = (ran.seconds - ran.ttft_s) / (ran.tokens - 1)
            self.speeds.took(decision.route, step_s, now=self._clock(), rtt_s=trips)
        else:
            self.speeds.reached(trips)
        self.speeds.ended([record.owner for record in decision.route.records])

    def blame(self, owner: Address, *, failed: bool) -> None:
        """Avoid a stage for a while; with `failed` a job failed on it, which is remembered for longer."""
        self.blames.add(owner, now=self._clock())
        if failed:
            self.speeds.ended([owner], failed=owner)

    def _needs(self, task: Task, profiles: tuple[Hash, ...], excluded: frozenset[Address]) -> Needs:
        request = task.request
        return Needs(
            blocks=self._manifest.blocks,
            profiles=profiles,
            room=request.input_tokens + request.max_tokens,
            max_price=self._max_price(task),
            excluded=excluded,
            prompt=request.input_tokens,
            answer=request.max_tokens,
            chunk=CHUNK,
        )

    def _seen(self, records: Sequence[NodeRecord]) -> _Seen:
        now = self._clock()
        blamed = self.blames.seconds(now=now)
        slower = {each.owner: blamed.get(each.owner, 0.0) + self._hesitation_s(each.owner) for each in records}
        return _Seen(delays={owner: s for owner, s in slower.items() if s}, known=self.speeds.known(now=now))

    def _trips(self, records: Sequence[NodeRecord]) -> dict[Address, float]:
        return {each.owner: trip for each in records if (trip := self._rtt_s(each.owner)) is not None}

    async def _routes(self, task: Task, needs: Needs, first: Route) -> list[Route]:
        """Return the best route under each profile, and over the stages that computed this prompt's beginning last."""
        records = await self._directory.stages(self._manifest.model_id)
        seen = self._seen(records)
        found = [first]
        for profile in needs.profiles:
            own = replace(needs, profiles=(profile,))
            if profile != first.profile:
                found += _planned(records, own, seen)
            keys = prompt_lineage(task.request.model, profile, task.ids[: WINDOW_STEPS + 1])
            owners = self.prefixes.holders(task.request.payer, keys) - set(seen.delays)
            found += _planned([each for each in records if each.owner in owners], own, seen)
        return list({(route.profile, _name(route)): route for route in reversed(found)}.values())[::-1]

    def _way(self, task: Task, route: Route, keys: tuple[Hash, ...]) -> Way:
        profile = self._manifest.profile(route.profile)
        if profile is None:  # unreachable: a request names profiles of its model, and so do routes
            raise AssertionError
        blamed_s = sum(self._seen(route.records).delays.values())
        trips = list(self._trips(route.records).values())
        return Way(
            profile=profile,
            stages=len(route.records),
            step_s=max(0.0, route.step_s - blamed_s),
            measured=all(record.facts.step_micros for record in route.records),
            blamed_s=blamed_s,
            rtt_s=median(trips) if trips else None,
            warm_tokens=WINDOW_STEPS * self.prefixes.shared(task.request.payer, route, keys),
        )

    async def room(self, max_price: int) -> int:
        """Return the most steps that a route has room for now; 0 when there is none."""
        profiles = tuple(profile.profile_id for profile in self._manifest.profiles)
        records = await self._directory.stages(self._manifest.model_id)
        return room_of(records, Needs(blocks=self._manifest.blocks, profiles=profiles, room=1, max_price=max_price))

    async def pace_s(self, max_price: int) -> float:
        """Return the expected time of a step on the soonest route now; a usual one where nothing is measured yet."""
        profiles = tuple(profile.profile_id for profile in self._manifest.profiles)
        records = await self._directory.stages(self._manifest.model_id)
        needs = Needs(blocks=self._manifest.blocks, profiles=profiles, room=1, max_price=max_price)
        routes = _planned([each for each in records if each.facts.step_micros], needs, _Seen())
        return routes[0].step_s if routes else _USUAL_STEP_S

    async def _route(self, needs: Needs) -> Route:
        model = self._manifest.model_id
        records = await self._directory.stages(model)
        seen = self._seen(records)
        try:
            return plan(records, needs, blamed_s=seen.delays, known=seen.known)
        except NoRouteError:
            await self._directory.refresh(model)  # a stage may have joined since the last look
        records = await self._directory.stages(model)
        seen = self._seen(records)
        try:
            return plan(records, needs, blamed_s=seen.delays, known=seen.known)
        except NoRouteError as error:
            room = room_of(records, needs)
            if 0 < room < needs.room:
                raise errors.PromptTooLongError(
                    f"prompt and answer need room for {needs.room} steps, the route has room for {room}; "
                    "shorten the prompt or lower max_tokens"
                ) from error
            raise errors.NoRouteError(str(error)) from error


def prompt_lineage(model: Hash, profile: Hash, ids: Sequence[int]) -> tuple[Hash, ...]:
    """Return the first stage's keys of a prompt's whole windows, the last row always left to compute."""
    key = first_lineage(model, first_block=0, profile=profile)
    keys: list[Hash] = []
    for start in range(0, (len(ids) - 1) // WINDOW_STEPS * WINDOW_STEPS, WINDOW_STEPS):
        rows = (row_hash(step, id_bytes(ids[step])) for step in range(start, start + WINDOW_STEPS))
        key = lineage(key, window_root(rows))
        keys.append(key)
    return tuple(keys)


def _planned(records: Sequence[NodeRecord], needs: Needs, seen: _Seen) -> list[Route]:
    """Return the best route, none where there is no route."""
    with contextlib.suppress(NoRouteError):
        return [plan(records, needs, blamed_s=seen.delays, known=seen.known)]
    return []


def _name(route: Route) -> bytes:
    return b"".join(record.owner for record in route.records)
