"""Facts of a job: what the manifest says of its model, its tokens of the task, a route of the hardware."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from plait.protocol.manifest import Manifest, Profile, Tensor
from plait_model.errors import ModelError
from plait_model.families import shape_of
from plait_node.selector.errors import HardwareFileError
from plait_node.selector.facts import HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.tasks import repetition

__all__ = [
    "HARDWARE",
    "Way",
    "hardware_of",
    "load_hardware",
    "model_facts",
    "read_hardware",
    "save_hardware",
    "task_facts",
    "warmed",
]

HARDWARE: Final = "hardware.json"  # the worker's machine as measured, in the selector's folder of its home
_HARDWARE: Final = TypeAdapter(HardwareFacts)
_ABOVE_0: Final = ("cores", "threads", "stages", "matmul_gflops", "copy_gbytes_s", "memory_gbytes")
_FROM_0: Final = ("rtt_s", "bytes_s", "price_per_hour")
_MEASURE: Final = "remove it and a worker, or plait node bench-methods --home, measures this machine again"
_IN_BLOCKS: Final = ("blk.", "model.layers.")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A route that a job may take, as its stages announce it."""

    profile: Profile
    stages: int
    step_s: float  # one decode step through all of them, links and queues included
    measured: bool  # False: none of them, nor any other, has served anything yet
    blamed_s: float = 0.0  # by which each step may be longer, because a stage failed lately
    rtt_s: float | None = None  # there and back between worker and stage, where links are up
    warm_tokens: int = 0  # leading tokens of the prompt that these stages hold


def model_facts(manifest: Manifest, tensors: Iterable[Tensor], *, real_weights: bool = True) -> ModelFacts | None:
    """Return a model's shape, its parameters counted; None for an architecture without a family here."""
    try:
        shape = shape_of(manifest)
    except ModelError:
        return None
    sizes = [(tensor.name, math.prod(tensor.shape)) for tensor in tensors]
    return ModelFacts(
        name=manifest.name,
        family=manifest.architecture,
        real_weights=real_weights,
        blocks=shape.blocks,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        intermediate=shape.inner,
        vocabulary=shape.vocabulary,
        parameters=sum(size for _, size in sizes),
        block_parameters=sum(size for name, size in sizes if name.startswith(_IN_BLOCKS)),
    )


def task_facts(ids: Sequence[int], *, max_tokens: int) -> TaskFacts:
    """Return what is known of one request before it runs: its kind is nobody's to say, its answer may be shorter."""
    return TaskFacts(
        kind="",
        batch=1,
        prompt_tokens=len(ids),
        shared_tokens=0,
        warm_tokens=0,
        answer_tokens=max_tokens,
        repetition=repetition(ids),
    )


def warmed(task: TaskFacts, tokens: int) -> TaskFacts:
    """Return the task where so many leading tokens are held already."""
    return replace(task, shared_tokens=tokens, warm_tokens=tokens)


def hardware_of(template: HardwareFacts, way: Way) -> HardwareFacts:
    """Return a machine like the template's, a stage each: strangers' machines are not measured, their steps are."""
    return replace(
        template,
        name=f"route-of-{way.stages}",
        stages=way.stages,
        rtt_s=template.rtt_s if way.rtt_s is None else way.rtt_s,
        price_per_hour=template.price_per_hour / template.stages * way.stages,
    )


def load_hardware(path: Path) -> HardwareFacts | None:
    """Read what `save_hardware` wrote; None where this machine was not measured, with a warning where it is damaged."""
    if not path.exists():
        return None
    try:
        return read_hardware(path)
    except HardwareFileError as error:
        _log.warning("hardware facts unreadable error=%s", error)
        return None


def read_hardware(path: Path) -> HardwareFacts:
    """Read what `save_hardware` wrote; raise `HardwareFileError`."""
    try:
        facts = _HARDWARE.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        said = f"{where}: {first['msg']}" if where else first["msg"]
        raise HardwareFileError(f"{path} does not hold a machine's facts ({said}); {_MEASURE}") from error
    except OSError as error:
        raise HardwareFileError(f"cannot read {path}: {error.strerror}; {_MEASURE}") from error
    wrong = [name for name in _ABOVE_0 if not 0 < getattr(facts, name) < math.inf]
    wrong += [name for name in _FROM_0 if not 0 <= getattr(facts, name) < math.inf]
    if wrong:
        raise HardwareFileError(f"{path}: {', '.join(wrong)} cannot be that of a machine; {_MEASURE}")
    return facts


def save_hardware(path: Path, facts: HardwareFacts) -> None:
    """Write a machine's facts in one move; raise `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")
    partial.replace(path)
