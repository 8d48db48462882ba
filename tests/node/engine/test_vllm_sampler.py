"""plait's sampler as vLLM's processor, without vLLM: the face that it calls is played by hand."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import pytest
import torch

from plait.protocol.ids import HASH_ZERO, Hash, keccak
from plait.protocol.messages import Sampling
from plait_model.sampler import sample
from plait_model.vllm_sampler import MARK, Draw, PlaitSampler

V = 50
DRAWN = Sampling(temperature=700_000, top_p=950_000, top_k=20, stop=HASH_ZERO)


class Direction(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


@dataclass(frozen=True, kw_only=True)
class Parameters:
    extra_args: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Update:
    removed: list[int]
    added: list[tuple[int, Parameters, list[int] | None, list[int]]]
    moved: list[tuple[int, int, Direction]]


def draw(number: int, start: int = 0) -> Draw:
    return Draw(seed=keccak(b"seed"), request=keccak(bytes([number])), start=start, sampling=DRAWN)


def added(*draws: Draw | None, output: list[int]) -> Update:
    rows = [
        (row, Parameters(extra_args=one.arguments() if one else None), [1], output) for row, one in enumerate(draws)
    ]
    return Update(removed=[], added=rows, moved=[])


def processor() -> PlaitSampler:
    return PlaitSampler(None, None, False)


def scores(rows: int) -> torch.Tensor:
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(3))


def wanted(one: Draw, row: torch.Tensor, position: int) -> int:
    return sample(row.numpy(), seed=one.seed, request=one.request, position=position, sampling=one.sampling).id


def test_apply_leaves_only_the_drawn_token_of_each_position() -> None:
    made, output = processor(), []
    one = draw(1, start=5)
    made.update_state(added(one, output=output))
    for step in range(6):
        logits = scores(1)
        before = logits.clone()
        after = made.apply(logits)[0]
        assert int(after.argmax()) == wanted(one, before[0], 5 + step)
        assert int(torch.isfinite(after).sum()) == 1
        output.append(int(after.argmax()))  # the list that vLLM lets grow


def test_apply_leaves_requests_of_others_and_rows_without_numbers_as_they_are() -> None:
    made = processor()
    made.update_state(added(None, draw(1), draw(2), output=[]))
    logits = scores(3)
    logits[1, 7] = float("nan")
    before = logits.clone()

    after = made.apply(logits)

    assert torch.equal(after[:2].nan_to_num(9.0), before[:2].nan_to_num(9.0))
    assert int(torch.isfinite(after[2]).sum()) == 1


def test_update_follows_rows_that_are_removed_moved_and_swapped() -> None:
    made = processor()
    one, two, three = draw(1), draw(2), draw(3)
    made.update_state(added(one, two, three, output=[]))
    made.update_state(Update(removed=[0], added=[], moved=[(2, 0, Direction.UNIDIRECTIONAL)]))
    made.update_state(Update(removed=[], added=[], moved=[(0, 1, Direction.SWAP)]))
    made.update_state(None)
    logits = scores(3)
    before = logits.clone()

    after = made.apply(logits)

    assert int(after[0].argmax()) == wanted(two, before[0], 0)
    assert int(after[1].argmax()) == wanted(three, before[1], 0)
    assert torch.equal(after[2], before[2])
    made.update_state(Update(removed=[], added=[(1, Parameters(), [1], [])], moved=[]))
    assert torch.equal(made.apply(before.clone())[1], before[1])
    assert not made.is_argmax_invariant()


@pytest.mark.parametrize("sampling", [DRAWN, Sampling(temperature=0, top_p=0, top_k=0, stop=HASH_ZERO)])
def test_arguments_come_back_as_the_draw(sampling: Sampling) -> None:
    one = Draw(seed=keccak(b"a"), request=keccak(b"b"), start=9, sampling=sampling)

    assert Draw.read(one.arguments() | {"other": 1}) == one
    assert Draw.read({"other": 1}) is None
    assert Draw.read(None) is None


@pytest.mark.parametrize(
    "change",
    [
        {"plait_seed": "0x12"},
        {"plait_seed": 5},
        {"plait_request": "not hex"},
        {"plait_start": -1},
        {"plait_start": 2**31},
        {"plait_start": 1.0},
        {"plait_temperature": True},
        {"plait_top_p": 0},
        {"plait_top_p": 1_000_001},
        {"plait_top_k": [1]},
        {"plait_probe": 1},
    ],
)
def test_half_of_our_arguments_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=MARK):
        PlaitSampler.validate_params(Parameters(extra_args=draw(1).arguments() | change))
    with pytest.raises(ValueError, match=MARK):
        PlaitSampler.validate_params(Parameters(extra_args={"plait_seed": Hash(bytes(32)).hex()}))
