"""Link two peers: frames, tensor codec, TLS, signed hello."""

from __future__ import annotations

from plait_node.wire.book import LinkBook
from plait_node.wire.certificate import Certificate, load_certificate, make_certificate
from plait_node.wire.dial import Destination, Dialer, dial
from plait_node.wire.errors import (
    BusyError,
    CertificateMismatchError,
    ClockSkewError,
    DialError,
    FrameTooLargeError,
    HandshakeError,
    HandshakeRefusedError,
    KnockError,
    LinkClosedError,
    ListenError,
    MalformedFrameError,
    SendTimeoutError,
    StreamBrokenError,
    TensorError,
    VersionMismatchError,
    WireError,
)
from plait_node.wire.identity import Blame, Directory, OnBlame, Patience, PeerIdentity, log_blame
from plait_node.wire.link import Link
from plait_node.wire.meeting import Meeting, OnLink
from plait_node.wire.relay import RelayDesk, RelayLimits
from plait_node.wire.server import LinkServer
from plait_node.wire.tensor import decode_rows, encode_rows, row_bytes

__all__ = [
    "Blame",
    "BusyError",
    "Certificate",
    "CertificateMismatchError",
    "ClockSkewError",
    "Destination",
    "DialError",
    "Dialer",
    "Directory",
    "FrameTooLargeError",
    "HandshakeError",
    "HandshakeRefusedError",
    "KnockError",
    "Link",
    "LinkBook",
    "LinkClosedError",
    "LinkServer",
    "ListenError",
    "MalformedFrameError",
    "Meeting",
    "OnBlame",
    "OnLink",
    "Patience",
    "PeerIdentity",
    "RelayDesk",
    "RelayLimits",
    "SendTimeoutError",
    "StreamBrokenError",
    "TensorError",
    "VersionMismatchError",
    "WireError",
    "decode_rows",
    "dial",
    "encode_rows",
    "load_certificate",
    "log_blame",
    "make_certificate",
    "row_bytes",
]
