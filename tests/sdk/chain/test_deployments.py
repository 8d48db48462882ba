"""Deployment files and contract interfaces without a chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from plait.chain import (
    ContractError,
    Deployment,
    DeploymentError,
    DeploymentFileError,
    NodeRegistryError,
    Parameters,
    RpcRefusedError,
    TokenError,
    Transaction,
    artifact,
    claim_bytes,
    ids_bytes,
    ids_from,
)
from plait.chain.abi import CONTRACTS, Function, all_errors
from plait.chain.deployments import Placed
from plait.chain.draft import Draft, Journal
from plait.chain.plan import ExternalToken, Plan, contract_address, plan_of
from plait.chain.reverts import contract_error
from plait.chain.simulate import foreign_code, simulate
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import ADDRESS_ZERO, HASH_ZERO, Address, Hash, Signature, keccak
from plait.protocol.receipts import ClaimRow

DEPLOYER = Address(bytes.fromhex("f39fd6e51aad88f6f4ce6ab8827279cfffb92266"))  # anvil's first account


def deployment() -> Deployment:
    placed = {
        name: Placed(address=Address(bytes(19) + bytes([at])), code_hash=keccak(bytes([at])))
        for at, name in enumerate(CONTRACTS, 1)
    }
    return Deployment(
        chain_id=31_337,
        block=6,
        block_hash=keccak(b"block"),
        deployer=ADDRESS_ZERO,
        contracts=placed,
        parameters=Parameters(min_stake=1 << 90),
    )


def test_deployment_file_round_trip_keeps_every_digit(tmp_path: Path) -> None:
    deployment().save(tmp_path / "d.json")

    raw = json.loads((tmp_path / "d.json").read_text())

    assert Deployment.load(tmp_path / "d.json") == deployment()
    assert raw["parameters"]["minStake"] == str(1 << 90)
    assert raw["contracts"]["Channels"]["address"] == "0x" + "00" * 19 + "04"


@pytest.mark.parametrize(
    "change",
    [
        {"chainId": 0},
        {"chainId": "31337x"},
        {"blockHash": "0x12"},
        {"contracts": {}},
        {"surprise": 1},
        {"parameters": {"feeBps": 5000}},
        {"parameters": {"unbondingDelay": 1_199, "epochLength": 600}},
    ],
)
def test_deployment_file_that_is_wrong_names_the_field(tmp_path: Path, change: dict[str, object]) -> None:
    deployment().save(tmp_path / "d.json")
    raw = json.loads((tmp_path / "d.json").read_text())
    (tmp_path / "d.json").write_text(json.dumps(raw | change))

    with pytest.raises(DeploymentFileError, match="give the file that the deployment wrote"):
        Deployment.load(tmp_path / "d.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_deployment_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.json").write_text(text)

    with pytest.raises(DeploymentFileError):
        Deployment.load(tmp_path / "d.json")


def test_deployment_file_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeploymentFileError, match="No such file"):
        Deployment.load(tmp_path / "d.json")


def test_deployment_knows_its_contracts() -> None:
    found = deployment()

    assert found.contract_at(found.address("Requests")) == "Requests"
    assert found.contract_at(ADDRESS_ZERO) is None
    assert found.domain.channels == found.addresses["Channels"]


def test_contract_address_follows_deployer_and_nonce() -> None:
    # Known to everybody who ever started anvil.
    assert contract_address(DEPLOYER, 0).hex() == "5fbdb2315678afecb367f032d93f642f64180aa3"
    assert contract_address(DEPLOYER, 1).hex() == "e7f1725e7734ce288f8367e1bb143e90bb3f0512"
    assert len({contract_address(DEPLOYER, nonce) for nonce in (0, 127, 128, 255, 256, 1 << 40)}) == 6


@pytest.mark.parametrize(
    "bad",
    [
        {"min_stake": 0},
        {"min_stake": 1 << 96},
        {"tier_unit": 0},
        {"epoch_length": 0},
        {"exit_delay": 0},
        {"exit_delay": 30 * 86_400 + 1},
        {"fee_bps": 1_001},
        {"unbonding_delay": 365 * 86_400 + 1},
        {"unbonding_delay": 6 * 3_600, "epoch_length": 6 * 3_600},
        {"unbonding_delay": 12 * 3_600 - 1, "epoch_length": 6 * 3_600},
    ],
    ids=str,
)
def test_parameters_that_a_constructor_refuses_are_refused_before(bad: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Parameters.model_validate(bad)


def test_parameters_at_their_bounds_are_taken() -> None:
    Parameters(min_stake=1, tier_unit=1, epoch_length=1, exit_delay=30 * 86_400, fee_bps=1_000, unbonding_delay=2)
    Parameters(unbonding_delay=365 * 86_400, epoch_length=365 * 43_200, fee_bps=0)


def test_plan_names_every_address_before_it_is_used() -> None:
    found = plan_of(chain_id=1, deployer=DEPLOYER, nonce=7, parameters=Parameters())

    at = found.addresses
    assert tuple(at) == CONTRACTS
    assert [step.nonce for step in found.steps] == [7, 8, 9, 10, 11, 12]
    assert all(step.address == contract_address(DEPLOYER, step.nonce) for step in found.steps)
    assert found.steps[2].arguments["channels"] == found.steps[4].arguments["channels"] == at["Channels"]
    assert found.steps[3].arguments["requests"] == at["Requests"]


def test_plan_with_token_and_export_places_five_contracts_and_the_export_last() -> None:
    token = ExternalToken(address=Address(b"t" * 20), decimals=18, proxy=False)
    wanted = Parameters(erc8004_feedback=Address(b"f" * 20))

    found = plan_of(chain_id=1, deployer=DEPLOYER, nonce=0, parameters=wanted, token=token)

    assert [step.contract for step in found.steps] == [*CONTRACTS[1:], "AgentExport"]
    assert found.addresses["Token"] == found.steps[1].arguments["token"] == token.address
    assert found.steps[-1].arguments == {"reputation": found.addresses["Reputation"], "feedback": b"f" * 20}


def journalled(path: Path, plan: Plan) -> Transaction:
    """Write a draft in which the first contract's transaction was signed."""
    tx = Transaction(
        sender=DEPLOYER,
        nonce=plan.nonce,
        to=None,
        data=plan.steps[0].code,
        value=0,
        gas=5,
        max_fee=1 << 70,
        tip=1,
        hash=Hash(b"h" * 32),
        raw=b"raw",
    )
    Journal(plan, path).add(plan.steps[0], tx)
    return tx


