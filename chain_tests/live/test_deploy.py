"""`plait deploy` on anvil: what it says it would do, what it does, and how it goes on after it was stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chain_tests.anvil import Anvil, LocalChain
from chain_tests.channel_cases import eventually
from chain_tests.live.shell import Shell

from plait import Plait
from plait.chain import LOCAL, ChainReader, Deployment, DeploymentError, Lane, Rpc, WrongCodeError
from plait.chain.deploy import carry_out, find_token, prepare
from plait.chain.deployments import Placed
from plait.chain.draft import Draft, Journal
from plait.chain.plan import contract_address
from plait.cli import main as program
from plait.protocol.ids import Address, keccak, to_hex
from plait.protocol.typed import Key

CONTRACTS = ["Token", "ModelRegistry", "NodeRegistry", "Channels", "Requests", "Reputation"]
START = "from plait.cli import main; main()"
PROXY_SLOT = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc"


@pytest.fixture
def shell(
    chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLAIT_KEY", raising=False)
    made = Shell(tmp_path, capsys)
    chain.anvil.fund(made.key.address)
    return made


def test_dry_run_sends_nothing_and_says_what_the_real_run_does(chain: LocalChain, shell: Shell) -> None:
    said = shell.says(chain.url, "--dry-run")

    assert said["dryRun"]
    assert chain.anvil.sent(shell.key.address) == 0
    assert not (shell.folder / "deployments").exists()

    done = shell.says(chain.url)

    assert done["contracts"] == said["contracts"]
    assert [each["contract"] for each in done["landed"]] == CONTRACTS
    assert [each["address"] for each in done["landed"]] == [each["address"] for each in said["contracts"]]
    assert [each["gasUsed"] for each in done["landed"]] == [each["gas"] for each in said["contracts"]]
    assert sum(each["gasUsed"] for each in done["landed"]) == said["gas"]
    codes = [bytes.fromhex(chain.anvil.rpc("eth_getCode", each["address"], "latest")[2:]) for each in said["contracts"]]
    assert [len(code) for code in codes] == [each["codeBytes"] for each in said["contracts"]]
    found = Deployment.load(shell.out)
    assert [found.contracts[name].code_hash for name in CONTRACTS] == [keccak(code) for code in codes]
    assert found.block == done["landed"][0]["block"]
    assert not shell.draft.exists()
    assert chain.anvil.sent(shell.key.address) == 6


def test_deployment_serves_clients_at_once(chain: LocalChain, shell: Shell) -> None:
    status, said = shell.runs(chain.url, "--fee-bps", 50, "--min-stake", 7)

    assert status == 0, said
    assert "worth nothing" in said
    assert "wrote deployments/31337.json" in said

    async def ask() -> tuple[int, int]:
        async with await ChainReader.connect(chain.url, Deployment.load(shell.out)) as reader:
            return (await reader.view("Channels", "feeBps"))[0], (await reader.view("NodeRegistry", "minStake"))[0]

    assert asyncio.run(ask()) == (50, 7)
    assert shell.runs(chain.url, "--check")[0] == 0


@pytest.mark.parametrize("left", ["mined", "dropped"])
def test_killed_run_goes_on_where_it_was(chain: LocalChain, shell: Shell, left: str) -> None:
    expected = [each["address"] for each in shell.says(chain.url, "--dry-run")["contracts"]]
    chain.anvil.automine(on=False)
    with subprocess.Popen([sys.executable, "-c", START, *shell.words(chain.url)], stdout=subprocess.PIPE) as running:
        until(lambda: chain.anvil.sent(shell.key.address) == 1)
        chain.anvil.mine()
        until(lambda: chain.anvil.sent(shell.key.address) == 2)
        os.kill(running.pid, signal.SIGKILL)
    assert shell.draft.exists()
    assert not shell.out.exists()
    chain.anvil.rpc("anvil_dropAllTransactions") if left == "dropped" else chain.anvil.mine()
    chain.anvil.automine(on=True)

    said = shell.says(chain.url, "--dry-run")
    done = shell.says(chain.url)

    assert [each["sentBefore"] for each in said["contracts"]].count(True) == (1 if left == "dropped" else 2)
    assert [each["address"] for each in done["landed"]] == expected
    assert [each["sentBefore"] for each in done["landed"]] == [True, True, False, False, False, False]
    assert chain.anvil.sent(shell.key.address) == 6
    assert not shell.draft.exists()
    assert done["landed"][0]["block"] == Deployment.load(shell.out).block
    assert shell.runs(chain.url, "--check")[0] == 0


def until(done: Callable[[], bool]) -> None:
    asyncio.run(eventually(done))


def stop_after(chain: LocalChain, shell: Shell, contract: str) -> None:
    """Deploy up to one contract, and stop as if the power had failed."""

    class PowerFailsError(Exception):
        pass

    async def run() -> None:
        async with Rpc(chain.url) as rpc:
            plan = await prepare(rpc, shell.key.address, LOCAL)

            def say(landed: Any) -> None:  # noqa: ANN401 a test's
                if landed.step.contract == contract:
                    raise PowerFailsError

            with pytest.raises(PowerFailsError):
                await carry_out(rpc, shell.key, plan, Journal(plan, shell.draft), say=say)

    asyncio.run(run())


LOCAL_WORDS = ("--unbonding-delay", 1_200, "--epoch-length", 600, "--exit-delay", 600, "--tier-unit", 1_000)


def test_stopped_run_given_other_parameters_is_refused(chain: LocalChain, shell: Shell) -> None:
    stop_after(chain, shell, "NodeRegistry")

    status, said = shell.runs(chain.url, *LOCAL_WORDS, "--fee-bps", 1)

    assert status == 1
    assert "begun with other parameters" in said
    assert chain.anvil.sent(shell.key.address) == 3
    assert shell.runs(chain.url, *LOCAL_WORDS)[0] == 0
    assert chain.anvil.sent(shell.key.address) == 6


def test_stopped_run_whose_nonce_was_taken_says_how_to_start_over(chain: LocalChain, shell: Shell) -> None:
    stop_after(chain, shell, "NodeRegistry")
    send_coin(chain, shell.key)

    status, said = shell.runs(chain.url, *LOCAL_WORDS)

    assert status == 1
    assert "Channels needs the nonce 3, and the account's next one is 4: something else was sent with this key" in said
    assert chain.anvil.sent(shell.key.address) == 4
    shell.draft.unlink()
    assert shell.runs(chain.url, *LOCAL_WORDS)[0] == 0
    assert Deployment.load(shell.out).address("Token") == contract_address(shell.key.address, 4)


def test_stopped_run_on_a_restarted_chain_says_so(chain: LocalChain, shell: Shell) -> None:
    before = chain.anvil.snapshot()
    send_coin(chain, shell.key)
    stop_after(chain, shell, "Token")
    chain.anvil.revert(before)

    status, said = shell.runs(chain.url, *LOCAL_WORDS)

    assert status == 1
    assert "the local chain was restarted; delete" in said
    assert chain.anvil.sent(shell.key.address) == 0


async def test_nonce_taken_between_plan_and_transaction_stops_before_it_is_sent(chain: LocalChain) -> None:
    key = chain.new_key()
    async with Rpc(chain.url) as rpc:
        plan = await prepare(rpc, key.address, LOCAL)
        await Lane(rpc, key, 31_337).send(chain.keys[0].address, b"", value=1)

        with pytest.raises(DeploymentError, match="Token needs the nonce 0"):
            await carry_out(rpc, key, plan, Journal(plan))

    assert chain.anvil.sent(key.address) == 1


async def test_nonce_taken_while_the_transaction_is_signed_stops_before_it_is_sent(chain: LocalChain) -> None:
    key = chain.new_key()

    class Late(Rpc):
        """Answers once as if the other transaction were not there yet."""

        late = 1

        async def nonce(self, account: Address, where: int | str = "latest") -> int:
            found = await super().nonce(account, where)
            if where == "pending" and self.late and found:
                self.late -= 1
                return found - 1
            return found

    async with Late(chain.url) as rpc:
        plan = await prepare(rpc, key.address, LOCAL)
        await Lane(rpc, key, 31_337).send(chain.keys[0].address, b"", value=1)

        with pytest.raises(DeploymentError, match="Token needs the nonce 0, and the account's next one is 1"):
            await carry_out(rpc, key, plan, Journal(plan))

    assert chain.anvil.sent(key.address) == 1


def test_second_deployment_into_the_same_file_is_refused(chain: LocalChain, shell: Shell) -> None:
    shell.runs(chain.url)

    status, said = shell.runs(chain.url)

    assert status == 1
    assert "holds a deployment already" in said
    assert chain.anvil.sent(shell.key.address) == 6
    assert shell.runs(chain.url, "--out", "other.json")[0] == 0


def test_file_of_a_restarted_local_chain_is_written_anew(chain: LocalChain, shell: Shell) -> None:
    before = chain.anvil.snapshot()
    shell.runs(chain.url)
    chain.anvil.revert(before)
    send_coin(chain, shell.key)

    assert shell.runs(chain.url)[0] == 0
    assert Deployment.load(shell.out).address("Token") == contract_address(shell.key.address, 1)


def test_other_chain_needs_a_token_and_another_file(chain: LocalChain, shell: Shell) -> None:
    shell.runs(chain.url)
    with Anvil(chain_id=7) as other:
        other.fund(shell.key.address)

        status, said = shell.runs(other.url)
        assert status == 1
        assert "chain 7 is no local chain" in said
        assert "--token 0x..." in said
        status, said = shell.runs(other.url, "--test-token", "--out", shell.out)
        assert status == 1
        assert "serves chain 7, the deployment is on chain 31337" in said
        assert other.sent(shell.key.address) == 0

        assert shell.says(other.url, "--test-token")["file"] == "deployments/7.json"
        assert shell.runs(other.url, "--check")[0] == 0


def test_token_that_exists_is_taken_and_none_is_made(chain: LocalChain, shell: Shell) -> None:
    token = chain.deployment.contracts["Token"]

    done = shell.says(chain.url, "--token", to_hex(token.address))

    assert [each["contract"] for each in done["landed"]] == CONTRACTS[1:]
    assert not done["warnings"]
    found = Deployment.load(shell.out)
    assert found.contracts["Token"] == token

    async def ask() -> Address:
        async with await ChainReader.connect(chain.url, found) as reader:
            return (await reader.view("Channels", "token"))[0]

    assert asyncio.run(ask()) == token.address
    assert shell.runs(chain.url, "--check")[0] == 0


def test_token_behind_a_proxy_is_noted(chain: LocalChain, shell: Shell) -> None:
    token = to_hex(chain.deployment.address("Token"))
    chain.anvil.rpc("anvil_setStorageAt", token, PROXY_SLOT, "0x" + "00" * 31 + "01")

    assert "the token is a proxy" in shell.says(chain.url, "--token", token, "--dry-run")["warnings"][0]


async def test_token_that_is_none_is_refused(chain: LocalChain) -> None:
    async with Rpc(chain.url) as rpc:
        with pytest.raises(DeploymentError, match="holds no contract"):
            await find_token(rpc, chain.keys[0].address)
        with pytest.raises(DeploymentError, match="not as an ERC-20 does"):
            await find_token(rpc, chain.deployment.address("Channels"))


def test_export_to_erc8004_is_deployed_last_and_only_if_asked(chain: LocalChain, shell: Shell) -> None:
    feedback, identity = Address(b"\xfe" * 20), Address(b"\x1d" * 20)
    answers = b"\x73" + identity + bytes.fromhex("5f5260205ff3")  # whatever is asked: the identity registry
    chain.anvil.rpc("anvil_setCode", to_hex(feedback), to_hex(answers))

    done = shell.says(chain.url, "--erc8004-feedback", to_hex(feedback))

    assert [each["contract"] for each in done["landed"]] == [*CONTRACTS, "AgentExport"]
    assert Deployment.load(shell.out).address("AgentExport") == contract_address(shell.key.address, 6)
    assert shell.runs(chain.url, "--check")[0] == 0


def test_export_to_what_is_no_registry_is_refused_before_anything_is_sent(chain: LocalChain, shell: Shell) -> None:
    status, said = shell.runs(chain.url, "--erc8004-feedback", "0x" + "fe" * 20)

    assert status == 1
    assert "AgentExport refuses its parameters" in said
    assert chain.anvil.sent(shell.key.address) == 0


def test_deployer_without_coins_is_told_before_anything_is_sent(chain: LocalChain, shell: Shell) -> None:
    chain.anvil.fund(shell.key.address, wei=10)

    status, said = shell.runs(chain.url, "--dry-run")
    assert status == 0
    assert "less than this costs" in said
    status, said = shell.runs(chain.url)
    assert status == 1
    assert "cannot pay for gas" in said
    assert not shell.draft.exists()


def test_code_exchanged_later_is_noticed_by_everybody(chain: LocalChain, shell: Shell) -> None:
    shell.runs(chain.url)
    found = Deployment.load(shell.out)
    chain.anvil.rpc("anvil_setCode", to_hex(found.address("Channels")), "0x6000")

    with (
        pytest.raises(WrongCodeError),
        Plait(rpc=chain.url, deployment=shell.out, key=shell.key, home=shell.folder) as it,
    ):
        it.models.list()
    for words in (["audit"], ["node", "status", "0x" + "11" * 20], ["deploy", "--check", "--out", str(shell.out)]):
        where = [] if "--out" in words else ["--deployment", str(shell.out)]
        with pytest.raises(SystemExit) as ended:
            program([*words, "--rpc", chain.url, *where])
        assert ended.value.code == 1


def test_file_with_the_hash_of_foreign_code_is_found_out(chain: LocalChain, shell: Shell) -> None:
    shell.runs(chain.url)
    found = Deployment.load(shell.out)
    at = found.address("Reputation")
    chain.anvil.rpc("anvil_setCode", to_hex(at), "0x6000")
    forged = {"Reputation": Placed(address=at, code_hash=keccak(bytes.fromhex("6000")))}
    found.model_copy(update={"contracts": found.contracts | forged}).save(shell.out)

    status, said = shell.runs(chain.url, "--check")

    assert status == 1
    assert "Reputation in deployments/31337.json hold other code" in said


def test_draft_is_written_before_anything_is_sent(chain: LocalChain, shell: Shell) -> None:
    async def run() -> None:
        async with Rpc(chain.url) as rpc:
            plan = await prepare(rpc, shell.key.address, LOCAL)
            journal = Journal(plan, shell.draft)
            add = journal.add

            def fail(*told: Any) -> None:
                add(*told)
                raise InterruptedError

            journal.add = fail  # the process ends between signing and sending
            with pytest.raises(InterruptedError):
                await carry_out(rpc, shell.key, plan, journal)

    asyncio.run(run())
    draft = Draft.load(shell.draft)

    assert draft
    assert list(draft.sent) == ["Token"]
    assert chain.anvil.sent(shell.key.address) == 0
    assert shell.runs(chain.url, *LOCAL_WORDS)[0] == 0
    assert chain.anvil.rpc("eth_getTransactionReceipt", to_hex(draft.sent["Token"][0].hash))["status"] == "0x1"


def send_coin(chain: LocalChain, key: Key) -> None:
    async def send() -> None:
        async with Rpc(chain.url) as rpc:
            await Lane(rpc, key, 31_337).send(chain.keys[0].address, b"", value=1)

    asyncio.run(send())
