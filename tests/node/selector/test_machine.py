"""A worker's machine, measured beside its work and taken up without restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tests.node.selector.made_policy import HARDWARE, MODEL, Told, asked
from tests.node.selector.test_live import running
from tests.node.worker.world import until

from plait_node.selector import LiveSelector, Trained
from plait_node.selector.errors import HardwareFileError
from plait_node.selector.facts import HardwareFacts
from plait_node.selector.machine import measure_in_background
from plait_node.selector.observe import load_hardware, read_hardware, save_hardware


def unmeasured(folder: Path, measure: Callable[[], Awaitable[HardwareFacts]]) -> LiveSelector:
    return LiveSelector(
        folder,
        model=MODEL,
        hardware=None,
        trained=Trained(predictor=Told(), digest="ab" * 32),
        clock=lambda: 1_000.0,
        measure=measure,
    )


async def test_measure_in_background_writes_this_machines_facts(tmp_path: Path) -> None:
    path = tmp_path / "selector" / "hardware.json"
    facts = await measure_in_background(path)()
    assert facts == load_hardware(path)
    assert (facts.name, facts.device, facts.threads, facts.stages) == ("one-core", "cpu", 1, 1)
    assert facts.matmul_gflops > 0


async def test_measure_in_background_that_fails_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HardwareFileError, match="ended with 1"):
        await measure_in_background(tmp_path / "file" / "hardware.json")()


async def test_live_selector_takes_up_its_machine_when_it_is_measured(tmp_path: Path) -> None:
    measured = asyncio.Event()

    async def measure() -> HardwareFacts:
        await measured.wait()
        return HARDWARE

    selector = unmeasured(tmp_path, measure)
    async with running(selector):
        before = selector.choose(asked())
        measured.set()
        await until(lambda: selector.policy.hardware is not None)
        after = selector.choose(asked())
    assert "this machine was not measured" in before.note.reason
    assert before.trial is None
    assert after.trial is not None
    assert json.loads((tmp_path / "state.json").read_text())["missing"] == ""


async def test_live_selector_goes_on_by_the_default_where_measuring_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def measure() -> HardwareFacts:
        await asyncio.sleep(0)
        raise HardwareFileError("the process that measures ended with 1")

    selector = unmeasured(tmp_path, measure)
    async with running(selector):
        await until(lambda: "machine not measured" in caplog.text)
        assert selector.choose(asked()).trial is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cores": "many"}, "cores"),
        ({"device": "abacus"}, "device"),
        ({"matmul_gflops": 0}, "matmul_gflops cannot be"),
        ({"copy_gbytes_s": float("nan")}, "copy_gbytes_s"),
        ({"rtt_s": -1}, "rtt_s cannot be"),
    ],
)
def test_hardware_file_with_impossible_facts_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "hardware.json"
    path.write_text(json.dumps({**asdict(HARDWARE), **change}))
    with pytest.raises(HardwareFileError, match=said):
        read_hardware(path)
    assert load_hardware(path) is None


def test_hardware_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hardware.json"
    assert load_hardware(path) is None
    with pytest.raises(HardwareFileError, match="No such file"):
        read_hardware(path)
    path.write_text("{")
    with pytest.raises(HardwareFileError, match="does not hold"):
        read_hardware(path)
    save_hardware(path, replace(HARDWARE, stages=2))
    assert read_hardware(path).stages == 2