def test_draft_gives_back_what_was_signed(tmp_path: Path) -> None:
    plan = plan_of(chain_id=1, deployer=DEPLOYER, nonce=3, parameters=Parameters())
    tx = journalled(tmp_path / "1.json.draft", plan)

    again = Journal(plan, tmp_path / "1.json.draft", draft=Draft.load(tmp_path / "1.json.draft"))

    assert again.variants(plan.steps[0]) == [tx]
    assert again.variants(plan.steps[1]) == []
    again.discard()
    assert Draft.load(tmp_path / "1.json.draft") is None


def test_draft_of_another_deployment_names_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "1.json.draft"
    journalled(path, plan_of(chain_id=1, deployer=DEPLOYER, nonce=3, parameters=Parameters()))
    other = plan_of(chain_id=1, deployer=DEPLOYER, nonce=3, parameters=Parameters(fee_bps=7))

    with pytest.raises(DeploymentError, match=r"begun with other parameters, code: run it again .* or delete .*draft"):
        Journal(other, path, draft=Draft.load(path))


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_draft_that_is_none_says_to_delete_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "d").write_text(text)

    with pytest.raises(DeploymentError, match=r"delete .* to start over"):
        Draft.load(tmp_path / "d")


def test_deployment_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DeploymentError, match=r"cannot be written .* name another file"):
        deployment().save(tmp_path / "file" / "d.json")


class Deaf:
    """An endpoint that knows no state overrides: it refuses them, or does as if they were not there."""

    url = "http://deaf"

    def __init__(self, *, refuses: bool) -> None:
        self.refuses = refuses

    async def request(self, method: str, *params: object) -> object:
        if self.refuses and len(params) > 2:
            raise RpcRefusedError(self.url, method=method, number=-32602, message="too many arguments")
        return "0x"

    async def nonce(self, account: Address) -> int:
        return 20

    async def code(self, at: Address) -> bytes:
        return b"code"


@pytest.mark.parametrize("refuses", [True, False])
async def test_endpoint_that_cannot_simulate_gives_a_guess(*, refuses: bool) -> None:
    plan = plan_of(chain_id=1, deployer=DEPLOYER, nonce=0, parameters=Parameters())

    found = await simulate(Deaf(refuses=refuses), plan)

    assert all(each.code is None for each in found)
    sizes = [len(step.code) for step in plan.steps]
    assert all(200 * size < each.gas < 250 * size + 53_000 for size, each in zip(sizes, found, strict=True))


