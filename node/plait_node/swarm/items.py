"""Signed mutable items (BEP 44): walk to the nodes nearest to a name, then read there, or store there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from plait_node.swarm.errors import ValueTooLargeError
from plait_node.swarm.krpc import Answer, Krpc
from plait_node.swarm.search import Peers, Search

# "996:" and 996 bytes are the 1,000 that BEP 44 allows.
VALUE_LIMIT = 996
SALT_LIMIT = 64
# More than a search needs to find one: some of the nearest lie, some are about to die.
_COPIES = 16
# So many that know nothing of an item need no confirmation by the slow.
_ENOUGH = 4
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
class _Put:
    """A put under way; `stored` grows while peers confirm it, `sent` says that the first round is through."""

    key: DhtKey
    salt: bytes
    value: bytes
    stored: int = 0
    sent: asyncio.Event = field(default_factory=asyncio.Event)

    def arguments(self, sequence: int) -> dict[bytes, object]:
        signature = self.key.sign(signed_bytes(self.salt, sequence, self.value))
        return {b"k": self.key.public, b"salt": self.salt, b"seq": sequence, b"sig": signature, b"v": self.value}


class ItemClient:
    """Puts and gets items at the nodes nearest to them."""

    def __init__(self, krpc: Krpc, peers: Peers, *, clock: Callable[[], float] = time.time) -> None:
        """Search through `krpc`, beginning with `peers`; `clock` gives Unix time."""
        self._krpc = krpc
        self._peers = peers
        self._clock = clock
        self._turns: dict[bytes, asyncio.Lock] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._dropped: Counter[str] = Counter()

    @property
    def dropped(self) -> Counter[str]:
        """Return how many answers were of no use, by reason, since the start."""
        return self._dropped + self._krpc.dropped

    async def close(self) -> None:
        """End the puts that still wait for slow peers."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def put(self, key: DhtKey, salt: bytes, value: bytes, *, deadline_s: float) -> int:
        """Store `value` at the nearest peers; return how many confirmed it by now, at the latest by the deadline.

        Slow peers get it after the return.
        """
        if len(value) > VALUE_LIMIT:
            raise ValueTooLargeError(len(value), VALUE_LIMIT)
        if len(salt) > SALT_LIMIT:
            raise ValueTooLargeError(len(salt), SALT_LIMIT)
        put = _Put(key, salt, value)
        task = asyncio.create_task(self._store(put), name="dht-put")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await put.sent.wait()
        return put.stored

    async def get(self, public: bytes, salt: bytes, *, deadline_s: float) -> bytes | None:
        """Return the newest item that is signed by `public`; None when none was found in time."""
        search = Search(self._krpc, self._peers, target_of(public, salt))
        found: list[Answer] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s) as limit:
                while not (search.is_done() or (search.is_quiet() and (found or len(search.answers) >= _ENOUGH))):
                    fresh = signed_items(await search.step(), public, salt, self._dropped)
                    if fresh and not found:
                        settled = asyncio.get_running_loop().time() + _SETTLE_S
                        limit.reschedule(min(settled, limit.when() or settled))
                    found += fresh
        newest = max(found, key=lambda answer: answer.sequence, default=None)
        return newest.value if newest is not None else None

    async def _store(self, put: _Put) -> None:
        target = target_of(put.key.public, put.salt)
        async with self._turn(target):
            search = Search(self._krpc, self._peers, target)
            while not (search.is_quiet() or search.is_done()):
                await search.step()
            # Time, so that nobody has to be waited for only to learn which number he holds; one more than what
            # was seen, should the clock have been set back.
            held = signed_items(search.answers.values(), put.key.public, put.salt, self._dropped)
            seen = [answer.sequence for answer in held]
            arguments = put.arguments(max([int(self._clock() * 1e6), *(each + 1 for each in seen)]))
            nearest = search.nearest(_COPIES)
            await asyncio.gather(*(self._send(put, answer, arguments) for answer in nearest))
            put.sent.set()
        while not search.is_over():
            late = await search.step()
            nearest = search.nearest(_COPIES)
            await asyncio.gather(*(self._send(put, answer, arguments) for answer in late if answer in nearest))

    async def _send(self, put: _Put, to: Answer, arguments: dict[bytes, object]) -> None:
        if to.token:
            # libtorrent takes whoever puts into its table, read-only or not, and would send others here in vain; it
            # never takes its own id.
            asked = arguments | {b"id": to.node, b"token": to.token}
            answer = await self._krpc.ask(to.peer, b"put", asked)
            put.stored += answer is not None and not answer.refused

    def _turn(self, target: bytes) -> asyncio.Lock:
        """Return the lock that keeps the puts of one item in their order."""
        if len(self._turns) > _MOST_TURNS:
            self._turns = {name: turn for name, turn in self._turns.items() if turn.locked()}
        return self._turns.setdefault(target, asyncio.Lock())


def signed_items(answers: Iterable[Answer], public: bytes, salt: bytes, dropped: Counter[str]) -> list[Answer]:
    """Return the answers that carry an item which the key signed; count in `dropped` those that carry another."""
    key = Ed25519PublicKey.from_public_bytes(public)
    found: list[Answer] = []
    for answer in answers:
        if not answer.value:
            continue
        if len(answer.value) > VALUE_LIMIT:
            dropped["item_too_large"] += 1
        elif answer.key != public or answer.sequence < 0 or not _holds(key, answer, salt):
            dropped["item_not_signed"] += 1
        else:
            found.append(answer)
    return found


def target_of(public: bytes, salt: bytes) -> bytes:
    """Return the place of an item in the table; SHA-1 is BEP 44's, what counts is the item's signature."""
    return hashlib.sha1(public + salt, usedforsecurity=False).digest()


def signed_bytes(salt: bytes, sequence: int, value: bytes) -> bytes:
    """Return what the key signs: salt, sequence and value, bencoded one after the other."""
    head = b"4:salt%d:%b" % (len(salt), salt) if salt else b""
    return head + b"3:seqi%de1:v%d:%b" % (sequence, len(value), value)


def _holds(key: Ed25519PublicKey, answer: Answer, salt: bytes) -> bool:
    try:
        key.verify(answer.signature, signed_bytes(salt, answer.sequence, answer.value or b""))
    except InvalidSignature:
        return False
    return True
