"""Open a link to a node whose owner, address and certificate come from its signed record."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address, Hash, to_hex
from plait_node.wire.book import LinkBook
from plait_node.wire.certificate import fingerprint, pem_of
from plait_node.wire.errors import (
    CertificateMismatchError,
    ClockSkewError,
    DialError,
    HandshakeError,
    WireError,
)
from plait_node.wire.handshake import Handshake
from plait_node.wire.identity import Blame, Directory, OnBlame, Patience, PeerIdentity, log_blame
from plait_node.wire.link import Link
from plait_node.wire.transport import DialedTransport

_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Whom to dial, and where: facts of a node record.

    A node that only dials out has no host, port 0, and keeps links to the nodes in `via`.
    """

    owner: Address
    host: str
    port: int
    certificate: Hash  # SHA-256 of the DER certificate
    via: tuple[Destination, ...] = ()

    @classmethod
    def parse(cls, dialable: str, *, owner: Address, certificate: Hash) -> Destination:
        """Read `host:port` of a record; raise `MalformedMessageError`."""
        host, _, port = dialable.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not 0 < len(host) <= 253 or not set(host) <= _HOST_CHARACTERS or not (port.isascii() and port.isdigit()):
            raise MalformedMessageError("a dialable address is host:port")
        if len(port) > 5 or not 0 < int(port) < 1 << 16:
            raise MalformedMessageError("a port lies from 1 to 65535")
        return cls(owner=owner, host=host, port=int(port), certificate=certificate)

    @property
    def target(self) -> str:
        """Return host:port as gRPC reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialer:
    """Opens links on behalf of one node."""

    identity: PeerIdentity
    directory: Directory
    patience: Patience = field(default_factory=Patience)
    on_blame: OnBlame = log_blame
    clock: Callable[[], float] = time.time
    book: LinkBook = field(default_factory=LinkBook)

    async def dial(self, destination: Destination) -> Link:
        """Return a proven link; raise `DialError` or `HandshakeError` when there is none within the deadline."""
        if not destination.host:
            raise DialError(f"{to_hex(destination.owner)} cannot be dialed, it only dials out", owner=destination.owner)
        pem = await self.pinned_certificate(destination)
        transport = DialedTransport(destination.target, pem)
        try:
            handshake = Handshake(
                identity=self.identity,
                directory=self.directory,
                dialer=True,
                certificate=destination.certificate,
                expected=destination.owner,
                clock=self.clock,
            )
            proven = await handshake.run(transport, deadline_s=self.patience.handshake_s)
        except BaseException as error:
            await asyncio.shield(transport.abort())
            if isinstance(error, WireError):
                raise self._failed(destination, error) from error
            raise
        link = Link(
            transport,
            peer=proven.owner,
            version=proven.version,
            patience=self.patience,
            on_blame=self.on_blame,
            on_signal=self.book.signal,
        )
        self.book.add(link)
        return link

    def _failed(self, destination: Destination, error: WireError) -> WireError:
        # Which of two clocks is wrong is not known here, and a refusal may be for our own clock: nobody is blamed.
        if not isinstance(error, ClockSkewError):
            lost = isinstance(error, DialError)
            self.on_blame(Blame(owner=destination.owner, where=destination.target, reason=error.text, lost=lost))
        if isinstance(error, HandshakeError | DialError):
            return error
        return DialError(f"{to_hex(destination.owner)} at {destination.target}: {error.text}", owner=destination.owner)

    async def pinned_certificate(self, destination: Destination) -> bytes:
        """Return the server's certificate as PEM if it is the pinned one; raise `DialError`."""
        try:
            async with asyncio.timeout(self.patience.handshake_s):
                der = await _served_certificate(destination.host, destination.port)
        except (OSError, TimeoutError, ValueError) as error:
            text = f"{to_hex(destination.owner)} does not answer at {destination.target}: {error or 'timed out'}"
            raise self._failed(destination, DialError(text, owner=destination.owner)) from error
        if fingerprint(der) != destination.certificate:
            text = (
                f"{destination.target} shows another certificate than {to_hex(destination.owner)} signed in its record"
            )
            raise self._failed(destination, CertificateMismatchError(text, owner=destination.owner))
        return pem_of(der)


async def dial(
    host: str,
    port: int,
    *,
    expected_owner: Address,
    expected_certificate_sha256: Hash,
    identity: PeerIdentity,
    directory: Directory,
) -> Link:
    """Dial with default patience: see `Dialer.dial`."""
    destination = Destination(owner=expected_owner, host=host, port=port, certificate=expected_certificate_sha256)
    return await Dialer(identity=identity, directory=directory).dial(destination)


async def _served_certificate(host: str, port: int) -> bytes:
    """Return the DER certificate shown at an address; it is compared with the pin before anything is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):  # the server still talks HTTP/2 to us
            async with asyncio.timeout(1.0):
                await writer.wait_closed()
    if not isinstance(der, bytes):
        raise OSError("no certificate")
    return der
