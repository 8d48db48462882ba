"""The comparison with Petals, without Petals: what its logs say, its client's lines, and how figures are made."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bench.peers import PeerError
from bench.peers import petals_swarm as swarm
from bench.peers.petals_swarm import PetalsClient, PetalsServer, Span, address_in, complaint_in, route_now
from bench.swarm.figure import Part, Setting, Values
from bench.swarm.petals import KILLS, REAL, TINY, Asked, Round, composed, questions, rate
from bench.swarm.petals_kills import Outcome, composed_kills, longest_gap

ADDRESS = "/ip4/127.0.0.1/tcp/28101/p2p/12D3KooWP44Sh8gnEkHTatxLaurTjWFWBhevLHraStcm71ZFc6x4"
SERVER = f"Nov 26 14:20:30.399 [INFO] Running a server on ['{ADDRESS}']\nNov 26 14:20:35.997 [INFO] Started\n"
ROUTE = "Nov 26 14:21:32.018 [INFO] Route found: 0:2 via …ZFc6x4 => 2:4 via …RqS1WE\n"
MENDED = "Nov 26 14:21:36.118 [INFO] Route found: 2:4 via …abCD12\n"
FIRST, SECOND = Span(first=0, last=2, peer="ZFc6x4"), Span(first=2, last=4, peer="RqS1WE")

CLIENT = """
import json, sys, time
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    ids = asked["prompt"][: asked["count"]]
    if ids == [99]:
        sys.exit(3)
    for id_ in ids:
        print(json.dumps({"token": id_}), flush=True)
    if asked["count"] > len(ids):
        time.sleep(60)
    print(json.dumps({"ids": ids, "at": [0.5] * len(ids)}), flush=True)
