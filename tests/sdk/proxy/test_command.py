"""`plait proxy`: its options, how it starts, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import httpx
import pytest
from tests.sdk.client.fakes import World
from tests.sdk.client.test_ask import TOKENS, price
from tests.sdk.proxy.stand import BODY

from plait.cli import main as program
from plait.cli import proxy as command
from plait.cli.program import MissingExtraError
from plait.client import AsyncPlait
from plait.proxy import Access, Limits

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PLAIT_KEY", "PLAIT_RPC", "PLAIT_DEPLOYMENT", "PLAIT_PROXY_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def status_of(*words: object) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        program(["proxy", *map(str, words)])
    return ended.value.code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-total", -1), "--max-total"),
        (("--max-per-request", "much"), "--max-per-request"),
        (("--port", 70_000), "--port"),
        (("--host", "0.0.0.0"), "set --api-key"),  # noqa: S104 - refused, is the point
        (("--host", "box.lan"), "set --api-key"),
        (("--surprise",), "--surprise"),
    ],
    ids=str,
)
def test_proxy_given_value_out_of_bounds_names_its_option_and_exits_two(
    words: tuple[object, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(*words) == 2
    assert said in capsys.readouterr().err


def test_proxy_without_a_chain_says_what_to_pass_and_exits_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of() == 1
    assert "PLAIT_RPC" in capsys.readouterr().err


def test_proxy_without_a_key_says_what_to_pass_and_exits_one(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--rpc", "http://127.0.0.1:1", "--deployment", world.deployment) == 1
    assert "PLAIT_KEY" in capsys.readouterr().err


def test_proxy_with_a_chain_that_is_away_exits_one(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text(world.key.secret_hex())
    words = ("--rpc", "http://127.0.0.1:1", "--deployment", world.deployment, "--key-file", tmp_path / "key")
    assert status_of(*words, "--port", 0) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_proxy_missing_library_names_the_extra_that_has_it() -> None:
    assert "pip install 'plait[web]'" in MissingExtraError("proxy", "starlette").text


def test_proxy_page_names_only_options_that_exist() -> None:
    named = set(re.findall(r"--[a-z][a-z-]+", (DOCS / "proxy.md").read_text()))

    assert named <= set(re.findall(r"--[a-z-]+", (DOCS / "cli" / "proxy.md").read_text()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_proxy_told_to_end_says_what_was_spent(
    world: World, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    options = command._Options(
        make=lambda: AsyncPlait(**world.arguments()),
        limits=Limits(per_request=10_000, total=20_000),
        access=Access(),
        host="127.0.0.1",
        port=0,
    )
    running = asyncio.create_task(command._run(options))
    said = ""
    async with asyncio.timeout(60):
        while "for one request" not in said:
            await asyncio.sleep(0.02)
            said += capsys.readouterr().out
        url = next(word for word in said.split() if word.startswith("http://"))
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            assert (await http.post("/chat/completions", json=BODY)).status_code == 200
        os.kill(os.getpid(), number)
        await running
    assert "it may spend 20000 base units, 10000 for one request" in said
    assert f"1 requests cost {price(TOKENS)} base units" in capsys.readouterr().out
    assert world.edge.closed
