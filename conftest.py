"""Share the tests out between processes: a file stays together, and all that use the one live network stay together."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from tests.folders import clear_folders

LIVE_NETWORK = "chain_tests/live/test_thread_"  # how the files begin whose tests use it

# How long an example takes, or takes to be made, tells of the machine and what else it does.
settings.register_profile("plait", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI judges a change by the same examples each time; new ones are for whoever works on it, and for `make fuzz`.
settings.register_profile("ci", settings.get_profile("plait"), derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "plait"))


@pytest.fixture(scope="session", autouse=True)
def session_folders() -> Iterator[None]:
    """Clear away what was made for all tests of a session."""
    yield
    clear_folders()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the live network's tests: they wait most, so the other process works through the rest meanwhile."""
    for item in items:
        if on_network(item) and not item.nodeid.startswith(LIVE_NETWORK):
            raise pytest.UsageError(f"{item.nodeid} uses the live network: its file's name begins with test_thread_")
    items.sort(key=lambda item: not on_network(item))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep one file's tests in one process, and all that use the live network together: it is started once.

    By the files' names: the process that shares out knows nothing else of the tests.
    """
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 -- not installed where nobody asks for it

    class TogetherOnTheNetwork(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return LIVE_NETWORK if nodeid.startswith(LIVE_NETWORK) else super()._split_scope(nodeid)

    return TogetherOnTheNetwork(config, log)


def on_network(item: pytest.Item) -> bool:
    """Tell whether a test asks for the network that one session starts once."""
    return "running_network" in getattr(item, "fixturenames", ())
