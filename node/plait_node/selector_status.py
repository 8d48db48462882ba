"""What `plait node status` shows of a worker's selector: the state that it writes into its home."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from plait_node.errors import ConfigError

__all__ = ["read_state", "selector_lines"]

_FILE = "state.json"  # `LiveSelector` writes it


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state, None where no worker has chosen yet; raise `ConfigError` for a file that cannot be read."""
    path = folder / _FILE
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: not readable ({error}); a running worker writes it anew with its next job"
        ) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: no JSON object; a running worker writes it anew with its next job")
    return cast("dict[str, Any]", value)


def selector_lines(state: Mapping[str, Any] | None) -> list[str]:
    """Return lines for people."""
    if state is None:
        return [f"{'selector':<11} no worker has chosen here yet"]
    drift = "drift found" if state.get("drifted") else "no drift"
    name = str(state.get("predictor", ""))[:12] or "none"
    off = f"jobs take {state.get('factor', 1.0):g} times what is predicted"
    lines = [f"{'selector':<11} predictor {name}, {state.get('observed', 0)} jobs observed, {off}, {drift}"]
    if state.get("missing"):
        lines.append(f"{'default':<11} chosen for every job: {state['missing']}")
    barred = cast("dict[str, str]", state.get("barred", {}))
    lines += [f"{'barred':<11} {method}: {reason}" for method, reason in barred.items()]
    choices = cast("list[dict[str, Any]]", state.get("choices", []))
    return [*lines, *(f"{'chosen':<11} {_choice(each)}" for each in choices)]


def _choice(told: Mapping[str, Any]) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(told.get("at", 0))))
    times = f"{_seconds(told.get('predicted_s'))} predicted, {_seconds(told.get('took_s'))} taken"
    return f"{at} {times}; {told.get('reason')}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
