"""Cached prompt windows: which keys they have, the roots that let a new job sign them, and the rows they gave out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from plait.protocol.ids import Address, Hash, keccak
from plait.protocol.windows import WINDOW_STEPS, first_lineage, lineage
from plait_node.commit import WindowRoots
from plait_node.engine.residents import Engine
from plait_node.stage.kept import RowBudget

_MOST = 65_536  # windows remembered, about 200 bytes each; the engine bounds the rows themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedWindow:
    """One window's roots, the key under which the next stage holds the same rows, and the rows if they are kept."""

    roots: WindowRoots
    out_key: Hash
    rows: bytes = b""


class PrefixStore:
    """The windows one stage could reuse, least recently used forgotten first.

    Keys of the engine are bound to the payer: whether a prefix is cached shows in the time to the first token, and
    strangers' prompts must not show. A window that the engine forgets is forgotten here, rows and all; rows may go
    before, when jobs need their memory: then a job can begin with the window, and nobody can be sent its rows again.
    """

    def __init__(self, rows: RowBudget, *, model: Hash, profile: Hash, first: int, last: int) -> None:
        """Begin with none; `rows` is the memory for what windows gave out."""
        self._rows = rows
        self._in_start = first_lineage(model, first_block=first, profile=profile)
        self._out_start = first_lineage(model, first_block=last, profile=profile)
        self._windows: OrderedDict[Hash, CachedWindow] = OrderedDict()

    @classmethod
    def of(cls, engine: Engine, profile: Hash, rows: RowBudget) -> PrefixStore:
        """Return an empty store for an engine's blocks."""
        return cls(rows, model=engine.manifest.model_id, profile=profile, first=engine.first, last=engine.last)

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
        # The first windows are what other prompts share: their rows are to go last.
        rows = [self._rows.window(own_key(payer, key)) for key in reversed(keys[: len(found)])]
        return [replace(window, rows=its) for window, its in zip(found, reversed(rows), strict=True)]

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
            self.forget([next(iter(self._windows))])
        return keys

    def keep_rows(self, keys: Sequence[Hash], rows: Callable[[int, int], bytes | None]) -> None:
        """Keep what a job's leading windows gave out, as far as there is memory; `rows` returns those of some steps."""
        spared = set(keys)
        for at, key in enumerate(keys if self._rows.keeps else ()):
            if key not in self._windows or self._rows.window(key):
                continue
            made = rows(WINDOW_STEPS * at, WINDOW_STEPS * (at + 1))
            if made is None or not self._rows.keep(key, made, spared=spared):
                break  # without these the rows of later windows are no use
        for key in reversed(keys):
            self._rows.window(key)

    def forget(self, keys: Iterable[Hash]) -> None:
        """Forget windows, by the engine's keys."""
        for key in keys:
            self._windows.pop(key, None)
            self._rows.forget(key)


def own_key(payer: Address, key: Hash) -> Hash:
    """Return the engine's key for a lineage key within one payer."""
    return keccak(payer, key)


def leading_rows(windows: Sequence[CachedWindow]) -> int:
    """Return of how many windows, counted from the first, the rows are kept."""
    return next((at for at, window in enumerate(windows) if not window.rows), len(windows))
