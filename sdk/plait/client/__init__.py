"""The client a dApp imports: ask, stream, check, pay, and look up what became of it."""

from __future__ import annotations

from plait.client.answers import (
    ChatCompletion,
    ChatCompletionChunk,
    JobInfo,
    JobStatus,
    Model,
    Node,
    OnChainAnswer,
    Usage,
)
from plait.client.core import AsyncPlait
from plait.client.delivery import PreparedPrompt
from plait.client.stream import AsyncStream
from plait.client.sync import Plait, Stream

__all__ = [
    "AsyncPlait",
    "AsyncStream",
    "ChatCompletion",
    "ChatCompletionChunk",
    "JobInfo",
    "JobStatus",
    "Model",
    "Node",
    "OnChainAnswer",
    "Plait",
    "PreparedPrompt",
    "Stream",
    "Usage",
]
