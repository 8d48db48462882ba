"""Measure candidates on the real engine: tasks, models, settings, and the runner that appends rows to a history."""

from __future__ import annotations

from plait_node.selector.bench.models import MODELS, SMALL
from plait_node.selector.bench.session import Plan, measure_into
from plait_node.selector.bench.settings import PRICES, SETTINGS, hardware_facts
from plait_node.selector.bench.wrong import bar_wrong, wrong

__all__ = ["MODELS", "PRICES", "SETTINGS", "SMALL", "Plan", "bar_wrong", "hardware_facts", "measure_into", "wrong"]
