"""Methods that gave wrong output on this node: nothing runs by them until the operator removes the bar."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

__all__ = ["Barred"]

_REASON: Final = 500  # signs kept

_log = logging.getLogger(__name__)


class Barred:
    """A set of methods, or types of weights, each with the reason; kept in a file where one is given."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._reasons = {} if path is None else _read(path)

    @property
    def reasons(self) -> Mapping[str, str]:
        """Return each barred method's reason."""
        return MappingProxyType(self._reasons)

    def allows(self, *names: str) -> bool:
        """Tell whether none of these is barred."""
        return self._reasons.keys().isdisjoint(names)

    def bar(self, method: str, reason: str) -> None:
        """Bar a method from now on; raise `OSError` where that cannot be kept."""
        self._reasons[method] = reason[:_REASON]
        _log.warning("method barred method=%s reason=%s", method, reason[:_REASON])
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._reasons, indent=1), encoding="utf-8")
        partial.replace(self._path)


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise TypeError("no JSON object")
        found = cast("dict[object, object]", value)
        return {str(method): str(reason)[:_REASON] for method, reason in found.items()}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        _log.warning("barred methods unreadable, none is barred file=%s error=%s", path, error)
        return {}
