"""An operator's pin: the methods that each job is run by, in place of a choice, read anew when its file changes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final, cast

from plait.protocol.choice import method_word
from plait_node.engine.methods import METHODS, Amount
from plait_node.selector.combinations import CHUNKED_PREFILL, PREFIX_CACHE, PROMPT_LOOKUP, Combination
from plait_node.selector.errors import PinError

__all__ = ["PIN", "Pinned", "pin_of", "read_pin", "save_pin"]

PIN: Final = "pin.json"
_METHODS: Final = (PREFIX_CACHE, CHUNKED_PREFILL, PROMPT_LOOKUP)
_AMOUNTS: Final = {"chunk": CHUNKED_PREFILL, "depth": PROMPT_LOOKUP}
_PLAIN: Final = method_word(())

_log = logging.getLogger(__name__)


class Pinned:
    """Follows a pin's file while it may change, appear and go: one look at its times for each question."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._combination: Combination | None = None

    def current(self) -> Combination | None:
        """Return what is pinned now; None without a file, and, aloud, where it is damaged."""
        try:
            found = self._path.stat()
        except OSError:
            self._seen = self._combination = None
            return None
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen != self._seen:
            self._seen, self._combination = seen, self._read()
        return self._combination

    def _read(self) -> Combination | None:
        try:
            return read_pin(self._path)
        except PinError as error:
            _log.warning("pin ignored error=%s", error)
            return None


def pin_of(method: str, *, chunk: int | None = None, depth: int | None = None) -> Combination:
    """Return a combination by its word, "prefix-cache+chunked-prefill"; an amount of None is the method's usual one.

    Raise `PinError` for methods that no worker chooses, and for amounts out of range or of methods that are not on.
    """
    on = () if method == _PLAIN else tuple(method.split("+"))
    unknown = [name for name in on if name not in _METHODS]
    if unknown or len(set(on)) != len(on):
        raise PinError(f"{method[:80]!r} is no method of a job; give {_PLAIN}, or some of {'+'.join(_METHODS)}")
    return Combination(
        reuse=PREFIX_CACHE in on,
        chunk=_amount("chunk", chunk, on=CHUNKED_PREFILL in on),
        depth=_amount("depth", depth, on=PROMPT_LOOKUP in on),
    )


def read_pin(path: Path) -> Combination | None:
    """Read a pin, None where there is none; raise `PinError` where it is damaged."""
    try:
        value: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise PinError(f"{path} is not readable ({error}); {_advice(path)}") from error
    try:
        return _combination(value)
    except (TypeError, PinError) as error:
        raise PinError(f"{path} holds no pin ({error}); {_advice(path)}") from error


def save_pin(path: Path, combination: Combination | None) -> None:
    """Write a pin in one move, or remove it; raise `OSError`."""
    if combination is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    told = {"method": combination.method, "amounts": combination.amounts}
    partial.write_text(json.dumps(told), encoding="utf-8")
    partial.replace(path)


def _amount(name: str, given: int | None, *, on: bool) -> int:
    method = METHODS[_AMOUNTS[name]]
    bounds = cast("Amount", method.amount)  # both methods have one
    if not on and given is not None:
        raise PinError(f"{name} is an amount of {method.name}, which is not among the methods")
    amount = bounds.default if given is None else given
    if not bounds.least <= amount <= bounds.most:
        raise PinError(f"{name} is {bounds.least} to {bounds.most} {bounds.unit}, not {amount}")
    return amount if on else 0


def _combination(value: object) -> Combination:
    """Return what a file says; raise `TypeError` for another form, `PinError` for values that are none."""
    if not isinstance(value, dict):
        raise TypeError("it is no JSON object")
    told = cast("dict[str, Any]", value)
    method, amounts = told.get("method"), told.get("amounts", {})
    if set(told) - {"method", "amounts"} or not isinstance(method, str) or not isinstance(amounts, dict):
        raise TypeError("it has a method, a word, and may have amounts")
    numbers = cast("dict[str, object]", amounts)
    if set(numbers) - set(_AMOUNTS) or any(type(number) is not int for number in numbers.values()):
        raise TypeError(f"amounts are whole numbers named {' or '.join(_AMOUNTS)}")
    return pin_of(method, **cast("dict[str, int]", numbers))


def _advice(path: Path) -> str:
    return f"`plait node pin --home {path.parent.parent} --clear` removes it"
