"""The WireServer's address in cached DHCP leases: option 245 in three formats (wireserver §2.3, distro §5.2)."""

from __future__ import annotations

import re
import time

from waagent.platform import ticks

_HEX = re.compile(r"[0-9a-fA-F]{1,2}(?::[0-9a-fA-F]{1,2}){3}\Z")
_PACKED_HEX = re.compile(r"[0-9a-fA-F]{8}\Z")
_OCTAL = re.compile(r"\\([0-3][0-7]{2})")
_MOMENT = re.compile(r"(\d{4})/(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d)(?: \S+)?\Z", re.ASCII)
_EPOCH = re.compile(r"epoch (\d{1,15})\b", re.ASCII)


def parse_isc_leases(data: bytes, now: float | None = None) -> str | None:
    """Return the address in the last valid lease of a dhclient file, ``None`` when there is none.

    Args:
        data: the file's content; it is never refused.
        now: seconds since 1970, the present by default; a lease that expired before is not valid.
    """
    return _parse_blocks(data, "option unknown-245 ", now)


def parse_openbsd_leases(data: bytes, now: float | None = None) -> str | None:
    """Return the address in the last valid lease of an OpenBSD dhclient file, ``None`` when there is none."""
    return _parse_blocks(data, "option option-245 ", now)


def parse_networkd_lease(data: bytes) -> str | None:
    """Return the address in a systemd-networkd lease, ``None`` when there is none. Such files carry no expiry."""
    found = None
    for line in data.decode("latin-1").splitlines():
        key, mark, value = line.strip().partition("=")
        if mark and key == "OPTION_245":
            found = lease_address(value) or found
    return found


def lease_address(value: str) -> str | None:
    """Return option 245 as a dotted address.

    Accepted are four hex bytes with colons (``a8:3f:81:10``, a byte may have one digit), eight hex digits, and the
    string form: four characters, each a byte, with backslashes or octal escapes. ``None`` for anything else.
    """
    text = value.strip()
    if _HEX.match(text):
        numbers = [int(part, 16) for part in text.split(":")]
    elif _PACKED_HEX.match(text):
        numbers = list(bytes.fromhex(text))
    else:
        if len(text) >= 2 and text[0] == text[-1] == '"':
            text = text[1:-1]
        if len(text) > 32:
            return None
        letters = _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)
        if len(letters) != 4:
            letters = re.sub(r"\\(.)", r"\1", letters, flags=re.DOTALL)
        numbers = [ord(letter) for letter in letters]
        if len(numbers) != 4 or max(numbers) > 255:
            return None
    return ".".join(map(str, numbers))


def _parse_blocks(data: bytes, option: str, now: float | None) -> str | None:
    moment = time.time() if now is None else now
    found = address = None
    valid = False
    for raw in data.decode("latin-1").split("\n"):
        line = raw.strip()
        if raw.startswith("lease"):
            address, valid = None, False
        elif line.startswith(option):
            address = lease_address(line[len(option) :].rstrip("; "))
        elif line.startswith("expire "):
            valid = _is_valid(" ".join(line[len("expire ") :].split()), moment)
        elif line.startswith("}"):
            if valid and address:
                found = address
            address, valid = None, False
    return found


def _is_valid(text: str, now: float) -> bool:
    """Whether ``0 never;``, ``4 2026/01/31 08:15:42;`` or ``epoch 1769847342; # ...`` lies in the future."""
    expiry = text.partition(";")[0].strip()
    if expiry.endswith("never"):
        return True
    epoch = _EPOCH.match(expiry)
    if epoch:
        return int(epoch.group(1)) > now
    match = _MOMENT.match(expiry.partition(" ")[2])
    if match is None:
        return False
    year, month, day, hour, minute, second = (int(part) for part in match.groups())
    seconds = ticks.unix_seconds(year, month, day, hour, minute, second)
    return seconds is not None and seconds > now
