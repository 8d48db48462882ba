"""Deployment files and contract interfaces without a chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plait.chain import (
    ContractError,
    Deployment,
    DeploymentFileError,
    NodeRegistryError,
    Parameters,
    TokenError,
    artifact,
    claim_bytes,
    ids_bytes,
    ids_from,
)
from plait.chain.abi import CONTRACTS, Function, all_errors
from plait.chain.deploy import contract_address
from plait.chain.deployments import Placed
from plait.chain.reverts import contract_error
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import ADDRESS_ZERO, HASH_ZERO, Address, Hash, Signature, keccak
from plait.protocol.receipts import ClaimRow


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
    # The first contracts of anvil's first account, known to everybody who ever started it.
    deployer = Address(bytes.fromhex("f39fd6e51aad88f6f4ce6ab8827279cfffb92266"))

    assert contract_address(deployer, 0).hex() == "5fbdb2315678afecb367f032d93f642f64180aa3"
    assert contract_address(deployer, 1).hex() == "e7f1725e7734ce288f8367e1bb143e90bb3f0512"
    assert len({contract_address(deployer, nonce) for nonce in (0, 127, 128, 255, 256, 1 << 40)}) == 6


def test_every_contract_ships_with_code_and_constructor() -> None:
    for name in CONTRACTS:
        shipped = artifact(name)
        assert len(shipped.bytecode) > 100
        assert shipped.functions
        assert all(len(selector) == 4 for selector in shipped.errors)


def test_calldata_of_structs_decodes_to_what_went_in() -> None:
    refund = artifact("Requests").functions["refund"]
    sampling = (5, 6, 7, bytes(32))
    params = (ADDRESS_ZERO, bytes(19) + b"\x01", b"m" * 32, b"p" * 32, b"q" * 32, sampling, 3, 4, 1 << 95, 9)

    found = refund.decode_inputs(refund.encode(12, params))

    assert found["id"] == 12
    assert found["params"]["gateway"] == bytes(19) + b"\x01"
    assert found["params"]["sampling"]["topP"] == 6
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
    prefixes = (*(f"{name}_" for name in CONTRACTS), "ERC20", "ERC2612", "SafeERC20")
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
