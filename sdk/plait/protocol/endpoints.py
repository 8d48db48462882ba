"""What a node writes as its endpoint on chain: URIs joined by single spaces."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from plait.protocol.errors import MalformedMessageError

MAX_ENDPOINT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The faces of one node: its gateways' base URLs (`http` the first), its DHT socket, and where it gives weights."""

    http: str | None = None
    dht: tuple[str, int] | None = None
    others: tuple[str, ...] = ()
    weights: tuple[str, int] | None = None

    def text(self) -> str:
        """Return the endpoint as `NodeRegistry` keeps it."""
        parts = [] if self.http is None else [self.http, *self.others]
        for scheme, socket in (("dht", self.dht), ("weights", self.weights)):
            if socket is not None:
                parts.append(_uri(scheme, *socket))
        return " ".join(parts)

    @property
    def weights_url(self) -> str | None:
        """Return the HTTP base URL of the face that gives weights."""
        return _uri("http", *self.weights) if self.weights is not None else None


def endpoints(text: str) -> Endpoints:
    """Read an endpoint that anyone may have written; unknown schemes are skipped, raise `MalformedMessageError`."""
    if len(text) > MAX_ENDPOINT or not text.isprintable():
        raise MalformedMessageError(f"an endpoint is at most {MAX_ENDPOINT} printable characters")
    faces: list[str] = []
    sockets: dict[str, tuple[str, int]] = {}
    for part in text.split():
        scheme, host, port = _parse(part)
        if scheme in ("http", "https"):
            faces += [face for face in (part.rstrip("/"),) if face not in faces]
        elif port:
            sockets.setdefault(scheme, (host, port))
    return Endpoints(
        http=faces[0] if faces else None,
        dht=sockets.get("dht"),
        others=tuple(faces[1:]),
        weights=sockets.get("weights"),
    )


def _uri(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _parse(part: str) -> tuple[str, str, int]:
    try:
        url = urlsplit(part)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise MalformedMessageError(f"{part!r} is no URI") from error
    if not host or url.query or url.fragment or url.username is not None:
        raise MalformedMessageError(f"{part!r} needs a scheme and a host, and nothing after the path")
    return url.scheme, host, port or 0
