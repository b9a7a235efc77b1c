"""sd_notify without a library: one datagram to the socket that systemd named (models.md 4.7).

Standard library alone.
"""

from __future__ import annotations

import _socket
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping


class Notifier:
    """Tell the service manager how the service is; without one every call does nothing.

    Attributes:
        watchdog_period: seconds between two pings, half of what the manager waits for; ``None`` when it does not.
    """

    def __init__(self, address: str | None = None, watchdog_period: float | None = None) -> None:
        self._address: str | bytes | None = address
        if address and address.startswith("@"):
            self._address = b"\0" + os.fsencode(address[1:])
        self.watchdog_period = watchdog_period

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Take the manager's variables out of *environ*, so that no child inherits them."""
        address = environ.pop("NOTIFY_SOCKET", None)
        period = environ.pop("WATCHDOG_USEC", "")
        owner = environ.pop("WATCHDOG_PID", "")
        if owner and owner != str(os.getpid()):
            period = ""
        microseconds = int(period) if period.isdecimal() else 0
        return cls(address, microseconds / 2e6 if microseconds else None)

    def send(self, *lines: str) -> bool:
        """Send *lines* (``READY=1``, ``STATUS=…``) in one datagram; returns whether the manager has got it."""
        if not self._address:
            return False
        try:
            channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | getattr(_socket, "SOCK_CLOEXEC", 0))
            try:
                channel.settimeout(2.0)
                channel.sendto("\n".join(line.replace("\n", " ") for line in lines).encode("utf-8"), self._address)
            finally:
                channel.close()
        except OSError:
            return False
        return True

    def status(self, text: str) -> bool:
        """Set the line that ``systemctl status`` shows."""
        return self.send("STATUS=" + text)
