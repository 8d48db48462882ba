"""Signed mutable items (BEP 44): walk to the nodes nearest to a name, then read there, or store there."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from plait_node.swarm.errors import ValueTooLargeError
from plait_node.swarm.krpc import Answer, Krpc, Peer

# "996:" and 996 bytes are the 1,000 that BEP 44 allows.
VALUE_LIMIT = 996
SALT_LIMIT = 64
_NEAREST = 8
_MOST_ASKED = 64
_SEEDS = 16
_SILENT_S = 20.0
_MOST_TURNS = 4_096
# A nearer peer may know a newer item than the first that answered.
_SETTLE_S = 0.05


class DhtKey:
    """An Ed25519 key pair under which a node stores its records."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        """Derive the pair from 32 secret bytes."""
        self._secret = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._secret.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"DhtKey({self.public.hex()})"

    def sign(self, data: bytes) -> bytes:
        """Sign bytes."""
        return self._secret.sign(data)


@dataclass(slots=True)
class _Walk:
    """What one search knows: who answered, and who might be nearer."""

    target: int
    asked: set[Peer] = field(default_factory=set[Peer])
    ids: dict[Peer, bytes] = field(default_factory=dict[Peer, bytes])
    answers: list[Answer] = field(default_factory=list[Answer])

    def distance(self, node: bytes) -> int:
        return int.from_bytes(node, "big") ^ self.target

    def nearest(self) -> list[Answer]:
        return sorted(self.answers, key=lambda answer: self.distance(answer.node))[:_NEAREST]

    def next(self) -> list[Peer]:
        """Return the peers that should be asked: unasked ones among the nearest known."""
        answered = {answer.peer for answer in self.answers}
        alive = [peer for peer in self.ids if peer not in self.asked or peer in answered]
        alive.sort(key=lambda peer: self.distance(self.ids[peer]))
        room = _MOST_ASKED - len(self.asked)
        return [peer for peer in alive[:_NEAREST] if peer not in self.asked][: max(0, room)]


class ItemClient:
    """Puts and gets items; `seeds` are asked first in every search."""

    def __init__(self, krpc: Krpc, *, own: Callable[[], Peer], clock: Callable[[], float]) -> None:
        """Search through `krpc`; `own` is this node's own part of the table, always asked too."""
        self._krpc = krpc
        self._own = own
        self._clock = clock
        self._seeds: set[Peer] = set()
        self._known: dict[Peer, None] = {}  # answered lately, newest last
        self._silent: dict[Peer, float] = {}
        self._turns: dict[bytes, asyncio.Lock] = {}

    def add_seeds(self, seeds: Iterable[Peer]) -> None:
        """Learn of peers."""
        self._seeds |= set(seeds)

    async def put(self, key: DhtKey, salt: bytes, value: bytes, *, deadline_s: float) -> int:
        """Store `value` at the nearest peers; return how many confirmed it within the deadline."""
        if len(value) > VALUE_LIMIT:
            raise ValueTooLargeError(len(value), VALUE_LIMIT)
        if len(salt) > SALT_LIMIT:
            raise ValueTooLargeError(len(salt), SALT_LIMIT)
        target = target_of(key.public, salt)
        if len(self._turns) > _MOST_TURNS:
            self._turns = {name: turn for name, turn in self._turns.items() if turn.locked()}
        turn = self._turns.setdefault(target, asyncio.Lock())
        stored: list[Answer | None] = []
        try:
            async with asyncio.timeout(deadline_s), turn:
                walk = await self._walk(target)
                sequence = 1 + max((answer.sequence for answer in _items(walk.answers, key.public, salt)), default=0)
                arguments: dict[bytes, object] = {
                    b"k": key.public,
                    b"salt": salt,
                    b"seq": sequence,
                    b"sig": key.sign(signed_bytes(salt, sequence, value)),
                    b"v": value,
                }
                nearest = [answer for answer in walk.nearest() if answer.token]
                stored += await asyncio.gather(
                    *(self._krpc.ask(each.peer, b"put", arguments | {b"token": each.token}) for each in nearest)
                )
        except TimeoutError:
            pass  # what was sent may still arrive
        return sum(answer is not None for answer in stored)

    async def get(self, public: bytes, salt: bytes, *, deadline_s: float) -> bytes | None:
        """Return the newest item that is signed by `public`; None when none was found in time."""
        found: list[Answer] = []
        came = asyncio.Event()

        def take(answer: Answer) -> None:
            if _items([answer], public, salt):
                found.append(answer)
                came.set()

        walk = asyncio.create_task(self._walk(target_of(public, salt), take))
        first = asyncio.create_task(came.wait())
        try:
            await asyncio.wait([walk, first], timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if not walk.done():
                await asyncio.wait([walk], timeout=min(_SETTLE_S, deadline_s))
        finally:
            walk.cancel()
            first.cancel()
        newest = max(found, key=lambda answer: answer.sequence, default=None)
        return newest.value if newest is not None else None

    async def _walk(self, target: bytes, take: Callable[[Answer], None] = lambda _: None) -> _Walk:
        """Ask nearer and nearer peers until the nearest have all answered or stayed silent."""
        walk = _Walk(int.from_bytes(target, "big"))
        asking = self._first_peers()
        while asking:
            walk.asked |= set(asking)
            for answer in await self._ask_all(asking, target, take):
                walk.answers.append(answer)
                walk.ids[answer.peer] = answer.node
                for node, peer in answer.nodes:
                    if not self._is_silent(peer):
                        walk.ids.setdefault(peer, node)
            asking = walk.next()
        return walk

    async def _ask_all(self, peers: Sequence[Peer], target: bytes, take: Callable[[Answer], None]) -> list[Answer]:
        async def ask(peer: Peer) -> Answer | None:
            answer = await self._krpc.ask(peer, b"get", {b"target": target})
            self._learn(peer, answered=answer is not None)
            if answer is not None:
                take(answer)
            return answer

        return [answer for answer in await asyncio.gather(*map(ask, peers)) if answer is not None]

    def _first_peers(self) -> list[Peer]:
        lately = [peer for peer in list(self._known)[-_SEEDS:] if not self._is_silent(peer)]
        others = [peer for peer in self._seeds if peer not in lately and not self._is_silent(peer)]
        sample = random.sample(others, min(_SEEDS, len(others)))
        return list(dict.fromkeys([self._own(), *lately, *sample]))

    def _learn(self, peer: Peer, *, answered: bool) -> None:
        self._known.pop(peer, None)
        if answered:
            self._known[peer] = None
            self._silent.pop(peer, None)
            while len(self._known) > _MOST_ASKED:
                del self._known[next(iter(self._known))]
        else:
            self._silent[peer] = self._clock() + _SILENT_S
            while len(self._silent) > 1_024:
                del self._silent[next(iter(self._silent))]

    def _is_silent(self, peer: Peer) -> bool:
        until = self._silent.get(peer)
        return until is not None and until > self._clock()


def target_of(public: bytes, salt: bytes) -> bytes:
    """Return the place of an item in the table; SHA-1 is BEP 44's, what counts is the item's signature."""
    return hashlib.sha1(public + salt, usedforsecurity=False).digest()


def signed_bytes(salt: bytes, sequence: int, value: bytes) -> bytes:
    """Return what the key signs: salt, sequence and value, bencoded one after the other."""
    head = b"4:salt%d:%b" % (len(salt), salt) if salt else b""
    return head + b"3:seqi%de1:v%d:%b" % (sequence, len(value), value)


def _items(answers: Iterable[Answer], public: bytes, salt: bytes) -> list[Answer]:
    """Return the answers that carry an item which the key signed."""
    key = Ed25519PublicKey.from_public_bytes(public)
    found: list[Answer] = []
    for answer in answers:
        if not answer.value or answer.key != public or answer.sequence < 0:
            continue
        try:
            key.verify(answer.signature, signed_bytes(salt, answer.sequence, answer.value))
        except InvalidSignature:
            continue
        found.append(answer)
    return found
