"""A Kademlia DHT of our own: libtorrent's session in a thread, an asyncio face over it.

The table is a public board: whoever reaches it may store anything under a key of his own. What
counts is what the reader checks (`records.py`). An item is at most 1,000 bytes bencoded, signed
with Ed25519, under a sequence number that libtorrent raises with every put.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import libtorrent as lt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from plait_node.swarm.errors import (
    DhtPortInUseError,
    DhtStoppedError,
    DhtTimeoutError,
    ValueTooLargeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# "996:" and 996 bytes are the 1,000 that BEP 44 allows.
VALUE_LIMIT = 996
SALT_LIMIT = 64
_POLL_MS = 250
# A closer peer may know a newer item than the first that answered.
_SETTLE_S = 0.05
_KEEP_JOINED_S = 2.0
_COUNT_S = 0.05

Peer = tuple[str, int]


class DhtKey:
    """An Ed25519 key pair under which a node stores its records."""

    __slots__ = ("_seed", "public")

    def __init__(self, seed: bytes) -> None:
        """Derive the pair from 32 secret bytes."""
        self.public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        self._seed = seed

    def __repr__(self) -> str:
        return f"DhtKey({self.public.hex()})"

    def expanded(self) -> bytes:
        """Return the 64-byte secret (scalar and prefix) that libtorrent signs with."""
        digest = bytearray(hashlib.sha512(self._seed).digest())
        digest[0] &= 248
        digest[31] &= 63
        digest[31] |= 64
        return bytes(digest)


class Dht(Protocol):
    """What the swarm needs of a hash table."""

    async def put(self, key: DhtKey, salt: bytes, value: bytes, *, deadline_s: float = 5.0) -> int:
        """Store `value`; return how many peers confirmed it before the deadline (0: none yet)."""
        ...

    async def get(self, public: bytes, salt: bytes, *, deadline_s: float = 2.0) -> bytes | None:
        """Return the newest value found before the deadline."""
        ...

    def announce(self, topic: bytes, port: int) -> None:
        """Say that this host's `port` serves a 20-byte topic (BEP 5)."""
        ...

    async def providers(self, topic: bytes, *, wait_s: float = 0.2) -> set[Peer]:
        """Return who announced a topic, as far as peers answer within `wait_s`."""
        ...

    def add_peers(self, peers: Iterable[Peer]) -> None:
        """Learn of peers to bootstrap from."""
        ...


@dataclass(slots=True, kw_only=True)
class _Lookup:
    """One running search: its newest find, and who waits for it."""

    sequence: int = -1
    value: bytes | None = None
    found: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)


def _settings(host: str, port: int) -> lt.settings_pack:
    categories = lt.alert.category_t
    return {
        "user_agent": "plait",
        "listen_interfaces": f"{host}:{port}",
        "max_retry_port_bind": 0,
        "listen_system_port_fallback": False,
        "alert_mask": categories.dht_notification
        | categories.dht_operation_notification
        | categories.error_notification
        | categories.status_notification,
        "alert_queue_size": 100_000,
        "enable_dht": True,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_tcp": False,
        "enable_outgoing_tcp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        # The public network's peers must never meet ours.
        "dht_bootstrap_nodes": "",
        # Several nodes of one address are the rule on one machine and behind one NAT.
        "dht_restrict_routing_ips": False,
        "dht_restrict_search_ips": False,
        "dht_enforce_node_id": False,
        "dht_prefer_verified_node_ids": False,
        "dht_max_dht_items": 100_000,
        "dht_upload_rate_limit": 1_000_000,
        "dht_block_ratelimit": 1_000,
    }


