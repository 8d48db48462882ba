"""OpenAI's API on the user's own machine: its clients ask the swarm, and the user's channel pays within limits."""

from __future__ import annotations

from plait.proxy.access import Access
from plait.proxy.desk import Desk
from plait.proxy.errors import LimitError, ParameterError, ProxyError
from plait.proxy.http import make_app
from plait.proxy.serve import serve
from plait.proxy.spending import Limits, Spending

__all__ = [
    "Access",
    "Desk",
    "LimitError",
    "Limits",
    "ParameterError",
    "ProxyError",
    "Spending",
    "make_app",
    "serve",
]
