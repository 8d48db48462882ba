"""Keep Python's recursion limit, which a library that web3 depends on lifts to 100,000 when it is imported.

At that limit the C stack ends before Python's: one deeply nested JSON text from a peer, an RPC provider or a model's
publisher kills the process with a segmentation fault instead of raising `RecursionError`. A module is executed once, so
importing it here makes its later imports harmless. Where it came before us and its limit stands, that is taken back; a
limit that somebody chose otherwise is left alone.
"""

from __future__ import annotations

import sys
from importlib import import_module

_PYTHONS_OWN = 1_000
_LIFTED = 100_000

_before = sys.getrecursionlimit()
import_module("py_ecc")
sys.setrecursionlimit(_PYTHONS_OWN if _before == _LIFTED else _before)
