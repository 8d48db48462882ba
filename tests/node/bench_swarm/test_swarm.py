"""The bench's own parts: stages in processes answer, what they count is told, ratios come from medians."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bench.swarm.__main__ import measured
from bench.swarm.child import ChildError, started
from bench.swarm.engines import COPYING, SLOW_LINKS, SMOLLM2
from bench.swarm.failover import struck
from bench.swarm.figure import Bar, Found, Part, Setting, interleaved
from bench.swarm.hosts import Weather, opened_hosts
from bench.swarm.network import Swarm, host_name, swarm
from bench.swarm.parties import owner
from bench.swarm.parts import PARTS
from bench.swarm.proxy import Proxies

from plait.protocol.manifest import FP32_STRICT

pytestmark = pytest.mark.timeout(600)  # two processes read a model and compile

FAR = Weather(rtt_s=0.02)
log = logging.getLogger(__name__)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Swarm]:
    folder = tmp_path_factory.mktemp("two")
    async with (
        opened_hosts(["stage-1", "stage-2"], FAR, proxy=True) as hosts,
        swarm(folder, COPYING, (0, 4, 8), hosts=hosts) as made,
    ):
        yield made


async def test_swarm_of_processes_answers_prompt_and_frames(two: Swarm) -> None:
    whole = await two.worker.answer(range(5, 45), 20)
    frames = await two.worker.answer(range(5, 45), 20, chunk=16)

    assert whole.ids == frames.ids == tuple(range(45, 65))
    assert 0 < whole.first_s < whole.seconds


async def test_swarm_stages_count_their_passes_and_rows(two: Swarm) -> None:
    before = await two.loads()
    await two.worker.answer([7] * 32, 9)
    used = await two.usage_since(before)

    rows = 32 + 8  # the last id's row is not computed
    assert [round(usage.passes * usage.rows_a_pass) for usage in used] == [rows, rows]
    assert all(0 < usage.busy < 1 and usage.cpu > 0 for usage in used)


async def test_swarm_takes_jobs_together(two: Swarm) -> None:
    assert await two.together([[job] * 4 for job in range(1, 6)], 12) > 0


async def test_swarm_on_hosts_is_as_far_away_as_they_are(two: Swarm) -> None:
    took = await two.worker.answer([1, 2, 3], 6)

    assert took.ids == (4, 5, 6, 7, 8, 9)
    assert took.step_s > 1.4 * FAR.rtt_s  # worker to first, first to second, second to worker


async def test_swarm_under_another_profile_sends_prompts_in_fewer_bytes(tmp_path: Path) -> None:
    prompt, carried = list(range(5, 105)), []
    for profile in (FP32_STRICT, SLOW_LINKS[0]):
        async with (
            opened_hosts(["stage-1", "stage-2"], Weather(), proxy=True) as hosts,
            swarm(tmp_path / profile.name, COPYING, (0, 4, 8), hosts=hosts, profile=profile) as over,
        ):
            assert isinstance(hosts, Proxies)
            assert (await over.worker.answer(prompt, 3)).ids == (
                105,
                106,
                107,
            )  # whole numbers below 256 are bf16's own
            carried.append(hosts.carried("stage-2"))

    assert 0.5 < carried[1] / carried[0] < 0.6


async def test_swarm_frozen_stage_holds_its_answer_until_it_goes_on(two: Swarm) -> None:
    two.stages[1].freeze()
    answer = asyncio.create_task(two.worker.answer([30], 4))
    done, _ = await asyncio.wait([answer], timeout=0.6)
    two.stages[1].thaw()

    assert not done
    assert (await asyncio.wait_for(answer, 60)).ids == (31, 32, 33, 34)


async def test_swarm_stage_cut_off_inside_an_answer_is_replaced_and_no_token_changes(tmp_path: Path) -> None:
    prompt, tokens, attempt = list(range(5, 45)), 120, 1
    async with (
        opened_hosts([host_name(number) for number in range(1, 5)], Weather()) as hosts,
        swarm(tmp_path, SMOLLM2, (0, 15, 30), holders=2, hosts=hosts) as over,
    ):
        log.info("hosts: %s", hosts.how)
        while attempt == 1:  # until the answer takes the route of the one before; the test's timeout ends it
            quiet = await over.worker.disturbed(prompt, tokens)
            victim = quiet.job.message.route[1].node
            at = next(place for place, spec in enumerate(over.specs) if owner(spec.number) == victim)
            answering = asyncio.create_task(over.worker.disturbed(prompt, tokens))
            await asyncio.sleep(0.4)
            async with struck(over, at, "cut"), asyncio.timeout(90):
                done = await answering
            assert done.ids == quiet.ids
            attempt = done.job.message.attempt
        assert victim not in [stage.node for stage in done.job.message.route]


async def test_child_that_fails_is_an_error_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match=r"(?s)nobody ended\n.*No such file"):
        await started("json.tool", {}, name="nobody", logs=tmp_path)


async def test_interleaved_takes_turns_and_leaves_the_first_out() -> None:
    turns: list[tuple[str, int]] = []

    def way(name: str) -> Callable[[int], Awaitable[float]]:
        async def measure(repeat: int) -> float:
            turns.append((name, repeat))
            return 100.0 if repeat == 0 else float(repeat)

        return measure

    found = await interleaved({"x": way("x"), "y": way("y")}, repeats=3, pause_s=0)

    assert turns == [(name, repeat) for repeat in range(4) for name in "xy"]
    assert found["x"].values == [1.0, 2.0, 3.0]
    assert found["y"].median == 2.0
    assert len(found["x"].load) == 3


@pytest.mark.parametrize(("bar", "value", "passed"), [(Bar(bound=2), 2, True), (Bar(bound=2), 1.9, False)])
def test_bar_at_least(*, bar: Bar, value: float, passed: bool) -> None:
    assert bar.passed(value) is passed
    assert Bar(bound=bar.bound, at_most=True).passed(value) is True


async def test_bench_part_that_fails_is_named_and_the_others_count(tmp_path: Path) -> None:
    async def fails(_: Setting) -> Found:
        raise ChildError("stage-1 ended")

    async def works(setting: Setting) -> Found:
        assert setting.folder == tmp_path / "works"
        return Found(ratios={"gain": 1.23456}, details={"unit": "s"})

    said: list[str] = []
    parts = [
        Part(name="fails", bars={}, measure=fails),
        Part(name="works", bars={"gain": Bar(bound=1.5)}, measure=works),
    ]
    found: dict[str, Any] = {"ratios": {}, "parts": {}}
    failed = await measured(parts, Setting(folder=tmp_path, say=said.append), found)

    assert failed == ["fails"]
    assert found["ratios"] == {"gain": 1.2346}
    assert found["parts"]["fails"] == {"failed": "ChildError: stage-1 ended"}
    assert any("gain" in line and "MISSED" in line for line in said)
    assert "namespaces" in found["hosts"]
    assert json.dumps(found)


def test_bench_parts_and_their_ratios_have_names_of_their_own() -> None:
    assert len({part.name for part in PARTS}) == len(PARTS)
    bars = [name for part in PARTS for name in part.bars]
    assert len(set(bars)) == len(bars)
