"""Share the tests out between processes: a file stays together, and all that use the one live network stay together."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes, or takes to be made, tells of the machine and what else it does.
settings.register_profile("plait", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("plait")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start with the live network's tests: they wait most, so the other process works through the rest meanwhile."""
    items.sort(key=lambda item: not on_network(item))
    for item in items:
        group = "network" if on_network(item) else item.path.relative_to(config.rootpath).as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


def on_network(item: pytest.Item) -> bool:
    """Tell whether a test asks for the network that one session starts once."""
    return "running_network" in getattr(item, "fixturenames", ())
