"""Take jobs from payers, relay checked answers, accept vouchers: the gateway role over HTTP."""

from __future__ import annotations

from plait_node.gateway.errors import GatewayError, WithheldError
from plait_node.gateway.hops import Strangers
from plait_node.gateway.http import make_app, serve
from plait_node.gateway.service import Gateway

__all__ = ["Gateway", "GatewayError", "Strangers", "WithheldError", "make_app", "serve"]
