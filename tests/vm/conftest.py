"""The VM ring: one network namespace for the whole run, one image per session, one platform per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm import machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = machine.missing_tools()
    for item in items:
        if "/tests/vm/" not in str(item.path):
            continue
        item.add_marker(pytest.mark.vm)
        item.add_marker(pytest.mark.timeout(900))
        if not machine.as_root():
            item.add_marker(pytest.mark.skip(reason="the VM ring needs root"))
        elif missing:
            item.add_marker(pytest.mark.skip(reason=f"the VM ring needs {', '.join(missing)}"))


@pytest.fixture(scope="session")
def network() -> None:
    """Enter a network of our own; for good, since this process runs nothing but the VM ring."""
    machine.base_tree()  # needs the real network, once
    machine.built_wheel()
    machine.enter_network()


@pytest.fixture
def platform(network: None) -> Iterator[Any]:
    """The embedded platform at the platform's addresses."""
    with machine.platform() as fabric:
        yield fabric


@pytest.fixture(scope="session")
def login_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ssh key pair of a user; the path of the private key."""
    return machine.new_key(tmp_path_factory.mktemp("key"))
