"""The few configuration values that the supervisor needs, without the typed layer. Standard library alone.

What is wrong with the files is told by the boot stage, which runs at every start and reload.
"""

from __future__ import annotations

from waagent import conffile
from waagent.paths import Paths


class Settings:
    """What the supervisor takes from the configuration.

    Attributes:
        paths: the agent's places.
        verbose_file: ``Logs.Verbose``: VERBOSE lines go to the log file.
        packaged_only: run the installed version whatever was downloaded (configuration §4.7).
        fips: ``OS.EnableFIPS``: children get ``OPENSSL_FIPS=1`` (service §1.3).
    """

    __slots__ = ("fips", "packaged_only", "paths", "verbose_file")

    def __init__(self, root: str, conf: str | None) -> None:
        """Read the configuration.

        Raises:
            ConfigError: *conf* names a file that does not exist.
        """
        raw = conffile.read_chain(root, conf)
        self.paths = Paths(root, conffile.values_for_paths(raw))
        self.verbose_file = _yes(raw.get("Logs.Verbose"), False)
        latest = raw.get("AutoUpdate.UpdateToLatestVersion")
        self.packaged_only = latest is None and not _yes(raw.get("AutoUpdate.Enabled"), True)
        self.fips = _yes(raw.get("OS.EnableFIPS"), False)


def _yes(value: str | None, default: bool) -> bool:
    word = (value or "").lower()
    return word == "y" if word in ("y", "n") else default