class LibtorrentDht:
    """The mainline Kademlia on a network of its own; every call belongs to the loop that started it."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, peers: Iterable[Peer] = ()) -> None:
        """Keep the UDP address to listen on (`port` 0: any) and the first peers."""
        self._host = host
        self._wanted_port = port
        self._peers: set[Peer] = set(peers)
        self._session: lt.session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._listening: asyncio.Future[None] | None = None
        self._lookups: dict[tuple[bytes, bytes], _Lookup] = {}
        self._puts: dict[tuple[bytes, bytes], asyncio.Future[int]] = {}
        self._providers: dict[bytes, set[Peer]] = {}
        self._known = 0
        self._joiner: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """UDP port in use."""
        return self._running().listen_port()

    @property
    def known_peers(self) -> int:
        """Peers in the routing table when it was last counted."""
        return self._known

    async def start(self, *, deadline_s: float = 10.0) -> None:
        """Listen; raise `DhtPortInUseError` when the port is taken."""
        self._loop = asyncio.get_running_loop()
        self._listening = self._loop.create_future()
        self._stopping.clear()
        self._session = lt.session(_settings(self._host, self._wanted_port))
        self._thread = threading.Thread(target=self._poll, args=(self._session,), name="dht", daemon=True)
        self._thread.start()
        try:
            await asyncio.wait_for(asyncio.shield(self._listening), deadline_s)
        except TimeoutError:
            await self.stop()
            raise DhtTimeoutError("listen", deadline_s) from None
        except DhtPortInUseError:
            await self.stop()
            raise
        self._joiner = asyncio.create_task(self._keep_joined(), name="dht-join")

    async def stop(self) -> None:
        """End the session and its thread; searches still running find nothing."""
        if self._joiner is not None:
            self._joiner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._joiner
            self._joiner = None
        thread, self._thread, self._session = self._thread, None, None
        self._stopping.set()
        if thread is not None:
            await asyncio.to_thread(thread.join, 10.0)
        for lookup in self._lookups.values():
            lookup.finished.set()
        for put in self._puts.values():
            if not put.done():
                put.set_result(0)

    def add_peers(self, peers: Iterable[Peer]) -> None:
        """Learn of peers; they are asked again as long as the table knows nobody."""
        fresh = set(peers) - self._peers
        self._peers |= fresh
        if self._session is not None:
            for host, port in fresh:
                self._session.add_dht_node((host, port))

    async def joined(self, *, peers: int = 1, deadline_s: float = 10.0) -> None:
        """Wait until the routing table holds `peers` others; raise `DhtTimeoutError`."""
        try:
            async with asyncio.timeout(deadline_s):
                while self._known < peers:
                    self._running().post_session_stats()
                    await asyncio.sleep(_COUNT_S)
        except TimeoutError:
            raise DhtTimeoutError(f"meet {peers} peers", deadline_s) from None

    async def put(self, key: DhtKey, salt: bytes, value: bytes, *, deadline_s: float = 5.0) -> int:
        """Store `value` under `key` and `salt`; return how many peers confirmed it in time.

        A dead peer among the closest delays the confirmation past any deadline while the value is
        already found by others: 0 means unconfirmed, not failed.
        """
        if len(value) > VALUE_LIMIT:
            raise ValueTooLargeError(len(value), VALUE_LIMIT)
        if len(salt) > SALT_LIMIT:
            raise ValueTooLargeError(len(salt), SALT_LIMIT)
        session = self._running()
        name = (key.public, salt)
        # A second put while one runs would be signed with the same sequence number.
        earlier = self._puts.get(name)
        if earlier is not None:
            await asyncio.wait([earlier], timeout=deadline_s)
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._puts[name] = done
        session.dht_put_mutable_item(key.expanded(), key.public, value, salt)
        finished, _ = await asyncio.wait([done], timeout=deadline_s)
        return done.result() if finished else 0

    async def get(self, public: bytes, salt: bytes, *, deadline_s: float = 2.0) -> bytes | None:
        """Return the newest value that peers hold; None when none was found in time."""
        session = self._running()
        name = (public, salt)
        lookup = self._lookups.get(name)
        if lookup is None:
            lookup = self._lookups[name] = _Lookup()
            session.dht_get_mutable_item(public, salt)
        try:
            async with asyncio.timeout(deadline_s):
                found = asyncio.create_task(lookup.found.wait())
                finished = asyncio.create_task(lookup.finished.wait())
                try:
                    await asyncio.wait([found, finished], return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.wait([finished], timeout=_SETTLE_S)
                finally:
                    found.cancel()
                    finished.cancel()
        except TimeoutError:
            pass
        if self._lookups.get(name) is lookup:
            del self._lookups[name]
        return lookup.value

    def announce(self, topic: bytes, port: int) -> None:
        """Say that this host's `port` serves a 20-byte topic (BEP 5); others see this socket's address."""
        self._running().dht_announce(lt.sha1_hash(topic), port, 0)

    async def providers(self, topic: bytes, *, wait_s: float = 0.2) -> set[Peer]:
        """Return who announced a topic; the search has no end of its own, so it takes `wait_s`."""
        session = self._running()
        found = self._providers.setdefault(topic, set())
        session.dht_get_peers(lt.sha1_hash(topic))
        await asyncio.sleep(wait_s)
        self._providers.pop(topic, None)
        return found

    def _running(self) -> lt.session:
        if self._session is None:
            raise DhtStoppedError
        return self._session

    async def _keep_joined(self) -> None:
        while True:
            session = self._running()
            session.post_session_stats()
            if self._known < len(self._peers):
                for host, port in self._peers:
                    session.add_dht_node((host, port))
            await asyncio.sleep(_KEEP_JOINED_S if self._known else 0.2)

    def _poll(self, session: lt.session) -> None:
        """Run in the DHT's thread: turn alerts into calls on the loop while they are alive."""
        loop = self._loop
        if loop is None:
            return
        while not self._stopping.is_set():
            session.wait_for_alert(_POLL_MS)
            calls = [call for alert in session.pop_alerts() if (call := self._read(alert)) is not None]
            if calls:
                with contextlib.suppress(RuntimeError):  # the loop closed before stop()
                    loop.call_soon_threadsafe(_run_all, calls)
        session.pause()

    def _read(self, alert: lt.alert) -> Callable[[], None] | None:
        """Copy what matters out of an alert, which dies with the next poll."""
        if isinstance(alert, lt.dht_mutable_item_alert):
            item: object = alert.item  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  the stub's entry type is open
            value = item if isinstance(item, bytes) and item else None  # nothing found reads as an empty item
            name, sequence, final = (bytes(alert.key), bytes(alert.salt)), alert.seq, alert.authoritative
            return lambda: self._on_item(name, sequence, value, final=final)
        if isinstance(alert, lt.dht_put_alert):
            stored, count = (bytes(alert.public_key), bytes(alert.salt)), alert.num_success
            return lambda: self._on_put(stored, count)
        if isinstance(alert, lt.dht_get_peers_reply_alert):
            topic, peers = alert.info_hash.to_bytes(), set(alert.peers())
            return lambda: self._on_providers(topic, peers)
        if isinstance(alert, lt.session_stats_alert):
            nodes = int(alert.values.get("dht.dht_nodes", 0))
            return lambda: self._on_known(nodes)
        if isinstance(alert, lt.listen_succeeded_alert):
            return lambda: self._on_listening(None)
        if isinstance(alert, lt.listen_failed_alert):
            error = DhtPortInUseError(self._host, self._wanted_port, alert.error.message())
            return lambda: self._on_listening(error)
        return None

    def _on_item(self, name: tuple[bytes, bytes], sequence: int, value: bytes | None, *, final: bool) -> None:
        lookup = self._lookups.get(name)
        if lookup is None:
            return
        if value is not None and sequence > lookup.sequence:
            lookup.sequence, lookup.value = sequence, value
            lookup.found.set()
        if final:
            lookup.finished.set()

    def _on_put(self, name: tuple[bytes, bytes], count: int) -> None:
        put = self._puts.pop(name, None)
        if put is not None and not put.done():
            put.set_result(count)

    def _on_providers(self, topic: bytes, peers: set[Peer]) -> None:
        self._providers.get(topic, set()).update(peers)

    def _on_known(self, nodes: int) -> None:
        self._known = nodes

    def _on_listening(self, error: DhtPortInUseError | None) -> None:
        if self._listening is None or self._listening.done():
            return
        if error is None:
            self._listening.set_result(None)
        else:
            self._listening.set_exception(error)


