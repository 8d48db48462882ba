from __future__ import annotations

from tests.sdk.client.conftest import world

__all__ = ["world"]
