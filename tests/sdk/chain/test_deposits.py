"""Deposits by signature: digests as another library makes them, and what is sent when a permit is not taken."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.typed_transactions import TypedTransaction
from hexbytes import HexBytes
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.chain.test_deployments import deployment
from tests.sdk.chain_cases import Refusal, endpoint

from plait.chain import (
    Authorization,
    ChainReader,
    ChainWriter,
    ChannelsError,
    ContractError,
    Patience,
    PendingError,
    Rpc,
    TokenError,
    artifact,
    sign_authorization,
    sign_permit,
)
from plait.chain.abi import all_errors
from plait.chain.deposits import PERMIT_LIFE_S, authorization_digest, permit_digest
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address, Hash, Signature, authorization_nonce, channel_id, keccak, to_hex
from plait.protocol.typed import Key

KEY = Key.from_bytes(b"\x07" * 32)
TOKEN, CHANNELS = deployment().address("Token"), deployment().address("Channels")
PAYEE, SIGNER = Address(b"\x01" * 20), Address(b"\x02" * 20)
NOW = 1_800_000_000

FIELDS = {
    "Permit": "owner:address spender:address value:uint256 nonce:uint256 deadline:uint256",
    "ReceiveWithAuthorization": (
        "from:address to:address value:uint256 validAfter:uint256 validBefore:uint256 nonce:bytes32"
    ),
}


def typed(kind: str, *values: object, name: str = "USD Coin", version: str = "2", chain_id: int = 1) -> dict[str, Any]:
    """Return EIP-712's JSON of a message in a token's domain."""
    fields = [dict(zip(("name", "type"), each.split(":"), strict=True)) for each in FIELDS[kind].split()]
    domain = "name:string version:string chainId:uint256 verifyingContract:address"
    return {
        "types": {
            "EIP712Domain": [dict(zip(("name", "type"), each.split(":"), strict=True)) for each in domain.split()],
            kind: fields,
        },
        "primaryType": kind,
        "domain": {"name": name, "version": version, "chainId": chain_id, "verifyingContract": to_hex(TOKEN)},
        "message": {each["name"]: value for each, value in zip(fields, values, strict=True)},
    }


def reference(message: dict[str, Any]) -> tuple[Hash, Hash]:
    """Return the domain separator and the digest as eth_account makes them."""
    signable = encode_typed_data(full_message=message)
    return Hash(bytes(signable.header)), keccak(b"\x19\x01", signable.header, signable.body)


AMOUNTS, WORDS = st.integers(1, (1 << 96) - 1), st.integers(0, (1 << 256) - 1)
ADDRESSES = st.binary(min_size=20, max_size=20).map(Address)


@given(owner=ADDRESSES, spender=ADDRESSES, amount=AMOUNTS, nonce=WORDS, deadline=WORDS, chain_id=st.integers(1, 10**9))
def test_permit_digest_is_that_of_another_library(
    *, owner: Address, spender: Address, amount: int, nonce: int, deadline: int, chain_id: int
) -> None:
    message = typed("Permit", to_hex(owner), to_hex(spender), amount, nonce, deadline, chain_id=chain_id)
    separator, expected = reference(message)

    found = permit_digest(separator, owner=owner, spender=spender, amount=amount, nonce=nonce, deadline=deadline)

    assert found == expected


@given(
    payer=ADDRESSES,
    channels=ADDRESSES,
    amount=AMOUNTS,
    after=WORDS,
    before=WORDS,
    salt=st.binary(min_size=32, max_size=32),
)
def test_authorization_digest_is_that_of_another_library(
    *, payer: Address, channels: Address, amount: int, after: int, before: int, salt: bytes
) -> None:
    nonce = authorization_nonce(channel_id(payer, PAYEE, SIGNER), Hash(salt))
    message = typed("ReceiveWithAuthorization", to_hex(payer), to_hex(channels), amount, after, before, nonce)
    separator, expected = reference(message)

    found = authorization_digest(
        separator,
        payer=payer,
        channels=channels,
        amount=amount,
        valid_after=after,
        valid_before=before,
        nonce=nonce,
    )

    assert found == expected


@pytest.mark.parametrize("seed", range(8))
def test_signatures_are_those_of_another_library(seed: int) -> None:
    key, salt = Key.from_bytes(keccak(bytes([seed]))), keccak(b"salt", bytes([seed]))
    nonce = authorization_nonce(channel_id(key.address, PAYEE, SIGNER), salt)
    permit = typed("Permit", to_hex(key.address), to_hex(CHANNELS), 500, seed, NOW)
    receive = typed("ReceiveWithAuthorization", to_hex(key.address), to_hex(CHANNELS), 500, 3, NOW, nonce)
    separator = reference(permit)[0]

    permitted = sign_permit(key, separator, spender=CHANNELS, amount=500, nonce=seed, deadline=NOW)
    authorized = authorization(key, separator, salt=salt, valid_after=3)

    assert permitted.encodable() == (NOW, *signed(key, permit))
    assert authorized.encodable() == (3, NOW, salt, *signed(key, receive))
    assert authorized.nonce == nonce
    assert authorized.channel == channel_id(key.address, PAYEE, SIGNER)


def signed(key: Key, message: dict[str, Any]) -> tuple[int, bytes, bytes]:
    """Return v, r and s as eth_account makes them."""
    made = cast("Any", Account).sign_typed_data(key.secret_hex(), full_message=message)
    return made.v, made.r.to_bytes(32, "big"), made.s.to_bytes(32, "big")


def authorization(key: Key = KEY, separator: Hash = keccak(b"domain"), **changes: Any) -> Authorization:  # noqa: B008 a constant
    values: dict[str, Any] = {"payee": PAYEE, "signer": SIGNER, "amount": 500, "valid_before": NOW}
    values |= {"channels": CHANNELS, "salt": keccak(b"salt")} | changes
    return sign_authorization(key, separator, **values)


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 0},
        {"amount": -1},
        {"amount": 1 << 96},
        {"valid_before": 0},
        {"valid_before": 1 << 256},
        {"valid_after": NOW},
        {"valid_after": -1},
        {"payee": b"\x01" * 19},
        {"signer": b""},
        {"channels": b""},
        {"salt": b"\x01" * 31},
        {"separator": Hash(b"")},
    ],
)
def test_authorization_of_something_that_does_not_fit_is_not_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        authorization(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"payer": b""}, {"amount": 1 << 96}, {"valid_after": NOW}, {"salt": b""}, {"signature": Signature(bytes(65))}],
)
def test_authorization_from_a_stranger_that_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        replace(authorization(), **changes)


@pytest.mark.parametrize("changes", [{"amount": 0}, {"amount": 1 << 96}, {"nonce": -1}, {"deadline": 1 << 256}])
def test_permit_of_something_that_does_not_fit_is_not_signed(changes: dict[str, int]) -> None:
    values = {"amount": 500, "nonce": 0, "deadline": NOW} | changes
    with pytest.raises(MalformedMessageError):
        sign_permit(KEY, keccak(b"domain"), spender=CHANNELS, **values)


Call = tuple[str, dict[str, Any]]  # a function of a contract and what it is called with


@dataclass(slots=True, kw_only=True)
class FakeChain:
    """A token and `Channels`; `words` is what the token answers, `refuses` why calls of a function are refused."""

    words: dict[str, str] = field(default_factory=lambda: {"DOMAIN_SEPARATOR": "0x" + "ab" * 32, "nonces": word(7)})
    refuses: dict[str, object] = field(default_factory=dict[str, object])
    reverts_in_block: bool = False
    mines: bool = True
    allowance: int = 0
    balance: int = 10_000
    sent: list[Call] = field(default_factory=list[Call])
    hashes: set[str] = field(default_factory=set[str])

    def answer(self, method: str, params: list[Any]) -> object:
        match method:
            case "eth_call":
                return self._call(*called(params[0]["input"]))
            case "eth_estimateGas":
                return self._estimate(called(params[0]["input"])[0])
            case "eth_sendRawTransaction":
                return self._send(HexBytes(params[0]))
            case "eth_getTransactionCount":
                return hex(len(self.sent) if self.mines else 0)
            case "eth_getTransactionReceipt":
                return self._receipt(params[0])
            case "eth_getBlockByNumber":
                head = {"number": "0x5", "hash": word(5), "parentHash": word(4)}
                return head | {"timestamp": hex(NOW), "baseFeePerGas": "0x1", "gasLimit": hex(30_000_000)}
            case "eth_maxPriorityFeePerGas":
                return "0x1"
            case _:
                raise AssertionError(f"nobody asks for {method}")

    def _call(self, name: str, arguments: dict[str, Any]) -> str:
        if name in ("DOMAIN_SEPARATOR", "nonces"):
            if name not in self.words:
                raise Refusal({"code": 3, "message": "execution reverted", "data": "0x"})
            return self.words[name]
        if name == "allowance":
            assert arguments == {"owner": KEY.address, "spender": CHANNELS}
            return word(self.allowance)
        if name == "balanceOf":
            return word(self.balance)
        raise Refusal(refusal("ERC20InsufficientAllowance"))  # the failed transaction, run again

    def _estimate(self, name: str) -> str:
        if name in self.refuses:
            raise Refusal(self.refuses[name])
        return hex(100_000)

    def _send(self, raw: HexBytes) -> str:
        data = TypedTransaction.from_bytes(raw).as_dict()["data"]
        self.sent.append(called(to_hex(bytes(data))))
        self.hashes.add(to_hex(keccak(raw)))
        return to_hex(keccak(raw))

    def _receipt(self, tx: str) -> dict[str, Any] | None:
        if tx not in self.hashes or not self.mines:
            return None
        receipt = {"transactionHash": tx, "status": hex(not self.reverts_in_block), "blockNumber": "0x5", "logs": []}
        return receipt | {"blockHash": word(5), "gasUsed": "0x1", "effectiveGasPrice": "0x1"}


def word(value: int) -> str:
    return to_hex(value.to_bytes(32, "big"))


def called(data: str) -> Call:
    raw = bytes.fromhex(data[2:])
    functions = [each for name in ("Token", "Channels") for each in artifact(name).functions.values()]
    function = next(each for each in functions if each.selector == raw[:4])
    return function.name, function.decode_inputs(raw)


def refusal(name: str) -> object:
    error = next(each for each in all_errors().values() if each.name == name)
    return {"code": 3, "message": "execution reverted", "data": to_hex(error.selector + bytes(32 * len(error.inputs)))}


@asynccontextmanager
async def writing(chain: FakeChain, *, deadline_s: float = 30.0) -> AsyncGenerator[ChainWriter]:
    async with endpoint(chain.answer) as url, Rpc(url, timeout_s=30.0) as rpc:
        patience = Patience(deadline_s=deadline_s, poll_s=0.01, slowest_poll_s=0.01)
        yield ChainWriter(ChainReader(rpc, deployment()), KEY, patience=patience)


def names(chain: FakeChain) -> list[str]:
    return [name for name, _ in chain.sent]


async def test_open_and_top_up_with_a_permit_send_one_transaction_each() -> None:
    chain = FakeChain()
    async with writing(chain) as writer:
        await writer.open_channel(PAYEE, SIGNER, 500)
        await writer.top_up(PAYEE, SIGNER, 500)

    assert names(chain) == ["openWithPermit", "topUpWithPermit"]
    permit = sign_permit(KEY, Hash(b"\xab" * 32), spender=CHANNELS, amount=500, nonce=7, deadline=NOW + PERMIT_LIFE_S)
    for _, arguments in chain.sent:
        assert (arguments["payee"], arguments["signer"], arguments["amount"]) == (PAYEE, SIGNER, 500)
        assert tuple(arguments["permit"].values()) == permit.encodable()


async def test_open_with_an_allowance_that_suffices_needs_no_permit() -> None:
    chain = FakeChain(allowance=500)
    async with writing(chain) as writer:
        await writer.open_channel(PAYEE, SIGNER, 500)

    assert names(chain) == ["open"]


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"nonces": word(7)},
        {"DOMAIN_SEPARATOR": word(1)},
        {"DOMAIN_SEPARATOR": "0x", "nonces": "0x"},
        {"DOMAIN_SEPARATOR": word(1), "nonces": word(1) + "00"},
    ],
    ids=["neither", "no separator", "no nonce", "a fallback that takes all", "another kind of answer"],
)
async def test_open_with_a_token_without_permits_approves_first(words: dict[str, str]) -> None:
    chain = FakeChain(words=words)
    async with writing(chain) as writer:
        await writer.open_channel(PAYEE, SIGNER, 500)

    assert names(chain) == ["approve", "open"]
    assert chain.sent[0][1] == {"spender": CHANNELS, "value": 500}


async def test_open_with_a_token_that_ends_in_an_invalid_instruction_approves_first() -> None:
    def answer(method: str, params: list[Any]) -> object:
        if method == "eth_call" and called(params[0]["input"])[0] == "DOMAIN_SEPARATOR":
            raise Refusal({"code": -32000, "message": "invalid opcode: INVALID"})
        return chain.answer(method, params)

    chain = FakeChain()
    async with endpoint(answer) as url, Rpc(url, timeout_s=30.0) as rpc:
        await ChainWriter(ChainReader(rpc, deployment()), KEY).open_channel(PAYEE, SIGNER, 500)

    assert names(chain) == ["approve", "open"]


@pytest.mark.parametrize(
    "refused",
    [
        refusal("ERC20InsufficientAllowance"),
        refusal("SafeERC20FailedOperation"),
        refusal("Intake_WrongAmount"),
        {"code": 3, "message": "execution reverted", "data": "0x"},
    ],
)
async def test_open_and_top_up_whose_permit_the_token_does_not_take_approve_first(refused: object) -> None:
    chain = FakeChain(refuses={"openWithPermit": refused, "topUpWithPermit": refused})
    async with writing(chain) as writer:
        await writer.open_channel(PAYEE, SIGNER, 500)
        await writer.top_up(PAYEE, SIGNER, 500)

    assert names(chain) == ["approve", "open", "approve", "topUp"]


async def test_open_that_channels_refuses_says_so_and_sends_nothing() -> None:
    chain = FakeChain(refuses={"openWithPermit": refusal("Channels_AlreadyOpen")})
    async with writing(chain) as writer:
        with pytest.raises(ChannelsError, match="top it up"):
            await writer.open_channel(PAYEE, SIGNER, 500)

    assert names(chain) == []


async def test_open_with_too_few_tokens_says_so_and_approves_nothing() -> None:
    chain = FakeChain(refuses={"openWithPermit": refusal("ERC20InsufficientBalance")}, balance=499)
    async with writing(chain) as writer:
        with pytest.raises(TokenError, match="fewer tokens"):
            await writer.open_channel(PAYEE, SIGNER, 500)

    assert names(chain) == []


async def test_open_whose_transaction_failed_in_its_block_is_not_sent_another_way() -> None:
    chain = FakeChain(reverts_in_block=True)
    async with writing(chain) as writer:
        with pytest.raises(ContractError):
            await writer.open_channel(PAYEE, SIGNER, 500)

    assert names(chain) == ["openWithPermit"]


async def test_open_that_no_block_takes_is_not_sent_another_way() -> None:
    chain = FakeChain(mines=False)
    async with writing(chain, deadline_s=0.5) as writer:
        with pytest.raises(PendingError):
            await writer.open_channel(PAYEE, SIGNER, 500)

    assert names(chain) == ["openWithPermit"]
