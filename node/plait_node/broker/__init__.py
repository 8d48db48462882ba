"""Carry jobs and results between gateways and workers: NATS JetStream, or memory within one process."""

from __future__ import annotations

from plait_node.broker.access import BrokerAccess
from plait_node.broker.errors import (
    BrokerClosedError,
    BrokerDownError,
    BrokerError,
    MessageTooLargeError,
    NkeyError,
    ServerStartError,
    StreamsMissingError,
    UnreadableMessageError,
)
from plait_node.broker.face import Acknowledged, Broker, BroughtPrompt, DeadLetter, Delivery, Notice, Result
from plait_node.broker.jetstream import NatsBroker
from plait_node.broker.leases import LEASE_LIFE_S, LogRecord, LogRow, Shared
from plait_node.broker.memory import MemoryBroker
from plait_node.broker.server import LocalServer

__all__ = [
    "LEASE_LIFE_S",
    "Acknowledged",
    "Broker",
    "BrokerAccess",
    "BrokerClosedError",
    "BrokerDownError",
    "BrokerError",
    "BroughtPrompt",
    "DeadLetter",
    "Delivery",
    "LocalServer",
    "LogRecord",
    "LogRow",
    "MemoryBroker",
    "MessageTooLargeError",
    "NatsBroker",
    "NkeyError",
    "Notice",
    "Result",
    "ServerStartError",
    "Shared",
    "StreamsMissingError",
    "UnreadableMessageError",
]
