"""Cached prompt windows: which keys they have, and the roots that let a new job sign them without their rows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from plait.protocol.ids import Address, Hash, keccak
from plait.protocol.windows import first_lineage, lineage
from plait_node.commit import WindowRoots
from plait_node.engine.residents import Engine

_MOST = 65_536  # windows remembered, about 200 bytes each; the engine bounds the rows themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedWindow:
    """One window's roots, and the key under which the next stage holds the same rows."""

    roots: WindowRoots
    out_key: Hash


class PrefixStore:
    """The windows one stage could reuse, least recently used forgotten first.

    Keys of the engine are bound to the payer: whether a prefix is cached shows in the time to the first token, and
    strangers' prompts must not show.
    """

    def __init__(self, *, model: Hash, profile: Hash, first: int, last: int) -> None:
        self._in_start = first_lineage(model, first_block=first, profile=profile)
        self._out_start = first_lineage(model, first_block=last, profile=profile)
        self._windows: OrderedDict[Hash, CachedWindow] = OrderedDict()

    @classmethod
    def of(cls, engine: Engine, profile: Hash) -> PrefixStore:
        """Return an empty store for an engine's blocks."""
        return cls(model=engine.manifest.model_id, profile=profile, first=engine.first, last=engine.last)

    def find(self, payer: Address, keys: Sequence[Hash]) -> list[CachedWindow]:
        """Return what is known of the leading keys."""
        found: list[CachedWindow] = []
        for key in keys:
            engine_key = own_key(payer, key)
            window = self._windows.get(engine_key)
            if window is None:
                break
            self._windows.move_to_end(engine_key)
            found.append(window)
        return found

    def keep(self, payer: Address, roots: Sequence[WindowRoots]) -> list[Hash]:
        """Remember a job's leading windows; return the engine's keys for them."""
        in_key, out_key = self._in_start, self._out_start
        keys: list[Hash] = []
        for window in roots:
            in_key, out_key = lineage(in_key, window.in_root), lineage(out_key, window.out_root)
            engine_key = own_key(payer, in_key)
            self._windows[engine_key] = CachedWindow(roots=window, out_key=out_key)
            self._windows.move_to_end(engine_key)
            keys.append(engine_key)
        while len(self._windows) > _MOST:
            self._windows.popitem(last=False)
        return keys


def own_key(payer: Address, key: Hash) -> Hash:
    """Return the engine's key for a lineage key within one payer."""
    return keccak(payer, key)
