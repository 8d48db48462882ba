"""Turn vouchers into claims on chain, fund channels, answer on-chain requests, each exactly once."""

from __future__ import annotations

from plait_node.settlement.asked import OnchainRequest
from plait_node.settlement.claimer import Claim, Claimer, Policy
from plait_node.settlement.opener import Deposit, Limits, Opener
from plait_node.settlement.requests import OnchainWatcher, begin_before
from plait_node.settlement.till import Till

__all__ = [
    "Claim",
    "Claimer",
    "Deposit",
    "Limits",
    "OnchainRequest",
    "OnchainWatcher",
    "Opener",
    "Policy",
    "Till",
    "begin_before",
]
