"""Weights placed in an arena are the weights, each on a cache line of its own, with or without huge pages."""

from __future__ import annotations

import mmap
from types import SimpleNamespace

import pytest
import torch

from plait_node.engine import arena
from plait_node.engine.arena import Arena

LINE = 64  # bytes
CHUNK = 64 << 20  # bytes


def tensors() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    made = [torch.randn(rows, 7, generator=draw) for rows in (1, 3, 5, 300)]
    made += [made[3].to(kind) for kind in (torch.bfloat16, torch.float16)]
    made += [(made[3] * 20).to(kind) for kind in (torch.int8, torch.uint8)]
    return [*made, made[3].T, made[3][::2, 1:3], torch.empty(0, 4)]


def test_placed_tensors_keep_values_shape_and_type() -> None:
    here = Arena()
    given = tensors()

    placed = [here.place(each) for each in given]

    for before, after in zip(given, placed, strict=True):
        assert after.dtype == before.dtype
        assert after.shape == before.shape
        assert after.is_contiguous()
        assert torch.equal(after, before)


def test_placed_tensor_is_a_copy() -> None:
    given = torch.ones(4)
    placed = Arena().place(given)

    given.zero_()

    assert placed.tolist() == [1, 1, 1, 1]


def test_placed_tensors_begin_on_cache_lines() -> None:
    here = Arena()

    assert [here.place(each).data_ptr() % LINE for each in tensors() if each.numel()] == [0] * (len(tensors()) - 1)


def test_neighbours_lie_in_the_order_of_their_use() -> None:
    here = Arena()
    first, second = here.place(torch.ones(17)), here.place(torch.ones(16))

    assert second.data_ptr() - first.data_ptr() == 2 * LINE


def test_tensor_larger_than_a_chunk_fits_and_the_next_ones_too() -> None:
    here = Arena()
    small = here.place(torch.arange(10))
    large = torch.randint(-100, 100, (CHUNK + 3,), dtype=torch.int8, generator=torch.Generator().manual_seed(0))

    placed = here.place(large)
    after = here.place(torch.arange(20))

    assert torch.equal(placed, large)
    assert placed.data_ptr() % LINE == 0
    assert small.tolist() == list(range(10))
    assert after.tolist() == list(range(20))


def test_tensors_of_more_than_one_chunk_do_not_touch() -> None:
    here = Arena()

    placed = [here.place(torch.full((5 << 20,), number, dtype=torch.int8)) for number in range(30)]

    assert [int(each.min()) for each in placed] == [int(each.max()) for each in placed] == list(range(30))


def test_taken_tensor_is_of_shape_and_type_and_can_be_written() -> None:
    here = Arena()
    taken, other = here.take((3, 5), torch.bfloat16), here.take((2,), torch.float32)

    taken.fill_(1)
    other.fill_(2)

    assert taken.shape == (3, 5)
    assert taken.dtype == torch.bfloat16
    assert float(taken.sum()) == 15
    assert other.tolist() == [2, 2]


class RefusingMap(mmap.mmap):
    """Memory of a system that takes no advice."""

    def madvise(self, *_: object) -> None:
        raise OSError(22, "Invalid argument")


@pytest.mark.parametrize(
    "system",
    [
        SimpleNamespace(
            mmap=RefusingMap, MAP_PRIVATE=mmap.MAP_PRIVATE, MAP_ANONYMOUS=mmap.MAP_ANONYMOUS, MADV_HUGEPAGE=14
        ),
        SimpleNamespace(mmap=mmap.mmap, MAP_PRIVATE=mmap.MAP_PRIVATE, MAP_ANONYMOUS=mmap.MAP_ANONYMOUS),
    ],
    ids=["refused", "unknown"],
)
def test_place_without_huge_pages_works_all_the_same(monkeypatch: pytest.MonkeyPatch, system: SimpleNamespace) -> None:
    monkeypatch.setattr(arena, "mmap", system)

    placed = Arena().place(torch.arange(9))

    assert placed.tolist() == list(range(9))
    assert placed.data_ptr() % LINE == 0
