"""The JSON-RPC edge: every call has a deadline, every answer is checked before anybody uses it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Self, cast
from urllib.parse import urlsplit

from httpx import HTTPError, InvalidURL
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from web3.types import RPCEndpoint

from plait.chain.errors import RpcAnswerError, RpcDownError, RpcRefusedError
from plait.chain.provider import HttpProvider
from plait.chain.reverts import contract_error
from plait.chain.values import Block, Data, Log, Quantity, Receipt
from plait.protocol.ids import Address, Hash, to_hex

CALL_DEADLINE_S = 15.0
_TRIES = 3
_PAUSE_S = 0.2

Where = int | str  # a block's number, or latest, pending, finalized


class _Fault(BaseModel):
    model_config = ConfigDict(extra="ignore")

    code: int
    message: str = ""
    data: Any = None


_QUANTITY: TypeAdapter[int] = TypeAdapter(Quantity)
_DATA: TypeAdapter[bytes] = TypeAdapter(Data)
_LOGS: TypeAdapter[list[Log]] = TypeAdapter(list[Log])
_BLOCK: TypeAdapter[Block | None] = TypeAdapter(Block | None)
_RECEIPT: TypeAdapter[Receipt | None] = TypeAdapter(Receipt | None)


class Rpc:
    """One endpoint. Close it when done; it holds connections open between calls."""

    def __init__(self, url: str, *, timeout_s: float = CALL_DEADLINE_S) -> None:
        self._timeout_s = timeout_s
        self.url = shown_url(url)
        self._provider = HttpProvider(url, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connections; a closed endpoint answers nothing more."""
        async with asyncio.timeout(self._timeout_s):
            await self._provider.disconnect()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def request(self, method: str, *params: object) -> object:
        """Return the bare result of a call; raise `RpcError` or `ContractError`.

        Asks again when the connection breaks, within one deadline: every call that plait makes may be made twice,
        a signed transaction too.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._ask(method, params)
        except TimeoutError as error:
            raise RpcDownError(self.url, method=method, why=f"nothing within {self._timeout_s:g} s") from error
        if "error" in answer:
            raise self._refusal(method, answer["error"])
        if "result" not in answer:
            raise RpcAnswerError(self.url, method=method, why="neither a result nor an error")
        return answer["result"]

    async def chain_id(self) -> int:
        """Return the chain's id."""
        return await self._checked(_QUANTITY, "eth_chainId")

    async def block(self, where: Where = "latest") -> Block | None:
        """Return a block's head, None if there is no such block."""
        return await self._checked(_BLOCK, "eth_getBlockByNumber", _where(where), False)

    async def code(self, at: Address, where: Where = "latest") -> bytes:
        """Return the code at an address."""
        return await self._checked(_DATA, "eth_getCode", to_hex(at), _where(where))

    async def balance(self, account: Address, where: Where = "latest") -> int:
        """Return the account's balance in wei."""
        return await self._checked(_QUANTITY, "eth_getBalance", to_hex(account), _where(where))

    async def nonce(self, account: Address, where: Where = "latest") -> int:
        """Return how many transactions of the account are in blocks, or with "pending" are known."""
        return await self._checked(_QUANTITY, "eth_getTransactionCount", to_hex(account), _where(where))

    async def call(self, to: Address, data: bytes, *, sender: Address | None = None, where: Where = "latest") -> bytes:
        """Run a call without sending it; raise `ContractError` when it reverts."""
        params = {"to": to_hex(to), "input": to_hex(data)} | ({"from": to_hex(sender)} if sender else {})
        return await self._checked(_DATA, "eth_call", params, _where(where))

    async def estimate_gas(self, *, sender: Address, to: Address | None, data: bytes, value: int = 0) -> int:
        """Return the gas a transaction would take on top of the pending ones; raise `ContractError`."""
        params: dict[str, str] = {"from": to_hex(sender), "input": to_hex(data), "value": hex(value)}
        if to is not None:
            params["to"] = to_hex(to)
        return await self._checked(_QUANTITY, "eth_estimateGas", params, "pending")

    async def priority_fee(self) -> int:
        """Return the tip the endpoint recommends, in wei per gas."""
        return await self._checked(_QUANTITY, "eth_maxPriorityFeePerGas")

    async def send_raw(self, raw: bytes) -> None:
        """Hand a signed transaction to the endpoint."""
        await self.request("eth_sendRawTransaction", to_hex(raw))

    async def receipt(self, tx: Hash) -> Receipt | None:
        """Return a transaction's receipt, None while it is in no block."""
        return await self._checked(_RECEIPT, "eth_getTransactionReceipt", to_hex(tx))

    async def knows(self, tx: Hash) -> bool:
        """Say whether the endpoint knows a transaction, in a block or waiting for one."""
        return await self.request("eth_getTransactionByHash", to_hex(tx)) is not None

    async def logs(
        self, *, first: int, last: int, addresses: Sequence[Address], topics: Sequence[Sequence[Hash] | None] = ()
    ) -> list[Log]:
        """Return the logs of a range of blocks, both ends included, in order."""
        query = {
            "fromBlock": hex(first),
            "toBlock": hex(last),
            "address": [to_hex(each) for each in addresses],
            "topics": [None if each is None else [to_hex(topic) for topic in each] for each in topics],
        }
        found = await self._checked(_LOGS, "eth_getLogs", query)
        return sorted(found, key=lambda log: (log.block, log.index))

    async def _checked(self, adapter: TypeAdapter[Any], method: str, *params: object) -> Any:  # noqa: ANN401 what the adapter makes
        result = await self.request(method, *params)
        try:
            return adapter.validate_python(result)
        except ValidationError as error:
            why = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise RpcAnswerError(self.url, method=method, why=why) from error

    async def _ask(self, method: str, params: Sequence[object]) -> dict[str, Any]:
        for left in reversed(range(_TRIES)):
            try:
                answer = cast("object", await self._provider.make_request(RPCEndpoint(method), list(params)))
            except (HTTPError, InvalidURL, OSError) as error:
                if not left:
                    raise RpcDownError(self.url, method=method, why=_reason(error)) from error
                await asyncio.sleep(_PAUSE_S)
            except (json.JSONDecodeError, UnicodeDecodeError, ValueError) as error:
                raise RpcAnswerError(self.url, method=method, why="not JSON") from error
            else:
                if not isinstance(answer, dict):
                    raise RpcAnswerError(self.url, method=method, why="not a JSON object")
                return cast("dict[str, Any]", answer)
        raise AssertionError("the last try returns or raises")

    def _refusal(self, method: str, raw: object) -> Exception:
        try:
            fault = _Fault.model_validate(raw)
        except ValidationError:
            return RpcAnswerError(self.url, method=method, why="an error without a code")
        data = _revert_data(fault.data)
        if data or "revert" in fault.message:
            return contract_error(data, message=fault.message)
        return RpcRefusedError(self.url, method=method, number=fault.code, message=fault.message, data=data)


def shown_url(url: str) -> str:
    """Return the URL without path, query and password, which often hold an API key."""
    parts = urlsplit(url)
    host = parts.hostname or url
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def _where(where: Where) -> str:
    return hex(where) if isinstance(where, int) else where


def _revert_data(data: object) -> bytes:
    if isinstance(data, dict):  # some nodes wrap it once more
        return _revert_data(cast("dict[str, object]", data).get("data"))
    if not isinstance(data, str):
        return b""
    try:
        return bytes.fromhex(data.removeprefix("Reverted ").removeprefix("0x"))
    except ValueError:
        return b""


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
