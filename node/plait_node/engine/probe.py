"""What a machine can do, measured: products, copies, memory held, energy used."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from plait_node.engine.lane import Device

__all__ = ["chip", "copy_gbytes_s", "energy_j", "held_bytes", "matmul_gflops", "memory_gbytes", "peak_bytes"]

_TRIES: Final = 5
_RAPL: Final = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")


def matmul_gflops(device: Device, threads: int) -> float:
    """Return 10^9 fp32 operations a second of a prompt-sized product, the best of a few tries."""
    torch.set_num_threads(threads)
    left, right = torch.randn(256, 1_024, device=device), torch.randn(1_024, 1_024, device=device)
    took = _best_s(lambda: torch.mm(left, right), device)
    return 2 * 256 * 1_024 * 1_024 / took / 1e9


def copy_gbytes_s(device: Device, threads: int) -> float:
    """Return 10^9 bytes read and written a second by copying what no cache holds, the best of a few tries."""
    torch.set_num_threads(threads)
    source = torch.ones(1 << 26, device=device)
    target = torch.empty_like(source)
    took = _best_s(lambda: target.copy_(source), device)
    return 2 * source.numel() * source.element_size() / took / 1e9


def chip(device: Device) -> str:
    """Return the processor's name."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def memory_gbytes(device: Device) -> float:
    """Return 10^9 bytes of memory that the device has."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1] / 1e9
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def held_bytes(device: Device) -> int:
    """Return what this process holds now, and let `peak_bytes` count from here."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):  # a system without it counts the peak from the process's start
        _CLEAR.write_text("5", encoding="utf-8")
    return _status("VmRSS")


def peak_bytes(device: Device) -> int:
    """Return the most that this process held since `held_bytes`."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")


def energy_j(device: Device) -> float | None:
    """Return a counter of joules used, None where the machine does not tell."""
    if device == "cuda":
        return _nvml_energy_j()
    try:
        return int(_RAPL.read_text(encoding="utf-8")) / 1e6
    except (OSError, ValueError):
        return None


def _nvml_energy_j() -> float | None:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle, used = ctypes.c_void_p(), ctypes.c_ulonglong()
    failed = (
        nvml.nvmlInit_v2()
        or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle))
        or nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(used))
    )
    return None if failed else used.value / 1e3


def _status(word: str) -> int:
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(word + ":"):
            return int(line.split()[1]) * 1_024
    return 0


def _best_s(work: Callable[[], object], device: Device) -> float:
    times: list[float] = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)
