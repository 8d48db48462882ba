"""A Kademlia DHT of our own: libtorrent's session in a thread, an asyncio face over it.

The table is a public board: whoever reaches it may store anything under a key of his own. What
counts is what the reader checks (`records.py`). libtorrent keeps this node's part of the table and
answers for it; `items.py` asks for and stores items.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import libtorrent as lt

from plait_node.swarm.errors import (
    DhtPortInUseError,
    DhtStoppedError,
    DhtTimeoutError,
    ValueTooLargeError,
)
from plait_node.swarm.items import VALUE_LIMIT, DhtKey, ItemClient
from plait_node.swarm.krpc import Krpc, Peer, is_address
from plait_node.swarm.search import Peers

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL_MS = 250
_KEEP_JOINED_S = 2.0
_CHOICES = 20
_COUNT_S = 0.05


class Dht(Protocol):
    """What the swarm needs of a hash table."""

    @property
    def dropped(self) -> Counter[str]:
        """How many answers of peers were of no use, by reason."""
        ...

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
        # Peers on one machine, or behind one NAT, share this budget of packets a second.
        "dht_block_ratelimit": 10_000,
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
        self._krpc: Krpc | None = None
        self._items: ItemClient | None = None
        self._first: Peers | None = None
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

    @property
    def dropped(self) -> Counter[str]:
        """How many answers of peers were malformed, too large or not signed by who should have, since the start."""
        return self._items.dropped if self._items is not None else Counter()

    async def start(self, *, deadline_s: float = 10.0) -> None:
        """Listen; raise `DhtPortInUseError` when the port is taken."""
        # libtorrent takes any port of TCP and then wants that of UDP, which another process may hold: it looks again.
        for left in reversed(range(1 if self._wanted_port else _CHOICES)):
            try:
                await self._listen(deadline_s)
            except DhtPortInUseError:
                if not left:
                    raise
            else:
                break
        await self._open_client(deadline_s)
        self._joiner = asyncio.create_task(self._keep_joined(), name="dht-join")

    async def _listen(self, deadline_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = self._loop.create_future()
        self._stopping.clear()
        self._session = lt.session(_settings(self._host, self._wanted_port))
        self._thread = threading.Thread(target=self._poll, args=(self._session,), name="dht", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.shield(self._listening)
        except TimeoutError:
            await self.stop()
            raise DhtTimeoutError("listen", deadline_s) from None
        except DhtPortInUseError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the session and its thread; searches still running find nothing."""
        if self._joiner is not None:
            self._joiner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._joiner
            self._joiner = None
        items, self._items, self._first = self._items, None, None
        if items is not None:
            await items.close()
        if self._krpc is not None:
            self._krpc.close()
            self._krpc = None
        thread, self._thread, self._session = self._thread, None, None
        self._stopping.set()
        if thread is not None:
            await asyncio.to_thread(thread.join, 10.0)

    def add_peers(self, peers: Iterable[Peer]) -> None:
        """Learn of peers; they are asked again as long as the table knows nobody."""
        fresh = set(peers) - self._peers
        self._peers |= fresh
        if self._first is not None:
            self._first.add(fresh)
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
        """Store `value` under `key` and `salt`; return how many peers confirmed it in time."""
        return await self._client().put(key, salt, value, deadline_s=deadline_s)

    async def get(self, public: bytes, salt: bytes, *, deadline_s: float = 2.0) -> bytes | None:
        """Return the newest value that peers hold; None when none was found in time."""
        return await self._client().get(public, salt, deadline_s=deadline_s)

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

    async def _open_client(self, deadline_s: float) -> None:
        loop = asyncio.get_running_loop()
        wildcard = not is_address((self._host, self.port))
        async with asyncio.timeout(deadline_s):
            local = ("0.0.0.0" if wildcard else self._host, 0)  # noqa: S104  as wide as the DHT's own socket
            _, self._krpc = await loop.create_datagram_endpoint(Krpc, local_addr=local)
        self._first = Peers(own=("127.0.0.1" if wildcard else self._host, self.port), clock=loop.time)
        self._first.add(self._peers)
        self._items = ItemClient(self._krpc, self._first)

    def _client(self) -> ItemClient:
        if self._items is None:
            raise DhtStoppedError
        return self._items

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
        self.dropped: Counter[str] = Counter()

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
