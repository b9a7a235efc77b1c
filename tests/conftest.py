"""What every ring shares: where captured documents lie, and a guard against tests that change the process."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"

CLONE_NEWNET = 0x40000000

# The same examples each time, however slow the machine is; HYPOTHESIS_PROFILE=explore looks for new ones.
hypothesis.settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.register_profile("explore", hypothesis.settings.get_profile("same"), derandomize=False)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer ``--own-network``."""
    parser.addoption("--own-network", action="store_true", help="with -n, as root: a network for each process")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Give each of several test processes side by side a network of its own: a freed port is not the neighbour's."""
    if hasattr(session.config, "workerinput") and session.config.getoption("--own-network"):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the system ring without root, and say why."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="the system ring needs root")
    for item in items:
        if "system" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Return the folder of captured platform documents, or skip where it is absent."""
    folder = SHARED / "fixtures" / "walinuxagent"
    if not folder.is_dir():
        pytest.skip("captured platform documents (../shared/fixtures/walinuxagent) are not here")
    return folder


@pytest.fixture(scope="session")
def seeds() -> Path:
    """Return the folder of the documents that the product was asked from, or skip where it is absent."""
    folder = SHARED / "seeds"
    if not folder.is_dir():
        pytest.skip("the seed documents (../shared/seeds) are not here")
    return folder


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    environment, directory = dict(os.environ), os.getcwd()
    mask = os.umask(0o022)
    os.umask(mask)
    yield
    after = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    environment.pop("PYTEST_CURRENT_TEST", None)
    now = os.umask(mask)
    assert after == environment, "the test changed the environment"
    assert os.getcwd() == directory, "the test changed the working directory"
    assert now == mask, "the test changed the umask"
    strays = [
        thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    assert not strays, f"the test left threads behind: {strays}"
