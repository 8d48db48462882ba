"""How long tests of the broker wait: what comes comes within `SOON_S`, and no lease ends meanwhile."""

from __future__ import annotations

SOON_S = 30.0
LEASE_S = 45.0
