"""Carry jobs and results between gateways and workers: NATS JetStream, or memory within one process."""

from __future__ import annotations

from plait_node.broker.errors import (
    BrokerClosedError,
    BrokerDownError,
    BrokerError,
    MessageTooLargeError,
    ServerStartError,
    UnreadableMessageError,
)
from plait_node.broker.face import Acknowledged, Broker, BroughtPrompt, DeadLetter, Delivery, Notice, Result
from plait_node.broker.jetstream import NatsBroker
from plait_node.broker.memory import MemoryBroker
from plait_node.broker.server import LocalServer

__all__ = [
    "Acknowledged",
    "Broker",
    "BrokerClosedError",
    "BrokerDownError",
    "BrokerError",
    "BroughtPrompt",
    "DeadLetter",
    "Delivery",
    "LocalServer",
    "MemoryBroker",
    "MessageTooLargeError",
    "NatsBroker",
    "Notice",
    "Result",
    "ServerStartError",
    "UnreadableMessageError",
]
