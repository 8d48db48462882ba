"""The link that `LocalRoute` counts between its engines: rows in their codec's numbers, seconds added and not slept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from plait_node.engine.errors import EngineError
from plait_node.engine.faces import Rows, StepInput, StepOutput
from plait_node.engine.stage_engine import StageEngine

__all__ = ["LocalLink", "Ring"]

_ID_BYTES: Final = 4  # of a token, as on the wire


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLink:
    """What lies between neighbours of the ring driver, stages, driver; negative or endless values are refused."""

    rtt_s: float = 0.0  # there and back
    bytes_s: float = 0.0  # each way; 0: no limit

    def __post_init__(self) -> None:
        for name, value in (("rtt_s", self.rtt_s), ("bytes_s", self.bytes_s)):
            if not 0 <= value < math.inf:
                raise ValueError(f"a link's {name} is {value}; give 0 or a finite number above it")


class Ring:
    """Takes passes from the driver through all engines and back; `waited_s` is what all hops so far would have taken.

    One pass after the other: nothing is on a link while anything else is, or while an engine computes.
    """

    def __init__(self, engines: Sequence[StageEngine], link: LocalLink, clock: Callable[[], float]) -> None:
        """Raise `ValueError` unless the engines follow each other from block 0 to the last of one model."""
        _check_route(engines)
        self.engines = engines
        self.waited_s = 0.0
        self._link = link
        self._clock = clock
        if len(engines) > 1:
            _codecs()  # loads them here, and not within a pass that somebody times

    def now(self) -> float:
        """Return the clock's seconds and those that were not slept."""
        return self._clock() + self.waited_s

    def carry(self, inputs: Sequence[StepInput], codecs: Sequence[str]) -> list[StepOutput]:
        """Take one pass's rows through all engines, between them in one codec each; raise the first error of any.

        Raises:
            EngineError: what computing raised.
            TensorError: rows that their codec cannot carry.
        """
        self._hop(_ID_BYTES * sum(len(asked.rows) for asked in inputs))
        outputs = _step(self.engines[0], inputs)
        for engine in self.engines[1:]:
            sent = [_sent(output.rows, codec) for output, codec in zip(outputs, codecs, strict=True)]
            self._hop(sum(size for _, size in sent))
            given = [replace(asked, rows=rows) for asked, (rows, _) in zip(inputs, sent, strict=True)]
            outputs = _step(engine, given)
        return outputs

    def give_back(self, tokens: int) -> float:
        """Take a pass's drawn tokens from the last engine to the driver; return the seconds of that."""
        return self._hop(_ID_BYTES * tokens)

    def _hop(self, size: int) -> float:
        took = self._link.rtt_s / 2 + (size / self._link.bytes_s if self._link.bytes_s else 0.0)
        self.waited_s += took
        return took


def _check_route(engines: Sequence[StageEngine]) -> None:
    models = {engine.manifest.model_id for engine in engines}
    ends = [0, *(engine.last for engine in engines)]
    starts = [*(engine.first for engine in engines), engines[0].manifest.blocks if engines else 0]
    if len(models) != 1 or ends != starts:
        ranges = ", ".join(f"[{engine.first}, {engine.last})" for engine in engines)
        raise ValueError(f"blocks {ranges} of {len(models)} models are no route; give one model's blocks 0 to the last")


def _step(engine: StageEngine, inputs: Sequence[StepInput]) -> list[StepOutput]:
    outputs: list[StepOutput] = []
    for output in engine.step(inputs):
        if isinstance(output, EngineError):
            raise output
        outputs.append(output)
    return outputs


def _sent(rows: Rows, codec: str) -> tuple[Rows, int]:
    """Return the rows as the next engine reads them, and their bytes; fp32 needs no encoding to be the same rows."""
    if codec == "fp32":
        return rows, rows.nbytes
    encode_rows, decode_rows = _codecs()
    count, width = rows.shape
    data = encode_rows(rows, codec=codec)
    return decode_rows(data, codec=codec, count=count, width=width, limit=0), len(data)


def _codecs() -> tuple[Callable[..., bytes], Callable[..., Rows]]:
    """Return the wire's `encode_rows` and `decode_rows`."""
    from plait_node.wire import decode_rows, encode_rows  # noqa: PLC0415 -- brings grpc and TLS; one engine needs none

    return encode_rows, decode_rows
