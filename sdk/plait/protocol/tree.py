"""The append-only tree of RFC 9162 with keccak256: leaf prefix 0x00, node prefix 0x01."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from plait.protocol.errors import BadProofError
from plait.protocol.ids import Hash, keccak

EMPTY_ROOT = keccak(b"")


def leaf_hash(data: bytes) -> Hash:
    """Return the hash of a leaf's data."""
    return keccak(b"\0", data)


def node_hash(left: Hash, right: Hash) -> Hash:
    """Return the hash of an inner node."""
    return keccak(b"\x01", left, right)


def tree_root(leaves: Iterable[bytes]) -> Hash:
    """Return the root over the data of all leaves."""
    tree = Tree()
    for data in leaves:
        tree.append(data)
    return tree.root()


class Tree:
    """Leaf hashes and all full subtrees over them; roots and proofs of any size cost O(log n)."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[list[Hash]] = [[]]  # level k holds the roots of the full subtrees of 2^k leaves
        for data in leaves:
            self.append(data)

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, data: bytes) -> int:
        """Add a leaf and return its index."""
        return self.append_hash(leaf_hash(data))

    def append_hash(self, hashed: Hash) -> int:
        """Add a leaf by its leaf hash and return its index."""
        index = len(self)
        level = 0
        self._levels[0].append(hashed)
        while len(self._levels[level]) % 2 == 0:
            pair = self._levels[level][-2:]
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node_hash(pair[0], pair[1]))
        return index

    def root(self, size: int | None = None) -> Hash:
        """Return the root over the first `size` leaves, all by default."""
        size = self._size(size)
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int | None = None) -> tuple[Hash, ...]:
        """Return the proof that leaf `index` is among the first `size` leaves."""
        size = self._size(size)
        if not 0 <= index < size:
            raise BadProofError(f"leaf {index} is not among the first {size}")
        path: list[Hash] = []
        low, high = 0, size
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low = middle
        return tuple(reversed(path))

    def consistency(self, old: int, new: int | None = None) -> tuple[Hash, ...]:
        """Return the proof that the first `old` leaves begin the first `new`; empty from size 0."""
        new = self._size(new)
        if not 0 <= old <= new:
            raise BadProofError(f"a tree of {new} leaves does not extend one of {old}")
        if old in (0, new):
            return ()
        path: list[Hash] = []
        low, high, whole = 0, new, True
        while old < high:
            middle = low + _split(high - low)
            if old <= middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low, whole = middle, False
        if not whole:
            path.append(self._range(low, high))
        return tuple(reversed(path))

    def _size(self, size: int | None) -> int:
        size = len(self) if size is None else size
        if not 0 <= size <= len(self):
            raise BadProofError(f"the tree has {len(self)} leaves, not {size}")
        return size

    def _range(self, low: int, high: int) -> Hash:
        count = high - low
        if count & (count - 1) == 0:  # low is a multiple of count: RFC 9162 splits at powers of two
            return self._levels[count.bit_length() - 1][low // count]
        middle = low + _split(count)
        return node_hash(self._range(low, middle), self._range(middle, high))


def verify_inclusion(data: bytes, *, index: int, size: int, proof: Sequence[Hash], root: Hash) -> None:
    """Check a leaf against a root (RFC 9162, 2.1.3.2); raise `BadProofError`."""
    if not 0 <= index < size:
        raise BadProofError(f"leaf {index} cannot be in a tree of {size}")
    position, last = index, size - 1
    result = leaf_hash(data)
    for sibling in proof:
        if last == 0:
            raise BadProofError("the proof is too long")
        if position & 1 or position == last:
            result = node_hash(sibling, result)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        position, last = position >> 1, last >> 1
    if last != 0 or result != root:
        raise BadProofError("the proof does not lead to the root")


def verify_consistency(*, old_size: int, new_size: int, old_root: Hash, new_root: Hash, proof: Sequence[Hash]) -> None:
    """Check that one tree begins another (RFC 9162, 2.1.4.2); raise `BadProofError`."""
    if not 0 <= old_size <= new_size:
        raise BadProofError(f"a tree of {new_size} leaves does not extend one of {old_size}")
    if old_size in (0, new_size):
        expected = EMPTY_ROOT if old_size == 0 else new_root
        if proof or old_root != expected:
            raise BadProofError("trees of equal size, or from size 0, need equal roots and an empty proof")
        return
    older, newer = _fold_consistency(old_size, new_size, old_root, proof)
    if older != old_root or newer != new_root:
        raise BadProofError("the proof does not join the two roots")


def _fold_consistency(old_size: int, new_size: int, old_root: Hash, proof: Sequence[Hash]) -> tuple[Hash, Hash]:
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        raise BadProofError("the proof is empty")
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    older = newer = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise BadProofError("the proof is too long")
        if position & 1 or position == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            newer = node_hash(newer, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise BadProofError("the proof is too short")
    return older, newer


def _split(count: int) -> int:
    """Return the largest power of two below `count`, which is at least 2."""
    return 1 << (count - 1).bit_length() - 1
