"""The blocks that a stage takes which was told how many it has room for, not which."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field, ValidationError

from plait.protocol.ids import Address, Hash, to_hex
from plait_node.config import StageConfig
from plait_node.swarm import bottleneck, choose_blocks
from plait_node.swarm.completion import block_micros

if TYPE_CHECKING:
    from plait_node.swarm import Directory, NodeRecord

_LOOK_S: Final = 10.0  # until a swarm of which no record is found counts as empty
_AGAIN_S: Final = 1.0
_SOME_BLOCK_S: Final = 1.0  # where nobody has measured a block yet, any time does: all count alike

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The bytes of each block's tensors, and the blocks that are here already."""

    sizes: Sequence[int]
    held: Collection[int]


class _Kept(BaseModel):
    model: str
    first: int = Field(ge=0)
    last: int = Field(gt=0)
    room: int


async def placed(
    config: StageConfig,
    directory: Directory,
    file: Path,
    *,
    owner: Address,
    blocks: int,
    profile: Hash,
    look_s: float = _LOOK_S,
    load: Load | None = None,
) -> StageConfig:
    """Return the configuration with its blocks, of `blocks` that the model has.

    What was chosen once is kept in `file`, and taken again as long as model and room are the same: a node that comes
    back moves nobody, itself included. It counts as fast as is usual in its swarm until it has measured itself. `load`
    says what it would have to fetch; nothing where it is not given.
    """
    model = to_hex(config.model)
    kept = await asyncio.to_thread(_read, file)
    if kept is None or (kept.model, kept.room) != (model, config.blocks) or not kept.first < kept.last <= blocks:
        found = await _found(directory, config.model, look_s)
        records = [each for each in found if each.owner != owner]  # what it announced before it stopped is no help
        typical = block_micros(each.facts for each in records if each.facts.profile == profile)
        weak = bottleneck(records, blocks, profile)
        chosen = choose_blocks(
            records,
            blocks,
            profile,
            room=min(config.blocks, blocks),
            block_s=typical / 1e6 or _SOME_BLOCK_S,
            held=load.held if load is not None else (),
            sizes=load.sizes if load is not None else None,
        )
        _log.info(
            "blocks chosen first=%d last=%d weakest=%d-%d steps_s=%.3g routed_steps_s=%.3g after=%.3g",
            chosen.first,
            chosen.last,
            weak.first,
            weak.last - 1,
            weak.steps_s,
            weak.routed_steps_s,
            chosen.routed_steps_s,
        )
        kept = _Kept(model=model, first=chosen.first, last=chosen.last, room=config.blocks)
        await asyncio.to_thread(file.write_text, json.dumps(kept.model_dump()) + "\n", encoding="utf-8")
    return config.model_copy(update={"first": kept.first, "last": kept.last})


async def _found(directory: Directory, model: Hash, look_s: float) -> Sequence[NodeRecord]:
    """Return the swarm's records; a table that has just started needs a while to find any."""
    until = time.monotonic() + look_s
    records = await directory.stages(model)
    while not records and time.monotonic() < until:
        await asyncio.sleep(_AGAIN_S)
        records = await directory.stages(model)
    return records


def _read(file: Path) -> _Kept | None:
    """Return what was kept; None where nothing was, with a warning where it cannot be read."""
    try:
        return _Kept.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        _log.warning("kept blocks not read, chosen anew file=%s error=%s", file, error)
        return None
