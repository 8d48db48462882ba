"""The exception tree of the wire.

WireError
|- LinkClosedError             the link ended; `.peer`, `.reason`
|- SendTimeoutError            the peer does not read; the link is closed with it
|- FrameTooLargeError          we were about to send a frame above the limit
|- MalformedFrameError         what a peer sent is no frame of this protocol
|  `- TensorError              rows whose codec, shape or length is wrong
|- StreamBrokenError           the stream broke under a read or a write
|- DialError                   nobody answered at the address
|  `- CertificateMismatchError somebody else answered
|- HandshakeError              the peer did not prove who it is
|  |- VersionMismatchError     no common version; both ranges are in the text
|  |- ClockSkewError           the two clocks differ; nobody is blamed
|  |- BusyError                too many links or handshakes at once
|  `- HandshakeRefusedError    the peer refused us and said why
|- KnockError                  a call to open a link that is not answered
`- ListenError                 the port cannot be had
"""

from __future__ import annotations

from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, to_hex


class WireError(PlaitError):
    """The root of what links raise."""

    code = "wire"


class LinkClosedError(WireError):
    """The link to `peer` is closed; dial again to go on."""

    code = "link_closed"
    retry = True

    def __init__(self, peer: Address, reason: str) -> None:
        super().__init__(f"the link to {to_hex(peer)} is closed: {reason}")
        self.peer = peer
        self.reason = reason


class SendTimeoutError(LinkClosedError):
    """The peer took nothing within the deadline."""

    code = "send_timeout"


class FrameTooLargeError(WireError):
    """A frame above the limit was about to be sent; split it."""

    code = "too_large"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a frame of {size} bytes is above the limit of {limit}; send fewer rows at a time")
        self.size = size
        self.limit = limit


class MalformedFrameError(WireError):
    """A peer sent something that is no frame of this protocol."""

    code = "malformed"


class TensorError(MalformedFrameError):
    """Rows whose codec, shape or length is wrong."""


class StreamBrokenError(WireError):
    """The stream broke under a read or a write."""

    code = "stream_broken"
    retry = True


class DialError(WireError):
    """Nobody answered at the address; `.owner` is whom we looked for."""

    code = "unreachable"
    retry = True

    def __init__(self, text: str, *, owner: Address) -> None:
        super().__init__(text)
        self.owner = owner


class CertificateMismatchError(DialError):
    """Somebody answered with another certificate than the one in the signed record."""

    code = "certificate_mismatch"
    retry = False


class HandshakeError(WireError):
    """The peer did not prove who it is."""

    code = "handshake"


class VersionMismatchError(HandshakeError):
    """The two sides speak no common version."""

    code = "version_unknown"


class ClockSkewError(HandshakeError):
    """The two sides' clocks differ by more than signed times allow; which one is wrong, neither can tell."""

    code = "clock_skew"


class BusyError(HandshakeError):
    """This node has as many links or handshakes as it takes; try again later."""

    code = "busy"
    retry = True


class HandshakeRefusedError(HandshakeError):
    """The peer refused us; the text is its own."""

    code = "refused"


class KnockError(WireError):
    """A call to open a link is not answered; the text says why."""

    code = "knock"


class ListenError(WireError):
    """The address cannot be listened on."""

    code = "listen"
