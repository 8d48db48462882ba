"""How this node gets into a broker: which authority its servers' certificates come from, and with which key."""

# pyright: reportUnknownMemberType=false
# (nats-py leaves **params of its methods untyped; every result used here has a type)

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from plait_node.broker.errors import NkeyError
from plait_node.broker.nkeys import Nkey
from plait_node.broker.waking import Wake


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAccess:
    """Files of a node's access; without `nkey` the broker lets everybody in, and this node makes its streams."""

    ca: Path | None = None
    nkey: Path | None = None

    def key(self) -> Nkey | None:
        """Read the key; raise `NkeyError` naming the file."""
        if self.nkey is None:
            return None
        try:
            return Nkey.from_seed(self.nkey.read_text(encoding="ascii"))
        except (OSError, UnicodeDecodeError, NkeyError) as error:
            raise NkeyError(f"{self.nkey}: not usable as a broker's key ({error})") from error

    def tls(self) -> ssl.SSLContext | None:
        """Return what server certificates are checked against; raise `NkeyError` naming the file."""
        if self.ca is None:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise NkeyError(f"{self.ca}: not usable as a certificate authority ({error})") from error


OPEN = BrokerAccess()


class UserClient(Client):
    """nats-py's client, with our own reading of nkeys, what the server says of itself, and who waits for its word."""

    def __init__(self, key: Nkey | None) -> None:
        super().__init__()
        self._public_nkey = key.public if key is not None else None
        self.wakes: set[Wake] = set()

    async def ring_all(self) -> None:
        """Have every reader look: what was stored while there was no connection rang for nobody."""
        for wake in self.wakes:
            wake.ring()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """Read headers as nats-py does, but for its look at each character of each name: they come with each event."""
        found: dict[str, str] = {}
        for line in raw.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon and name.isascii():
                key = name.strip().decode("ascii")
                if not key or key.split() == [key]:
                    found[key] = value.strip().decode("utf-8", "replace")
        return found

    @property
    def clustered(self) -> bool:
        """Whether the server belongs to a cluster."""
        return bool(self._server_info.get("cluster"))


def connect_options(access: BrokerAccess, key: Nkey | None) -> dict[str, Any]:
    """Return what `Client.connect` needs beside the addresses."""
    options: dict[str, Any] = {}
    context = access.tls()
    if context is not None:
        options["tls"] = context
    if key is not None:
        # Replies come to an inbox that is this user's alone, so that no other user may listen to them.
        options |= {"signature_cb": key.sign, "inbox_prefix": inbox(key.public)}
    return options


def inbox(public: str) -> str:
    """Name where a user's replies arrive."""
    return f"_INBOX_{public}"
