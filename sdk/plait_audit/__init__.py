"""Replay the logs of a deployment and report what does not add up."""

from __future__ import annotations

from plait_audit.load import Replay, replay
from plait_audit.report import Report, audit
from plait_audit.state import Finding, Place, State

__all__ = ["Finding", "Place", "Replay", "Report", "State", "audit", "replay"]
