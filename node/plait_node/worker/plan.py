"""Decide how a task is run: route, method, and what of its prompt the stages may still hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plait.protocol import errors
from plait.protocol.choice import ChoiceNote
from plait.protocol.commitments import id_bytes
from plait.protocol.ids import Address, Hash
from plait.protocol.windows import WINDOW_STEPS, first_lineage, lineage, row_hash, window_root
from plait_node.selector import TaskFeatures
from plait_node.swarm.errors import NoRouteError
from plait_node.swarm.route import Blames, Needs, Route, plan, room_of

if TYPE_CHECKING:
    from plait.protocol.manifest import Manifest
    from plait_node.selector import Selector
    from plait_node.swarm.directory import Directory
    from plait_node.worker.admission import Task

PREFIX_CACHE = "prefix-cache"
CHUNKED_PREFILL = "chunked-prefill"
PROMPT_LOOKUP = "prompt-lookup"
_REMEMBERED = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class JobShape:
    """What the choice of a method rests on."""

    prompt_tokens: int
    max_tokens: int
    shared_prefix_tokens: int  # whole windows that the route's stages were seen to compute lately
    stages: int
    step_s: float  # expected time of one decode step over the route


Chooser = Callable[[JobShape], ChoiceNote]


def chooser(selector: Selector, *, hop_s: float = 0.0) -> Chooser:
    """Return a chooser that asks the selector; `hop_s` is a round trip to one stage."""

    def choose(shape: JobShape) -> ChoiceNote:
        task = TaskFeatures(
            prompt_tokens=shape.prompt_tokens,
            max_tokens=shape.max_tokens,
            stages=shape.stages,
            shared_prefix_tokens=shape.shared_prefix_tokens,
            hop_s=hop_s,
        )
        return selector.choose(task).note()

    return choose


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Route and method of one attempt; `lineage` are the first stage's keys of the prompt's whole windows."""

    route: Route
    choice: ChoiceNote
    lineage: tuple[Hash, ...]

    def expected_s(self, max_tokens: int) -> float:
        """Return when an answer of this many tokens is expected to be complete."""
        return self.choice.predicted.get("first_token_s", 0.0) + max_tokens * self.route.step_s

    @property
    def reuses_prefix(self) -> bool:
        """Tell whether stages are asked for cached windows."""
        return self.choice.method == PREFIX_CACHE and bool(self.lineage)

    @property
    def chunk(self) -> int:
        """Return how many prompt rows go into one frame; 0 for all of them."""
        return self.choice.amounts.get("chunk", 0) if self.choice.method == CHUNKED_PREFILL else 0

    @property
    def depth(self) -> int:
        """Return how many ids are guessed at a time; 0 for none."""
        return self.choice.amounts.get("depth", 0) if self.choice.method == PROMPT_LOOKUP else 0


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
        choose: Chooser,
        max_price: Callable[[Task], int],
        clock: Callable[[], float],
    ) -> None:
        """Take stages from `directory`; `max_price` bounds a route, per 1,000,000 steps over all blocks."""
        self._directory = directory
        self._manifest = manifest
        self._choose = choose
        self._max_price = max_price
        self._clock = clock
        self.blames = Blames()
        self.prefixes = PrefixMemory()

    async def decide(
        self, task: Task, *, excluded: frozenset[Address] = frozenset(), profile: Hash | None = None
    ) -> Decision:
        """Return route and method, under `profile` if that is settled.

        Raise the protocol's `NoRouteError` or `PromptTooLongError`.
        """
        request = task.request
        needs = Needs(
            blocks=self._manifest.blocks,
            profiles=request.profiles if profile is None else (profile,),
            room=request.input_tokens + request.max_tokens,
            max_price=self._max_price(task),
            excluded=excluded,
        )
        route = await self._route(needs)
        keys = prompt_lineage(request.model, route.profile, task.ids)
        best = self._with_method(task, route, keys)
        held = await self._holding(task, needs, keys)
        if held is not None and held.route.profile == route.profile:
            best = min(best, held, key=lambda each: each.expected_s(request.max_tokens))
        return best

    def _with_method(self, task: Task, route: Route, keys: tuple[Hash, ...]) -> Decision:
        request = task.request
        shared = self.prefixes.shared(request.payer, route, keys)
        choice = self._choose(
            JobShape(
                prompt_tokens=request.input_tokens,
                max_tokens=request.max_tokens,
                shared_prefix_tokens=WINDOW_STEPS * shared,
                stages=len(route.records),
                step_s=route.step_s,
            )
        )
        return Decision(route=route, choice=choice, lineage=keys)

    async def _holding(self, task: Task, needs: Needs, keys: tuple[Hash, ...]) -> Decision | None:
        """Return the best decision over the stages that computed this prompt's beginning last, if they still serve."""
        owners = self.prefixes.holders(task.request.payer, keys) - set(self.blames.seconds(now=self._clock()))
        records = [each for each in await self._directory.stages(self._manifest.model_id) if each.owner in owners]
        try:
            route = plan(records, needs)
        except NoRouteError:
            return None
        return self._with_method(task, route, keys)

    async def room(self, max_price: int) -> int:
        """Return the most steps that a route has room for now; 0 when there is none."""
        profiles = tuple(profile.profile_id for profile in self._manifest.profiles)
        records = await self._directory.stages(self._manifest.model_id)
        return room_of(records, Needs(blocks=self._manifest.blocks, profiles=profiles, room=1, max_price=max_price))

    async def _route(self, needs: Needs) -> Route:
        model = self._manifest.model_id
        delays = self.blames.seconds(now=self._clock())
        try:
            return plan(await self._directory.stages(model), needs, blamed_s=delays)
        except NoRouteError:
            await self._directory.refresh(model)  # a stage may have joined since the last look
        records = await self._directory.stages(model)
        try:
            return plan(records, needs, blamed_s=delays)
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


def _name(route: Route) -> bytes:
    return b"".join(record.owner for record in route.records)
