"""Types of the asyncio stubs generated from proto/ by `make gen`; edits here are overwritten."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import grpc.aio
from plait.protocol.pb import stage_pb2

class StageLinkStub:
    def __init__(self, channel: grpc.aio.Channel) -> None: ...
    Link: grpc.aio.StreamStreamMultiCallable[stage_pb2.Frame, stage_pb2.Frame]
    Relay: grpc.aio.StreamStreamMultiCallable[stage_pb2.Relayed, stage_pb2.Relayed]

class StageLinkServicer:
    def Link(
        self, request_iterator: AsyncIterator[stage_pb2.Frame], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[stage_pb2.Frame]: ...
    def Relay(
        self, request_iterator: AsyncIterator[stage_pb2.Relayed], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[stage_pb2.Relayed]: ...

def add_StageLinkServicer_to_server(
    servicer: StageLinkServicer, server: grpc.aio.Server
) -> None: ...
