"""What an endpoint may answer, and that nothing but a right answer gets through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.sdk.chain_cases import Answer, RawBody, Refusal, endpoint

from plait.chain import (
    ChannelsError,
    Checkpoint,
    ContractError,
    ReorgError,
    Rpc,
    RpcAnswerError,
    RpcDownError,
    RpcError,
    RpcRefusedError,
    artifact,
    read_logs,
)
from plait.chain.rpc import shown_url
from plait.protocol.ids import Address, Hash

ACCOUNT = Address(bytes(20))


async def chain_id(answer: Answer) -> int:
    async with endpoint(answer) as url, Rpc(url, timeout_s=30.0) as rpc:
        return await rpc.chain_id()


def constant(value: object) -> Answer:
    return lambda _method, _params: value


def raising(error: Exception) -> Answer:
    def answer(_method: str, _params: list[Any]) -> None:
        raise error

    return answer


async def test_right_answer_comes_through() -> None:
    assert await chain_id(constant("0x7a69")) == 31_337


@pytest.mark.parametrize("value", [None, 5, "5", "0xzz", "0x" + "f" * 65, [], {}, True, "0x"])
async def test_quantity_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(RpcAnswerError, match="JSON-RPC URL"):
        await chain_id(constant(value))


@pytest.mark.parametrize(
    "body", [b"<html>", b"[1, 2]", b'"text"', b"\xff\xfe", b"", b"{}", b'{"jsonrpc": "2.0", "error": 5}', b"null"]
)
async def test_body_that_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(RpcAnswerError):
        await chain_id(raising(RawBody(body)))


@pytest.mark.parametrize("status", [404, 429, 500, 503])
async def test_http_error_is_an_endpoint_that_is_down(status: int) -> None:
    with pytest.raises(RpcDownError, match=str(status)):
        await chain_id(raising(RawBody(b"no", status)))


async def test_error_without_data_keeps_its_number() -> None:
    with pytest.raises(RpcRefusedError) as caught:
        await chain_id(raising(Refusal({"code": -32005, "message": "limit exceeded"})))

    assert (caught.value.number, caught.value.message) == (-32005, "limit exceeded")


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: {"data": data}, lambda data: "Reverted " + data])
async def test_error_with_revert_data_is_the_contracts_error(wrap: Callable[[str], object]) -> None:
    error = next(each for each in artifact("Channels").errors.values() if each.name == "Channels_ExitNotDue")
    data = "0x" + (error.selector + bytes(31) + b"\x01" + bytes(31) + b"\x05").hex()

    with pytest.raises(ChannelsError) as caught:
        await chain_id(raising(Refusal({"code": 3, "message": "execution reverted", "data": wrap(data)})))

    assert caught.value.error == "Channels_ExitNotDue"
    assert caught.value.values == {"id": bytes(31) + b"\x01", "exitAt": 5}
    assert "wait until exitAt" in caught.value.text


async def test_revert_without_data_is_a_contract_error() -> None:
    with pytest.raises(ContractError):
        await chain_id(raising(Refusal({"code": -32000, "message": "execution reverted"})))


async def test_nobody_listening_is_down() -> None:
    async with endpoint(constant("0x1")) as url:
        pass

    async with Rpc(url, timeout_s=30.0) as rpc:
        with pytest.raises(RpcDownError) as caught:
            await rpc.balance(ACCOUNT)
    assert caught.value.url == url
    assert isinstance(caught.value, RpcError)


def test_shown_url_hides_what_may_be_a_key() -> None:
    assert shown_url("https://user:secret@host.example:8545/v3/key?token=x") == "https://host.example:8545"


def block(number: int, mark: int = 0) -> dict[str, str]:
    return {
        "number": hex(number),
        "hash": "0x" + bytes([mark, *[number] * 31]).hex(),
        "parentHash": "0x" + bytes(32).hex(),
        "timestamp": hex(number),
        "baseFeePerGas": "0x1",
        "gasLimit": "0x1",
    }


def log_at(number: int, mark: int = 0) -> dict[str, Any]:
    return {
        "address": "0x" + bytes(20).hex(),
        "topics": [],
        "data": "0x",
        "blockNumber": hex(number),
        "blockHash": block(number, mark)["hash"],
        "transactionHash": "0x" + bytes(32).hex(),
        "logIndex": "0x0",
    }


async def ranges(answer: Answer, *, last: int, after: Checkpoint | None = None) -> list[tuple[int, int]]:
    async with endpoint(answer) as url, Rpc(url, timeout_s=30.0) as rpc:
        found = read_logs(rpc, addresses=[ACCOUNT], first=1, last=last, after=after, span=8)
        return [(part.first, part.last) async for part in found]


async def test_logs_of_a_range_too_large_are_read_in_halves() -> None:
    def answer(method: str, params: list[Any]) -> object:
        if method == "eth_getBlockByNumber":
            return block(int(params[0], 16))
        first, last = int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)
        if last - first >= 3:
            raise Refusal({"code": -32005, "message": "query returned more than 10000 results"})
        return []

    assert await ranges(answer, last=9) == [(1, 2), (3, 4), (5, 6), (7, 8), (9, 9)]


async def test_logs_of_another_branch_raise() -> None:
    def answer(method: str, params: list[Any]) -> object:
        return block(int(params[0], 16)) if method == "eth_getBlockByNumber" else [log_at(4, mark=1)]

    with pytest.raises(ReorgError) as caught:
        await ranges(answer, last=4)
    assert caught.value.block == 4


async def test_logs_outside_their_range_raise() -> None:
    def answer(method: str, params: list[Any]) -> object:
        return block(int(params[0], 16)) if method == "eth_getBlockByNumber" else [log_at(9)]

    with pytest.raises(ReorgError):
        await ranges(answer, last=4)


async def test_logs_while_the_head_moves_are_read_again() -> None:
    asked: list[str] = []

    def answer(method: str, params: list[Any]) -> object:
        asked.append(method)
        if method == "eth_getBlockByNumber":
            return block(int(params[0], 16), mark=1 if len(asked) > 2 else 0)
        return []

    assert await ranges(answer, last=4) == [(1, 4)]
    assert asked.count("eth_getLogs") == 2


async def test_logs_after_a_checkpoint_that_still_holds_go_on() -> None:
    def answer(method: str, params: list[Any]) -> object:
        return block(int(params[0], 16)) if method == "eth_getBlockByNumber" else []

    holds = Checkpoint(block=0, hash=Hash(bytes.fromhex(block(0)["hash"][2:])))
    assert await ranges(answer, last=2, after=holds) == [(1, 2)]
