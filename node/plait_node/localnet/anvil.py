"""A local chain: anvil on a free port of loopback."""

from __future__ import annotations

import httpx

from plait.protocol.ids import Address, to_hex
from plait_node.localnet.processes import Child, Children, find_program, until_up
from plait_node.ports import free_port

_ETHER = 10**18
_DEADLINE_S = 60.0


class Anvil:
    """A chain of one block producer; every transaction is mined at once."""

    def __init__(self, child: Child, url: str) -> None:
        self.child = child
        self.url = url

    @classmethod
    async def start(cls, children: Children, *, port: int = 0) -> Anvil:
        """Start anvil and wait until it answers."""
        port = port or free_port()
        command = [find_program("anvil"), "--port", str(port), "--hardfork", "prague", "--accounts", "1"]
        child = children.start("anvil", command)
        anvil = cls(child, f"http://127.0.0.1:{port}")
        await until_up(child, anvil.answers, deadline_s=_DEADLINE_S)
        return anvil

    async def call(self, method: str, *params: object) -> object:
        """Make one JSON-RPC call of anvil's own."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        async with httpx.AsyncClient(timeout=_DEADLINE_S) as http:
            reply = (await http.post(self.url, json=body)).json()
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return reply.get("result")

    async def answers(self) -> bool:
        """Whether the chain answers yet."""
        try:
            return await self.call("eth_chainId") is not None
        except httpx.HTTPError:
            return False

    async def fund(self, account: Address, *, ether: int = 10) -> None:
        """Give an account ether to pay for gas."""
        await self.call("anvil_setBalance", to_hex(account), hex(ether * _ETHER))