"""


def test_address_is_read_once_the_server_says_it() -> None:
    assert address_in(SERVER) == ADDRESS
    assert address_in("Nov 26 14:20:29.164 [INFO] This server is accessible directly") is None


def test_route_is_the_newest_one_with_its_mended_parts() -> None:
    spare = Span(first=2, last=4, peer="abCD12")

    assert route_now("nothing yet") == []
    assert route_now(ROUTE) == [FIRST, SECOND]
    assert route_now(ROUTE + MENDED) == [FIRST, spare]
    assert route_now(ROUTE + MENDED + ROUTE) == [FIRST, SECOND]
    assert route_now(ROUTE + MENDED.replace("2:4", "0:2")) == [Span(first=0, last=2, peer="abCD12"), SECOND]


def test_complaint_is_the_newest_failed_step() -> None:
    late = "14:38:15.489 [WARN] Caught exception via RemoteSpanInfo(peer_id=1) (retry in 0 sec): TimeoutError()\n"
    broken = '14:38:15.494 [WARN] Caught exception via None (retry in 16 sec): AssertionError("Broken cache: span=0")\n'

    assert complaint_in(ROUTE) == ""
    assert complaint_in(late) == "TimeoutError()"
    assert complaint_in(late + broken) == 'AssertionError("Broken cache'


@asynccontextmanager
async def child(code: str, log: Path) -> AsyncGenerator[PetalsClient]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=PIPE, stdout=PIPE)
    try:
        yield PetalsClient(process=process, log=log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_client_counts_tokens_and_keeps_its_own_clock(tmp_path: Path) -> None:
    seen: list[int] = []
    async with child(CLIENT, tmp_path / "log") as client:
        await client.ready()
        got = await client.ask([4, 5, 6], 3, on_token=seen.append)

    assert (got.ids, got.at, got.error) == ((4, 5, 6), (0.5, 0.5, 0.5), "")
    assert seen == [1, 2, 3]


async def test_client_that_takes_too_long_has_said_what_it_has(tmp_path: Path) -> None:
    async with child(CLIENT, tmp_path / "log") as client:
        await client.ready()
        got = await client.ask([4, 5], 9, limit_s=1.5)

    assert got.ids == (4, 5)
    assert len(got.at) == 2
    assert got.error == "not ended after 1.5 s"


async def test_client_that_ends_is_an_error_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("no p2pd here", encoding="utf-8")
    async with child(CLIENT, tmp_path / "log") as client:
        await client.ready()
        with pytest.raises(PeerError, match="no p2pd here"):
            await client.ask([99], 1)


async def test_server_is_up_when_its_log_says_so(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    log.write_text(SERVER, encoding="utf-8")
    async with child("input()", log) as held:
        server = PetalsServer(name="one", first=0, last=2, process=held.process, log=log)
        await server.up(5)

    assert server.address == ADDRESS


async def test_server_that_ends_before_it_is_up_is_an_error(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    log.write_text("address in use", encoding="utf-8")
    async with child("raise SystemExit(7)", log) as held:
        await held.process.wait()
        with pytest.raises(PeerError, match="ended with 7:\naddress in use"):
            await PetalsServer(name="one", first=0, last=2, process=held.process, log=log).up(5)


@pytest.mark.parametrize("part", [TINY, REAL, KILLS], ids=lambda part: part.name)
async def test_without_petals_a_part_says_what_to_run(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "INSTALLED", tmp_path / "petals.txt")
    said: list[str] = []

    found = await part.measure(Setting(folder=tmp_path, say=said.append))

    assert said == ["  not measured: run tools/petals_env.sh"]
    assert (found.ratios, found.details) == ({}, {"not_measured": "run tools/petals_env.sh"})


def test_rate_is_of_tokens_after_the_first() -> None:
    assert rate([(0.5, 1), (0.6, 3), (1.0, 11)]) == 20.0
    assert rate([(0.5, 1)]) == rate([]) == 0.0


def test_all_are_asked_the_same() -> None:
    small = questions("random-llama-14m", 3)

    assert small == questions("random-llama-14m", 3)
    assert len(set(small)) == 3
    assert all(0 < int(word[1:]) < 1_024 for text in small for word in text.split())
    assert len(set(questions("smollm2-135m-fp32", 3))) == 3


def turns(way: str, text: str, *, petals: list[float], ours: list[float]) -> Round:
    asked = Asked(methods={"plain"})
    for repeat in range(3):
        asked.note("petals", repeat, f"w{repeat} w2", [(0.1, 1), (0.2, 2)])
        asked.note(way, repeat, text.format(repeat), [(0.3, 1), (0.4, 2)])
    values = {"petals": Values(values=petals, load=[0.1, 0.2]), way: Values(values=ours, load=[0.1, 0.2])}
    return Round(way=way, values=values, asked=asked)


def test_figure_divides_medians_and_compares_tokens() -> None:
    compiled = turns("plait", "w{} w2", petals=[40.0, 44.0], ours=[120.0, 140.0])
    torch = turns("plait_without_compiler", "w1 w2", petals=[40.0, 40.0], ours=[60.0, 60.0])

    found = composed([compiled, torch], ratio="decode_vs_petals")

    assert found.ratios == {
        "decode_vs_petals": pytest.approx(130 / 42),
        "decode_vs_petals_same_tokens": 1.0,
        "decode_vs_petals_without_compiler": 1.5,
        "decode_vs_petals_same_tokens_without_compiler": pytest.approx(1 / 3),
    }
    assert found.details["plait"]["plait"]["ms_a_token"] == pytest.approx(7.692)
    assert found.details["plait"]["plait"]["first_token_s"] == 0.3
    assert found.details["plait"]["petals"]["first_token_s"] == 0.1
    assert found.details["plait_without_compiler"]["same_tokens"] == "1 of 3"


def test_as_much_text_in_another_number_of_tokens_is_not_the_same() -> None:
    asked = Asked()
    asked.note("petals", 0, "w1 w2", [(0.1, 1), (0.2, 2)])
    asked.note("plait", 0, "w1 w2", [(0.1, 1), (0.2, 3)])

    assert asked.same("plait", "petals") == (0, 1)


def test_kills_count_answers_that_are_whole_and_unchanged() -> None:
    def outcome(side: str, pause_s: float, *, completed: bool = True, same: bool = True) -> Outcome:
        return Outcome(side=side, half="first half", pause_s=pause_s, tokens=96, completed=completed, same=same)

    found = composed_kills(
        [
            outcome("plait", 0.4),
            outcome("plait", 0.7),
            outcome("petals", 3.0, same=False),
            outcome("petals", 240.0, completed=False),
        ]
    )

    assert found.ratios == {
        "petals_kills_plait_pause_s": 0.7,
        "petals_kills_plait_same_tokens": 1.0,
        "petals_kills_petals_pause_s": 240.0,
        "petals_kills_petals_same_tokens": 0.0,
    }
    assert [each["completed"] for each in found.details["petals"]] == [True, False]


def test_longest_gap_is_between_neighbours() -> None:
    assert longest_gap([0.1, 0.2, 1.7, 1.8]) == pytest.approx(1.5)
    assert longest_gap([0.1]) == longest_gap([]) == 0.0
