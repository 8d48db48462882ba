"""The settings that are measured: how a route lies over machines, and what it costs by the hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from plait_node.engine.lane import Device
from plait_node.engine.native.build import find_compiler
from plait_node.engine.probe import chip, copy_gbytes_s, matmul_gflops, memory_gbytes
from plait_node.selector.errors import UnknownSettingError
from plait_node.selector.facts import HardwareFacts

__all__ = ["PRICES", "SETTINGS", "Setting", "hardware_facts"]

# US dollars an hour: a core of a small rented machine, and a rented H200 (the order of public price lists, 2026).
PRICES: Final[Mapping[Device, float]] = {"cpu": 0.02, "cuda": 3.50}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Stages that run one after the other, each with `threads`; links cost time on the clock, see `LocalLink`."""

    name: str
    device: Device = "cpu"
    threads: int = 1
    stages: int = 1
    rtt_s: float = 0.0
    bytes_s: float = 0.0


SETTINGS: Final[Mapping[str, Setting]] = {
    setting.name: setting
    for setting in (
        Setting(name="one-core"),
        Setting(name="two-cores", threads=2),
        Setting(name="lan-3-stages", stages=3, rtt_s=0.001, bytes_s=125e6),
        Setting(name="wan-2-stages", stages=2, rtt_s=0.040, bytes_s=2.5e6),
        Setting(name="gpu", device="cuda"),
        Setting(name="gpu-2-stages", device="cuda", stages=2, rtt_s=0.010, bytes_s=12.5e6),
    )
}


def hardware_facts(name: str, *, cores: int) -> HardwareFacts:
    """Measure the machine and return a setting's facts; `cores` are those that this process may use.

    Raise `UnknownSettingError`.
    """
    setting = SETTINGS.get(name)
    if setting is None:
        raise UnknownSettingError(f"there is no setting {name[:64]!r}, only {', '.join(SETTINGS)}")
    on_cpu = setting.device == "cpu"
    return HardwareFacts(
        name=name,
        device=setting.device,
        chip=chip(setting.device),
        cores=cores,
        threads=setting.threads,
        stages=setting.stages,
        rtt_s=setting.rtt_s,
        bytes_s=setting.bytes_s,
        matmul_gflops=round(matmul_gflops(setting.device, setting.threads), 1),
        copy_gbytes_s=round(copy_gbytes_s(setting.device, setting.threads), 1),
        memory_gbytes=round(memory_gbytes(setting.device), 1),
        compiler=find_compiler() is not None if on_cpu else True,
        price_per_hour=PRICES[setting.device] * setting.stages * (setting.threads if on_cpu else 1),
    )
