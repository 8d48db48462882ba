"""web3's HTTP provider over a client that may be cancelled at any point.

web3 8.0's own session manager waits for a thread lock in a worker thread for each request; a call that is cancelled or
times out while it waits leaves the lock taken for ever, and every later request of the process hangs with it.
"""

from __future__ import annotations

import httpx
from web3 import AsyncHTTPProvider
from web3.types import RPCEndpoint


class HttpProvider(AsyncHTTPProvider):
    """One endpoint over one pool of connections, for one event loop."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        super().__init__(url, exception_retry_configuration=None)
        self._http = httpx.AsyncClient(timeout=timeout_s, headers=self.get_request_headers())

    async def _make_request(self, method: RPCEndpoint, request_data: bytes) -> bytes:
        del method
        reply = await self._http.post(str(self.endpoint_uri), content=request_data)
        reply.raise_for_status()
        return reply.content

    async def disconnect(self) -> None:
        """Close the connections; a closed provider answers nothing more."""
        await self._http.aclose()
