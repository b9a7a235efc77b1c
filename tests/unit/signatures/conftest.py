"""An agent as the signatures plugin sees it, and authorities of our own."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.signatures.authority import DAY, Authority, as_text, sign
from waagent import Package, Paths, Veto
from waagent.commands import Completed, run
from waagent.conffile import read_chain
from waagent.config import Config
from waagent.log import Log, Sinks
from waagent_signatures.plugin import SignaturesPlugin

LEVELS = ("VERBOSE", "INFO", "WARNING", "ERROR")
NAME, VERSION = "Contoso.Tools.Sample", "1.4.2"


class Machine:
    """A scratch root with an agent's worker; what the plugin is asked, in short."""

    def __init__(self, root: Path, anchor: Path, stamp_anchor: Path) -> None:
        self.root = root
        (root / "etc").mkdir()
        self.paths = Paths(str(root))
        os.makedirs(self.paths.lib_dir)
        self.lines: list[str] = []
        self.log = Log(Sinks(), "Test")
        self.log.also = lambda level, text: self.lines.append(f"{LEVELS[level]} {text}")
        self.seen: list[tuple[str, bool, str]] = []
        self.events = self
        self.ran: list[tuple[str, ...]] = []
        for name, source in (("anchor.pem", anchor), ("stamps.pem", stamp_anchor)):
            (root / "etc" / name).write_bytes(source.read_bytes())
            (root / "etc" / name).chmod(0o644)
        self.package = Path(self.paths.lib_dir) / f"{NAME}__{VERSION}.zip"
        with zipfile.ZipFile(self.package, "w") as archive:
            archive.writestr("bin/run", "#!/bin/sh\n" * 1000)
        self.restart()

    def restart(self, conf: str = "") -> None:
        """Start another worker; *conf* comes after what makes our own authorities trusted."""
        text = "Signatures.TrustAnchor=/etc/anchor.pem\nSignatures.TimestampAnchor=/etc/stamps.pem\n"
        (self.root / "etc" / "waagent.conf").write_text(text + conf)
        self.plugin = SignaturesPlugin()
        self.config = Config(read_chain(str(self.root)))
        self.config.declare("signatures", self.plugin.declare_options())
        self.seen.clear()
        self.lines.clear()
        self.ran.clear()

    def run(self, argv: Sequence[str], *, timeout: float = 30, env: Mapping[str, str] | None = None) -> Completed:
        self.ran.append(tuple(argv))
        return run(argv, timeout=timeout, env=env)

    def add(self, operation: str, *, success: bool = True, message: str = "", **more: Any) -> None:
        self.seen.append((operation, success, message))

    def verify(self, signature: str) -> Veto | None:
        offered = Package(NAME, VERSION, str(self.package), signature)
        return self.plugin.verify_package(self, offered)  # type: ignore[arg-type]

    def accept(self, directory: Path, signature: str = "MIIB") -> Veto | None:
        offered = Package(NAME, VERSION, str(self.package), signature)
        return self.plugin.accept_package(self, offered, str(directory))  # type: ignore[arg-type]

    @property
    def verdict(self) -> tuple[str, bool, str]:
        """The first event of the last check."""
        return self.seen[0]

    def fake_openssl(self, script: str) -> str:
        """Make a program in place of openssl; return the line of configuration that names it."""
        path = self.root / "openssl"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        return f"OS.OpensslPath={path}\n"


class Authorities:
    """Whom the tests trust, and whom they do not."""

    def __init__(self, directory: Path) -> None:
        now = time.time()
        self.ours = Authority(directory / "ours", "Packages of our own")
        self.stamps = Authority(directory / "stamps", "Timestamps of our own")
        self.strangers = Authority(directory / "strangers", "Somebody else")
        self.leaf = self.ours.leaf("leaf", "code", now - DAY, now + DAY)
        self.expired = self.ours.leaf("expired", "code", now - 800 * DAY, now - 400 * DAY)
        self.stranger = self.strangers.leaf("leaf", "code", now - DAY, now + DAY)
        self.clock = self.stamps.leaf("clock", "stamp", now - 900 * DAY, now + DAY)
        self.wrong_clock = self.strangers.leaf("clock", "stamp", now - 900 * DAY, now + DAY)
        self.no_clock = self.stamps.leaf("other", "code", now - 900 * DAY, now + DAY)


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities(tmp_path_factory.mktemp("authorities"))


@pytest.fixture
def machine(tmp_path: Path, authorities: Authorities) -> Machine:
    return Machine(tmp_path, authorities.ours.root, authorities.stamps.root)


@pytest.fixture
def signed(machine: Machine, authorities: Authorities) -> str:
    """The good signature of the machine's package."""
    return as_text(sign(machine.package, authorities.leaf))
