"""What `plait node status` shows of a node that runs here: the page of numbers that it writes into its home."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from prometheus_client.parser import text_string_to_metric_families

from plait_node.errors import ConfigError

__all__ = ["node_lines", "read_numbers"]

_MIB: Final = 1 << 20


def read_numbers(file: Path) -> list[dict[str, Any]] | None:
    """Return the node's numbers as {"name", "value", and its labels}, None where it has written none.

    Raise `ConfigError` for a page that cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
        families = list(text_string_to_metric_families(text))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: not readable ({error}); a running node writes it anew every 5 s") from error
    return [
        {"name": sample.name, "value": sample.value, **sample.labels}
        for family in families
        for sample in family.samples
    ]


def node_lines(process: Mapping[str, Any] | None, numbers: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """Return lines for people."""
    state = f"{process['state']}, process {process['pid']}" if process is not None else "does not run"
    told = numbers or ()
    return [f"{'node':<11} {state}", *_stage_lines(told), *_swarm_lines(told), *_dropped_lines(told)]


def _stage_lines(numbers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    found = {each["name"]: cast("float", each["value"]) for each in numbers}
    if "plait_stage_rows_bytes" in found:
        jobs, steps = found["plait_stage_open_jobs"], found["plait_stage_free_steps"]
        rows, most = found["plait_stage_rows_bytes"] / _MIB, found["plait_stage_rows_limit_bytes"] / _MIB
        yield f"{'jobs':<11} {jobs:.0f} open, room for {steps:.0f} steps"
        yield f"{'rows':<11} {rows:.1f} of {most:g} MiB reserved for rows that may be sent again"
    if passes := found.get("plait_stage_pass_rows_count"):
        busy, over = found["plait_stage_pass_seconds_sum"], found["plait_stage_serving_seconds"]
        rows = found["plait_stage_pass_rows_sum"] / passes
        yield f"{'busy':<11} {busy / over:.0%} of {over:.0f} s in {passes:.0f} passes of {rows:.1f} rows"


def _swarm_lines(numbers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    swarms: dict[tuple[str, str], dict[str, float]] = {}
    for each in numbers:
        if each["name"].startswith("plait_swarm_"):
            swarms.setdefault((each["model"], each["profile"]), {})[each["name"].removeprefix("plait_swarm_")] = each[
                "value"
            ]
    for (model, profile), found in swarms.items():
        yield (
            f"{'swarm':<11} of {model[:10]} {profile}: blocks {found['bottleneck_first_block']:.0f} to "
            f"{found['bottleneck_last_block']:.0f} are the weakest with {found['bottleneck_steps_s']:.3g} steps a "
            f"second, whole routes make {found['routed_steps_s']:.3g}"
        )


def _dropped_lines(numbers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    found = [each for each in numbers if each["name"] == "plait_records_dropped_total"]
    if found:
        listed = ", ".join(f"{each['value']:.0f} {each['reason']}" for each in found)
        yield f"{'dropped':<11} records and answers of peers: {listed}"
