"""The measured history: which method took how long, on which task, on which machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from plait_node.selector.errors import HistoryError

__all__ = ["METHODS", "History", "Measurement", "Method"]

Method = Literal["plain", "prefix-cache", "chunked-prefill"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)

VERSION: Final = 1
_SHIPPED: Final = "two-core-cpu.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One cell of the grid; times in seconds, medians over `repeats` with the middle half's range beside."""

    model: str
    stages: int
    method: Method
    chunk: int  # rows of a chunk, 0 where the method has none
    prompt_tokens: int
    cached_tokens: int  # of the prompt, in whole windows; 0 without a prefix cache
    repeats: int
    ttft_s: float
    ttft_low_s: float
    ttft_high_s: float
    tpot_s: float
    wall_s: float  # what the first token really took on the machine that measured, beside whatever else it did
    load: float  # runnable processes of that machine meanwhile, ours included

    @property
    def computed_tokens(self) -> int:
        """Return the rows that were computed before the first token."""
        return self.prompt_tokens - self.cached_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Measurements of one machine, with what it is and the command that made them."""

    command: str
    machine: Mapping[str, str | int]
    measurements: tuple[Measurement, ...]

    @classmethod
    def shipped(cls) -> History:
        """Return the history that comes with the package."""
        return cls.parse((resources.files("plait_node.selector") / "history" / _SHIPPED).read_bytes())

    @classmethod
    def load(cls, path: Path) -> History:
        """Read a history; raise `HistoryError`."""
        try:
            return cls.parse(path.read_bytes())
        except OSError as error:
            raise HistoryError(
                f"cannot read {path}: {error.strerror}; measure with plait_node.selector.measure"
            ) from error

    @classmethod
    def parse(cls, content: bytes) -> History:
        """Read a history's JSON; raise `HistoryError`."""
        try:
            value = cast("dict[str, Any]", json.loads(content))
            if value["version"] != VERSION:
                raise HistoryError(f"the history has version {value['version']}, not {VERSION}; measure anew")
            rows = cast("Sequence[dict[str, Any]]", value["measurements"])
            made = cls(
                command=str(value["command"]),
                machine=dict(value["machine"]),
                measurements=tuple(Measurement(**row) for row in rows),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise HistoryError(f"the history is damaged ({error}); measure anew") from error
        unknown = {row.method for row in made.measurements} - set(METHODS)
        if unknown or not made.measurements:
            raise HistoryError(f"the history is empty or names unknown methods {sorted(unknown)}; measure anew")
        return made

    def save(self, path: Path) -> None:
        """Write the history as JSON, one measurement a line."""
        rows = ",\n  ".join(json.dumps(asdict(row)) for row in self.measurements)
        head = json.dumps({"version": VERSION, "command": self.command, "machine": dict(self.machine)}, indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{head[:-2]},\n "measurements": [\n  {rows}\n ]\n}}\n', encoding="utf-8")
