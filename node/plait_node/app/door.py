"""The links of one role: those it opens, those that are opened to it, those it asks others to open."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from plait_node.app.base import Base
from plait_node.config import MeetingPoint, Socket, StageConfig
from plait_node.errors import ConfigError
from plait_node.wire import Destination, Dialer, LinkServer, Meeting, PeerIdentity, RelayDesk, RelayLimits

if TYPE_CHECKING:
    from plait_node.swarm import Directory
    from plait_node.wire import OnLink

_MIB = 1 << 20


@dataclass(slots=True)
class Door:
    """Made before its role, which dials by `meeting`; opened once there is something to serve links."""

    base: Base
    relay_mib: int = 0
    meeting: Meeting = field(init=False)
    identity: PeerIdentity = field(init=False)
    at: Destination | None = field(init=False, default=None)  # where others dial, None: nowhere
    _relay: RelayDesk | None = field(init=False, default=None)
    _server: LinkServer | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Make what dials."""
        base = self.base
        self.identity = PeerIdentity(
            owner=base.config.owner, key=base.key, certificate=base.home.certificate(), domain=base.domain
        )
        if self.relay_mib:
            self._relay = RelayDesk(RelayLimits(bytes_a_second=self.relay_mib * _MIB))
        self.meeting = Meeting(Dialer(identity=self.identity, directory=base.keys), relay=self._relay)

    @asynccontextmanager
    async def open(
        self, on_link: OnLink, listen: Socket | None, *, announce: Socket | None = None, hidden: bool = False
    ) -> AsyncGenerator[None]:
        """Serve links with `on_link`, those to `listen` too, as long as the block lasts.

        Raise `ConfigError`, `ListenError`.
        """
        try:
            await self._open(on_link, listen, announce=announce, hidden=hidden)
            yield
        finally:
            await self.meeting.stop()
            if self._server is not None:
                await self._server.stop()

    async def _open(self, on_link: OnLink, listen: Socket | None, *, announce: Socket | None, hidden: bool) -> None:
        if listen is None:
            self.meeting.attach(on_link, at=None)
            return
        shown = announce or listen
        if not hidden and _is_any(shown.host):
            raise ConfigError(f'{shown.host} is no address to dial: set announce = "host:port" beside listen')
        self._server = LinkServer(
            self.identity, self.base.keys, on_link, book=self.meeting.book, relay=self._relay and self._relay.serve
        )
        port = await self._server.start(listen.host, listen.port)
        pin = self.identity.certificate.fingerprint
        if not hidden:
            self.at = Destination(
                owner=self.identity.owner, host=shown.host, port=announce.port if announce else port, certificate=pin
            )
        local = ("127.0.0.1" if _is_any(listen.host) else listen.host, port)
        self.meeting.attach(on_link, at=self.at, local=local)

    def facts(self) -> dict[str, object]:
        """Return how this node is reached, as its ready file says it and `via` of another one takes it."""
        if self.at is None:
            return {}
        owner, certificate = self.at.owner.hex(), self.at.certificate.hex()
        return {"listen": self.at.target, "meeting_point": f"0x{owner}@{self.at.target}/0x{certificate}"}


def points_of(config: StageConfig, directory: Directory) -> Callable[[], Awaitable[Sequence[Destination]]]:
    """Return what finds meeting points: those configured, else the model's dialable stages, neighbours first."""

    async def points() -> Sequence[Destination]:
        if config.via:
            return [_destination(each) for each in config.via]
        records = [each for each in await directory.stages(config.model) if each.facts.host]
        records.sort(key=lambda each: (config.first != each.facts.last and config.last != each.facts.first, each.owner))
        return [each.destination for each in records]

    return points


def _destination(point: MeetingPoint) -> Destination:
    return Destination(owner=point.owner, host=point.socket.host, port=point.socket.port, certificate=point.certificate)


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return not host
