"""Requests this wallet made, one small file each: what to look for on chain later, and the receipt as evidence."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plait.client.errors import UnknownRequestError
from plait.protocol.ids import Hash, hash32, to_hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """A request as filed; hashes and the signed receipt as hex, times in Unix seconds."""

    request: str
    model: str
    gateway: str
    closes_at: int
    receipt: str | None = None  # a SignedReceipt, serialised


class Archive:
    """The folder of filed requests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, filed: Filed) -> None:
        """Write a request's file, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{filed.request}.json"
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(asdict(filed)), "utf-8")
        draft.replace(path)

    def get(self, request: str | Hash) -> tuple[Hash, Filed]:
        """Return a request's id and file; raise `UnknownRequestError`."""
        name = hash32(request)
        path = self._folder / f"{to_hex(name)}.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text("utf-8"))
            return name, Filed(**found)
        except (OSError, ValueError, TypeError) as error:
            raise UnknownRequestError(
                f"this wallet's folder {self._folder} knows no request {to_hex(name)}; use the home it was made with"
            ) from error

    def list(self) -> list[str]:
        """Return the ids of all filed requests."""
        return sorted(path.stem for path in self._folder.glob("0x*.json"))
