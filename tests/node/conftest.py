"""gRPC binds itself to the first event loop of the process: all asynchronous tests of the node share one."""

from __future__ import annotations

import pytest
from pytest_asyncio import is_async_test


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    shared = pytest.mark.asyncio(loop_scope="session")
    for item in items:
        if is_async_test(item) and "tests/node" in item.path.as_posix():
            item.add_marker(shared, append=False)
