"""`plait deploy` as far as it needs no chain: arguments, bounds, keys, words."""

from __future__ import annotations

from pathlib import Path

import pytest

from plait.chain import Parameters
from plait.chain.plan import ExternalToken, plan_of
from plait.chain.simulate import Made
from plait.cli import main as program
from plait.cli.deploy_text import Preview
from plait.protocol.ids import Address
from plait.protocol.typed import Key

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the settings of who runs the tests out of them; one line a message, however narrow the terminal is."""
    for name in ("PLAIT_KEY", "PLAIT_RPC", "PLAIT_DEPLOYMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text(Key.generate().secret_hex() + "\n")
    return tmp_path / "key"


def status_of(*words: object) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        program(["deploy", *map(str, words)])
    return ended.value.code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--min-stake", 0), "--min-stake"),
        (("--tier-unit", 0), "--tier-unit"),
        (("--epoch-length", 0), "--epoch-length"),
        (("--exit-delay", 2_592_001), "--exit-delay"),
        (("--fee-bps", 1_001), "--fee-bps"),
        (("--fee-bps", "much"), "--fee-bps"),
        (("--unbonding-delay", 43_199), "unbondingDelay (43199) is at least twice epochLength (21600)"),
        (("--unbonding-delay", 31_536_001), "--unbonding-delay"),
        (("--arbiter", "0x12"), "--arbiter"),
        (("--token", "token"), "--token"),
        (("--erc8004-feedback", "0x"), "--erc8004-feedback"),
        (("--surprise",), "--surprise"),
    ],
    ids=str,
)
def test_deploy_given_value_out_of_bounds_names_its_option_and_exits_two(
    words: tuple[object, ...], said: str, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of("--rpc", NOWHERE, "--key-file", key_file, *words) == 2

    assert said in capsys.readouterr().err


def test_deploy_without_endpoint_or_key_exits_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of() == 2
    assert "--rpc" in capsys.readouterr().err
    assert status_of("--rpc", NOWHERE) == 2
    assert "set PLAIT_KEY" in capsys.readouterr().err
    assert status_of("--rpc", NOWHERE, "--key-file", "/no/such/file") == 2
    assert "does not exist" in capsys.readouterr().err


def test_deploy_given_key_that_is_none_exits_two_and_does_not_show_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("secret words")

    assert status_of("--rpc", NOWHERE, "--key-file", tmp_path / "key") == 2

    said = capsys.readouterr().err
    assert "64 hex digits" in said
    assert "secret words" not in said


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--check",)])
def test_deploy_given_endpoint_that_is_down_exits_one(
    more: tuple[str, ...], key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of("--rpc", NOWHERE, "--key-file", key_file, *more) == 1

    assert "plait: no answer to eth_chainId" in capsys.readouterr().err


def test_deploy_takes_the_key_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAIT_KEY", Key.generate().secret_hex())

    assert status_of("--rpc", NOWHERE) == 1  # the endpoint is down; the key is there

    assert "no answer" in capsys.readouterr().err


def preview(*, token: ExternalToken | None = None, code: bytes | None = b"code", landed: int = 0) -> Preview:
    plan = plan_of(chain_id=1, deployer=Address(b"d" * 20), nonce=5, parameters=Parameters(), token=token)
    made = tuple(Made(gas=100, code=code) for _ in plan.steps)
    return Preview(plan=plan, made=made, balance=10**18, base_fee=10**9, landed=landed)


def test_preview_says_arguments_in_words() -> None:
    token = ExternalToken(address=Address(b"t" * 20), decimals=2, proxy=False)

    said = "\n".join(preview(token=token).lines())

    assert "none: nobody may jail, slash or forfeit" in said
    assert "100,000,000 base units = 1,000,000 tokens" in said
    assert "604,800 s = 7 days" in said
    assert "86,400 s = 1 day" in said
    assert "100 = 1 % of each claim" in said
    assert "(Requests)" in said
    assert "note" not in said


def test_preview_of_what_is_left_counts_only_that() -> None:
    found = preview(landed=4)

    assert found.gas == 200
    assert found.cost == 200 * 10**9
    assert [each["sentBefore"] for each in found.to_dict()["contracts"]] == [True] * 4 + [False] * 2


def test_preview_warns_of_what_a_deployer_should_know() -> None:
    proxy = ExternalToken(address=Address(b"t" * 20), decimals=6, proxy=True)

    assert any("worth nothing" in each for each in preview().warnings())
    assert any("proxy" in each for each in preview(token=proxy).warnings())
    assert any("cannot simulate" in each for each in preview(code=None).warnings())
    assert "about 600 in all" in "\n".join(preview(code=None).lines())
    assert preview(code=None).to_dict()["gasIs"] == "guessed"