def _run_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


class MemoryDht:
    """A hash table in this process, for tests of what is built on the real one."""

    def __init__(self, shelf: dict[tuple[bytes, bytes], bytes] | None = None) -> None:
        """Share `shelf` to let several nodes meet."""
        self.shelf: dict[tuple[bytes, bytes], bytes] = {} if shelf is None else shelf
        self.peers: set[Peer] = set()
        self.announced: dict[bytes, set[Peer]] = {}

    async def put(self, key: DhtKey, salt: bytes, value: bytes, *, deadline_s: float = 5.0) -> int:
        """Store `value`, refusing what the real table refuses."""
        del deadline_s
        if len(value) > VALUE_LIMIT:
            raise ValueTooLargeError(len(value), VALUE_LIMIT)
        self.shelf[(key.public, salt)] = value
        return 1

    async def get(self, public: bytes, salt: bytes, *, deadline_s: float = 2.0) -> bytes | None:
        """Return what was stored last."""
        del deadline_s
        return self.shelf.get((public, salt))

    def announce(self, topic: bytes, port: int) -> None:
        """Remember the port on loopback."""
        self.announced.setdefault(topic, set()).add(("127.0.0.1", port))

    async def providers(self, topic: bytes, *, wait_s: float = 0.2) -> set[Peer]:
        """Return the ports announced."""
        del wait_s
        return self.announced.get(topic, set())

    def add_peers(self, peers: Iterable[Peer]) -> None:
        """Remember the peers."""
        self.peers |= set(peers)
