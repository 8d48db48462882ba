"""Hosts with distance between them: what was asked for is there, bytes are unharmed, a cut line can be healed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from bench.swarm.hosts import Hosts, Weather, opened_hosts
from bench.swarm.namespaces import why_not
from bench.swarm.proxy import Proxies
from tests.node.bench_swarm.sides import ASKS, echo_on, heard, line_to, ping_s, running

KINDS = pytest.mark.parametrize("kind", ["proxy", "namespaces"])
CALM = Weather()
ENDED = (ConnectionError, asyncio.IncompleteReadError)
FAR = Weather(rtt_s=0.08, jitter_s=0.004)


@asynccontextmanager
async def hosts_of(kind: str, weather: Weather) -> AsyncGenerator[Hosts]:
    """Make hosts of one kind; skip, naming what is used instead, where there are no namespaces."""
    reason = await why_not(weather) if kind == "namespaces" else None
    async with opened_hosts(["a", "b"], weather, proxy=kind == "proxy") as hosts:
        if reason is not None:
            pytest.skip(f"hosts here are {hosts.how}")
        yield hosts


@KINDS
async def test_hosts_round_trip_is_what_was_asked_for(kind: str) -> None:
    async with hosts_of(kind, FAR) as hosts, echo_on(hosts, "a") as place, line_to(place) as line:
        await ping_s(line)
        trips = [await ping_s(line) for _ in range(9)]

        # A busy machine only adds to it.
        assert FAR.rtt_s - FAR.jitter_s <= min(trips) < 3 * FAR.rtt_s


@KINDS
async def test_hosts_between_two_of_them_the_round_trip_is_the_same(kind: str) -> None:
    async with (
        hosts_of(kind, FAR) as hosts,
        echo_on(hosts, "a") as (address, port),
        running(hosts, "b", ASKS, address, str(port)) as asking,
    ):
        start(asking)
        await heard(asking, deadline_s=60)
        trips = [float(await heard(asking, deadline_s=60)) for _ in range(9)]

        assert FAR.rtt_s - FAR.jitter_s <= min(trips) < 4 * FAR.rtt_s


@KINDS
async def test_hosts_bytes_arrive_unharmed_over_a_bad_line(kind: str) -> None:
    weather, sent = Weather(rtt_s=0.02, jitter_s=0.01, loss=0.01), os.urandom(300_000)
    async with hosts_of(kind, weather) as hosts, echo_on(hosts, "a") as place, line_to(place) as (reader, writer):
        writer.write(sent)
        writer.write_eof()

        assert await asyncio.wait_for(reader.read(-1), 60) == sent


@KINDS
async def test_hosts_line_carries_so_many_bytes_a_second_each_way(kind: str) -> None:
    weather, sent = Weather(bytes_s=1e6), os.urandom(250_000)
    async with hosts_of(kind, weather) as hosts, echo_on(hosts, "a") as place, line_to(place) as (reader, writer):
        began = asyncio.get_running_loop().time()
        writer.write(sent)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(-1), 60) == sent
        assert asyncio.get_running_loop().time() - began > 0.2  # there and back at once
        assert not isinstance(hosts, Proxies) or hosts.carried("a") == len(sent)


@KINDS
async def test_hosts_cut_line_lets_nothing_through_until_it_is_healed(kind: str) -> None:
    async with hosts_of(kind, CALM) as hosts, echo_on(hosts, "a") as place, line_to(place) as line:
        await ping_s(line)
        await hosts.cut("a")
        with pytest.raises(TimeoutError):
            await ping_s(line, deadline_s=0.4)
        await hosts.heal("a")

        assert await asyncio.wait_for(line[0].readexactly(1), 60) == b"."
        await ping_s(line)


@KINDS
async def test_hosts_cut_host_is_not_heard_by_those_it_called(kind: str) -> None:
    async with (
        hosts_of(kind, CALM) as hosts,
        echo_on(hosts, "a") as place,
        running(hosts, "b", ASKS, place[0], str(place[1])) as asking,
        line_to(place) as line,
    ):
        start(asking)
        await heard(asking, deadline_s=60)
        await hosts.cut("b")
        with pytest.raises(TimeoutError):
            while True:
                await heard(asking, deadline_s=0.5)
        await ping_s(line)  # nobody else is cut off
        await hosts.heal("b")

        assert float(await heard(asking, deadline_s=60)) > 0


@KINDS
async def test_hosts_new_connection_to_a_cut_host_hears_nothing(kind: str) -> None:
    async with hosts_of(kind, CALM) as hosts, echo_on(hosts, "a") as place:
        await hosts.cut("a")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), line_to(place) as line:
                await ping_s(line)
        await hosts.heal("a")
        async with line_to(place) as line:
            await ping_s(line)


def start(asking: asyncio.subprocess.Process) -> None:
    """Let an asking process begin, now that it is known where it is."""
    assert asking.stdin is not None
    asking.stdin.write(b"\n")


async def test_proxy_lost_packets_come_late_and_in_order() -> None:
    weather = Weather(rtt_s=0.01, loss=0.4)
    async with hosts_of("proxy", weather) as hosts, echo_on(hosts, "a") as place, line_to(place) as line:
        trips = [await ping_s(line) for _ in range(12)]

    assert max(trips) > 0.2 > min(trips)


async def test_proxy_before_nobody_ends_the_connection() -> None:
    async with hosts_of("proxy", CALM) as hosts, echo_on(hosts, "a") as (_, port):
        _, unused = await hosts.door("a", 1)  # nobody listens there
        async with line_to(("127.0.0.1", unused)) as (reader, _):
            with pytest.raises(ENDED):
                await asyncio.wait_for(reader.readexactly(1), 60)
        assert port != unused


async def test_proxy_has_one_door_a_port() -> None:
    async with hosts_of("proxy", CALM) as hosts:
        assert await hosts.door("a", 7_000) == await hosts.door("a", 7_000)
        assert await hosts.door("a", 7_000) != await hosts.door("b", 7_000)


async def test_proxy_closed_ends_its_connections() -> None:
    async with opened_hosts(["a"], CALM, proxy=True) as hosts, echo_on(hosts, "a") as place, line_to(place) as line:
        await ping_s(line)
        assert isinstance(hosts, Proxies)
        await hosts.close()
        with pytest.raises(ENDED):
            await ping_s(line)


async def test_hosts_say_what_they_are_and_why() -> None:
    async with opened_hosts(["a"], FAR, proxy=True) as hosts:
        assert hosts.how == (
            "a TCP proxy in this process (RTT 80 ms, jitter 4 ms, loss 0 %), no network namespaces: asked for"
        )


async def test_hosts_without_the_tools_are_proxies_and_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    async with opened_hosts(["a"], FAR) as hosts:
        assert hosts.how.endswith("ip and tc are not installed (Debian: iproute2)")


def test_weather_says_how_wide_lines_are() -> None:
    assert str(Weather(rtt_s=0.02, bytes_s=1e6)) == "RTT 20 ms, jitter 0 ms, loss 0 %, 8 Mbit/s"
    assert not Weather(bytes_s=1.0).calm


@pytest.mark.parametrize(
    "wrong",
    [{"rtt_s": -1.0}, {"rtt_s": 0.01, "jitter_s": 0.02}, {"loss": 1.0}, {"loss": -0.1}, {"bytes_s": -1.0}],
)
def test_weather_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="takes no negative time"):
        Weather(**wrong)
