"""What `plait node status` shows of a worker's selector: the state that it writes into its home."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from plait_node.errors import ConfigError
from plait_node.selector.errors import PinError
from plait_node.selector.pin import PIN, read_pin

__all__ = ["read_local", "selector_lines"]

_FILE = "state.json"  # `LiveSelector` writes it


def read_local(folder: Path) -> dict[str, Any]:
    """Return the worker's state under "selector", None where no worker has chosen yet, and the operator's under "pin".

    A pin is None where there is none, {"damaged": why} where it is ignored. Raise `ConfigError` for a state that cannot
    be read.
    """
    try:
        pinned = read_pin(folder / PIN)
    except PinError as error:
        return {"selector": _state(folder), "pin": {"damaged": str(error)}}
    pin = None if pinned is None else {"method": pinned.method, "amounts": pinned.amounts}
    return {"selector": _state(folder), "pin": pin}


def _state(folder: Path) -> dict[str, Any] | None:
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


def selector_lines(local: Mapping[str, Any]) -> list[str]:
    """Return lines for people."""
    return [*_pin_lines(local["pin"]), *_state_lines(local["selector"])]


def _pin_lines(pin: Mapping[str, Any] | None) -> list[str]:
    if pin is None:
        return []
    if "damaged" in pin:
        return [f"{'pinned':<11} nothing: {pin['damaged']}"]
    amounts = "".join(f", {name} {amount}" for name, amount in pin["amounts"].items())
    return [f"{'pinned':<11} {pin['method']}{amounts}, by the operator"]


def _state_lines(state: Mapping[str, Any] | None) -> list[str]:
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