async def test_endpoint_that_cannot_simulate_cannot_check_code() -> None:
    plan = plan_of(chain_id=31_337, deployer=DEPLOYER, nonce=4, parameters=Parameters())
    placed = {name: Placed(address=at, code_hash=keccak(b"code")) for name, at in plan.addresses.items()}
    found = deployment().model_copy(update={"deployer": DEPLOYER, "contracts": placed})

    with pytest.raises(DeploymentError, match=r"cannot simulate .* use another endpoint"):
        await foreign_code(Deaf(refuses=True), found)
    with pytest.raises(DeploymentError, match="was not placed by the deployer"):
        await foreign_code(Deaf(refuses=True), deployment())


def test_every_contract_ships_with_code_and_constructor() -> None:
    for name in CONTRACTS:
        shipped = artifact(name)
        assert len(shipped.bytecode) > 100
        assert shipped.functions
        assert all(len(selector) == 4 for selector in shipped.errors)


def test_calldata_of_structs_decodes_to_what_went_in() -> None:
    refund = artifact("Requests").functions["refund"]
    params = (ADDRESS_ZERO, bytes(19) + b"\x01", b"m" * 32, b"p" * 32, b"q" * 32, 5, 6, 7, 3, 4, 1 << 95, 8, 9, 10)

    found = refund.decode_inputs(refund.encode(12, params))

    assert found["id"] == 12
    assert found["params"]["gateway"] == bytes(19) + b"\x01"
    assert found["params"]["topP"] == 6
    assert found["params"]["fee"] == 1 << 95


def test_event_with_wrong_topics_or_data_is_malformed() -> None:
    event = artifact("Channels").event("ExitStarted")

    with pytest.raises(MalformedMessageError):
        event.decode([event.topic], b"")
    with pytest.raises(MalformedMessageError):
        event.decode([HASH_ZERO, HASH_ZERO, HASH_ZERO], bytes(32))
    with pytest.raises(MalformedMessageError):
        event.decode([event.topic, HASH_ZERO, Hash(b"\xff" * 32)], bytes(32))


def of_ours() -> list[Function]:
    """Return the errors that our contracts and the token declare, without those of the library's insides."""
    prefixes = (*(f"{name}_" for name in CONTRACTS), "ERC20", "ERC2612", "ERC3009", "Intake", "SafeERC20")
    return sorted(
        (each for each in all_errors().values() if each.name.startswith(prefixes)), key=lambda each: each.name
    )


@pytest.mark.parametrize("error", of_ours(), ids=lambda each: each.name)
def test_every_custom_error_has_its_class(error: Function) -> None:
    found = contract_error(error.selector + bytes(32 * len(error.inputs)))

    assert type(found) is not ContractError
    assert found.error == error.name
    assert set(found.values) == {each.name for each in error.inputs}


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x01\x02\x03\x04", bytes.fromhex("08c379a0"), bytes.fromhex("4e487b71") + b"\x01"]
)
def test_revert_data_nobody_knows_is_shown(data: bytes) -> None:
    found = contract_error(data, message="execution reverted")

    assert found.error == "Reverted"
    assert found.values["data"] == "0x" + data.hex()


def test_revert_with_text_or_panic_says_so() -> None:
    text = bytes.fromhex("08c379a0") + bytes(31) + b"\x20" + bytes(31) + b"\x02" + b"no" + bytes(30)
    panic = bytes.fromhex("4e487b71") + bytes(31) + b"\x11"

    assert contract_error(text).values == {"reason": "no"}
    assert contract_error(panic).values == {"number": 17}


def test_error_classes_name_their_contract() -> None:
    known = {each.name: each for each in all_errors().values()}
    jailed = known["NodeRegistry_Jailed"]

    assert isinstance(contract_error(jailed.selector + bytes(64)), NodeRegistryError)
    assert isinstance(contract_error(known["ERC20InsufficientBalance"].selector + bytes(96)), TokenError)


def test_claim_rows_and_ids_are_packed_back_to_back() -> None:
    row = ClaimRow(payer=ADDRESS_ZERO, cumulative=1, jobs=2, receipts_root=HASH_ZERO, signature=Signature(bytes(64)))

    assert claim_bytes([row, row]) == 2 * row.pack()
    assert ids_from(ids_bytes((0, 7, (1 << 32) - 1))) == (0, 7, (1 << 32) - 1)
