"""A queue bounded by what its items weigh, for one consumer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

_ITEM_COST = 512  # bytes an item weighs beside its payload, so that tiny items are bounded too


class WeighedQueue(Generic[T]):
    """First in, first out; an item always fits into an empty queue."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[tuple[T, int]] = deque()
        self._weight = 0
        self._ended = False
        self._filled = asyncio.Event()
        self._freed = asyncio.Event()

    def put(self, item: T, weight: int) -> bool:
        """Take the item, or return False when it does not fit now; an ended queue swallows it."""
        if self._items and self._weight + weight + _ITEM_COST > self._limit:
            self._freed.clear()
            return False
        if not self._ended:
            self.force(item, weight)
        return True

    def force(self, item: T, weight: int = 0) -> None:
        """Take the item whatever the bound."""
        self._items.append((item, weight + _ITEM_COST))
        self._weight += weight + _ITEM_COST
        self._filled.set()

    def end(self) -> None:
        """Take nothing more; the consumer gets what is left, then None for ever."""
        self._ended = True
        self._filled.set()
        self._freed.set()

    async def room(self) -> None:
        """Wait until something was taken out, or the queue has ended."""
        if not self._ended:
            await self._freed.wait()

    async def get(self) -> T | None:
        """Return the next item; None once the queue has ended and is empty."""
        while not self._items:
            if self._ended:
                return None
            self._filled.clear()
            await self._filled.wait()
        return self._pop()

    def take(self, most: int) -> T | None:
        """Return the next item if it is there and weighs no more than `most`; for the consumer, behind `get`."""
        if not self._items or self._items[0][1] - _ITEM_COST > most:
            return None
        return self._pop()

    def _pop(self) -> T:
        item, weight = self._items.popleft()
        self._weight -= weight
        self._freed.set()
        return item
