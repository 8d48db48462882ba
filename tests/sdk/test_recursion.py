from __future__ import annotations

import subprocess
import sys

import pytest

NESTED = """
import sys
before = sys.getrecursionlimit()
import plait
import {later}
assert sys.getrecursionlimit() == before, sys.getrecursionlimit()
import json
try:
    json.loads("[" * 100_000)
except RecursionError:
    print("refused")
"""


@pytest.mark.parametrize("later", ["web3", "eth_account", "py_ecc", "plait_node.engine", "plait_audit", "plait.chain"])
def test_json_nested_deeply_is_refused_whatever_is_imported_after_plait(later: str) -> None:
    command = [sys.executable, "-c", NESTED.format(later=later)]

    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
