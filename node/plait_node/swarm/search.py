"""Walk to the nodes nearest to a name, asking many at once: no peer's silence holds up the others' answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

from plait_node.swarm.krpc import Answer, Krpc, Peer, is_address

# The walk ends where this many nearest peers have answered.
NEAREST = 8
# All that one search may ask, whatever peers name.
_MOST_ASKED = 64
_SEEDS = 16
_MOST_NAMED = 1_024
_SILENT_S = 20.0
# After this time an unanswered query no longer keeps another peer from being asked, but may still be answered.
_SLOW_S = 0.15


class Peers:
    """Whom to ask first, and whom not to wait for."""

    def __init__(self, *, own: Peer, clock: Callable[[], float]) -> None:
        """Start from this node's own part of the table, which knows what libtorrent knows."""
        self._own = own
        self._clock = clock
        self._seeds: set[Peer] = set()
        self._known: dict[Peer, None] = {}  # answered lately, newest last
        self._silent: dict[Peer, float] = {}

    def add(self, seeds: Iterable[Peer]) -> None:
        """Learn of peers; libtorrent looks names up, and the own node passes their addresses on."""
        self._seeds |= {peer for peer in seeds if is_address(peer)}

    def first(self) -> list[Peer]:
        """Return the peers that a search begins with: the own node, then others of whom the last ones answered."""
        lately = list(self._known)[-_SEEDS:]
        others = [peer for peer in self._seeds if peer not in self._known]
        sample = random.sample(others, min(_SEEDS, len(others)))
        return list(dict.fromkeys([self._own, *lately, *sample]))

    def learn(self, peer: Peer, *, answered: bool) -> None:
        """Remember whether a peer answered."""
        self._known.pop(peer, None)
        self._silent.pop(peer, None)
        if answered:
            self._known[peer] = None
            while len(self._known) > _MOST_ASKED:
                del self._known[next(iter(self._known))]
        else:
            self._silent[peer] = self._clock() + _SILENT_S
            while len(self._silent) > _MOST_NAMED:
                del self._silent[next(iter(self._silent))]

    def is_silent(self, peer: Peer) -> bool:
        """Say whether a peer left a query of the last seconds unanswered: it is asked, and not waited for."""
        until = self._silent.get(peer)
        return until is not None and until > self._clock()


class Search:
    """One walk towards a name, driven by `step`; queries left out end by themselves and teach who is silent."""

    def __init__(self, krpc: Krpc, peers: Peers, target: bytes) -> None:
        """Ask the first peers for `target`."""
        self._krpc = krpc
        self._peers = peers
        self._target = int.from_bytes(target, "big")
        self._query = {b"target": target}
        self._ids: dict[Peer, bytes] = {}
        self._asked: set[Peer] = set()
        self._silent: set[Peer] = set()
        self._pending: dict[asyncio.Task[Answer | None], tuple[Peer, float]] = {}
        self.answers: dict[Peer, Answer] = {}
        self._ask(self._peers.first())

    def nearest(self, count: int) -> list[Answer]:
        """Return those who answered, nearest first."""
        return sorted(self.answers.values(), key=lambda answer: self._distance(answer.node))[:count]

    def is_quiet(self) -> bool:
        """Say whether nobody is out of whom an answer can be expected now: only the slow and the long silent."""
        return not self._expected() and len(self.answers) > 1

    def is_done(self) -> bool:
        """Say whether all have answered that did not just before leave a query unanswered."""
        heard = len(self.answers) > 1
        return not any(peer not in self._silent or not heard for peer, _ in self._pending.values())

    def is_over(self) -> bool:
        """Say whether nobody is out at all."""
        return not self._pending

    async def step(self) -> list[Answer]:
        """Wait for answers, or until the next query has become slow; ask on, and return what came."""
        if not self._pending:
            return []
        left = [at + _SLOW_S - self._now() for _, at in self._pending.values()]
        timeout = min((each for each in left if each > 0), default=None)
        done, _ = await asyncio.wait(self._pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        came = [answer for task in done if (answer := self._read(task)) is not None]
        self._ask(self._next())
        return came

    def _read(self, task: asyncio.Task[Answer | None]) -> Answer | None:
        peer, _ = self._pending.pop(task)
        answer = task.result()
        if answer is None or answer.refused:
            return None
        self.answers[peer] = answer
        self._ids[peer] = answer.node
        for node, named in answer.nodes:
            if len(self._ids) < _MOST_NAMED and is_address(named):
                self._ids.setdefault(named, node)
        return answer

    def _next(self) -> list[Peer]:
        """Return the unasked among the nearest, not counting those from whom nothing came."""
        expected = self._expected()
        window = [peer for peer in self._ids if peer not in self._asked or peer in self.answers or peer in expected]
        window.sort(key=lambda peer: self._distance(self._ids[peer]))
        room = max(0, _MOST_ASKED - len(self._asked))
        return [peer for peer in window[:NEAREST] if peer not in self._asked][:room]

    def _ask(self, peers: Iterable[Peer]) -> None:
        for peer in peers:
            self._asked.add(peer)
            if self._peers.is_silent(peer):
                self._silent.add(peer)
            self._pending[asyncio.create_task(self._get(peer))] = (peer, self._now())

    async def _get(self, peer: Peer) -> Answer | None:
        answer = await self._krpc.ask(peer, b"get", self._query)
        self._peers.learn(peer, answered=answer is not None)
        return answer

    def _expected(self) -> set[Peer]:
        late = self._now() - _SLOW_S
        return {peer for peer, at in self._pending.values() if at > late and peer not in self._silent}

    def _distance(self, node: bytes) -> int:
        return int.from_bytes(node, "big") ^ self._target

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
