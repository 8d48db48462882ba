"""The worker's prekeys: HPKE key pairs that live a day, kept in a file so that a restart opens what was sealed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from plait.protocol.codec import parse, signed_from_pb, signed_to_pb
from plait.protocol.messages import Prekey
from plait.protocol.pb import signed_pb2
from plait.protocol.sealing import X25519, PrekeySecret
from plait_node.worker.errors import PrekeyError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from plait.protocol.ids import Address, Hash
    from plait.protocol.typed import Domain, Key, Signed

LIFE_S = 86_400
# A quote lives minutes, a request at most an hour: a prekey is renewed long before it ends and kept a while after.
_RENEW_S = LIFE_S // 2
_KEEP_S = 7_200


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    signed: Signed[Prekey]
    secret: PrekeySecret


class PrekeyRing:
    """Makes, keeps and forgets prekeys of one node."""

    def __init__(
        self, path: Path, *, key: Key, domain: Domain, node: Address, clock: Callable[[], float], kem: int = X25519
    ) -> None:
        """Read the file if it is there; raise `PrekeyError` when it cannot be read."""
        self._path = path
        self._key = key
        self._domain = domain
        self._node = node
        self._clock = clock
        self._kem = kem
        self._pairs = _read(path)

    def current(self) -> Signed[Prekey]:
        """Return a prekey with at least half a day to live; it is on disk before anybody sees it."""
        now = int(self._clock())
        newest = self._pairs[-1].signed if self._pairs else None
        if (
            newest is None
            or newest.message.expires < now + _RENEW_S
            or newest.signer(self._domain) != self._key.address
        ):
            self._pairs = [pair for pair in self._pairs if pair.signed.message.expires + _KEEP_S > now]
            self._pairs.append(self._make(now))
            self._write()
        return self._pairs[-1].signed

    def held(self, prekeys: Collection[Hash]) -> tuple[Hash, PrekeySecret]:
        """Return the one of these prekeys, by struct hash, that is held here, and its secret; raise `PrekeyError`."""
        for pair in self._pairs:
            if (name := pair.signed.struct_hash()) in prekeys:
                return name, pair.secret
        raise PrekeyError("the quote names a prekey that this worker does not hold any more; ask for a new quote")

    def _make(self, now: int) -> _Pair:
        secret = PrekeySecret.generate(self._kem)
        prekey = Prekey(node=self._node, kem=self._kem, key=secret.public, valid_from=now, expires=now + LIFE_S)
        return _Pair(signed=self._key.signed(self._domain, prekey), secret=secret)

    def _write(self) -> None:
        rows = [
            {"prekey": signed_to_pb(pair.signed).SerializeToString().hex(), "secret": pair.secret.secret.hex()}
            for pair in self._pairs
        ]
        partial = self._path.with_suffix(".new")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(rows, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)


def _read(path: Path) -> list[_Pair]:
    if not path.exists():
        return []
    try:
        rows = cast("list[dict[str, Any]]", json.loads(path.read_text(encoding="utf-8")))
        return [_pair(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"{path} cannot be read ({error}); remove it: jobs quoted under the old prekeys are refused"
        raise PrekeyError(text) from error


def _pair(row: dict[str, Any]) -> _Pair:
    signed = signed_from_pb(parse(signed_pb2.SignedPrekey, bytes.fromhex(row["prekey"])), Prekey)
    return _Pair(signed=signed, secret=PrekeySecret(kem=signed.message.kem, secret=bytes.fromhex(row["secret"])))
