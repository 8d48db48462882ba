from __future__ import annotations

import subprocess
import sys

import pytest

NESTED = """
import sys
before = sys.getrecursionlimit()
import plait
import py_ecc, eth_account, web3, plait.chain, plait_audit
assert sys.getrecursionlimit() == before, sys.getrecursionlimit()
import json
try:
    json.loads("[" * 100_000)
except RecursionError:
    print("refused")
"""

BEFORE = "import web3, plait, sys; print(sys.getrecursionlimit())"
CHOSEN = "import sys; sys.setrecursionlimit(2_500); import plait; print(sys.getrecursionlimit())"


@pytest.mark.parametrize(("script", "limit"), [(BEFORE, 1_000), (CHOSEN, 2_500)])
def test_recursion_limit_lifted_before_plait_is_taken_back_and_a_chosen_one_kept(script: str, limit: int) -> None:
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=200)

    assert int(done.stdout) == limit


def test_json_nested_deeply_is_refused_whatever_is_imported_after_plait() -> None:
    done = subprocess.run([sys.executable, "-c", NESTED], check=False, capture_output=True, text=True, timeout=200)

    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
