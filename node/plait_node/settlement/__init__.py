"""Turn vouchers into claims on chain and follow them until they are final."""

from __future__ import annotations

__all__: list[str] = []
